// Executes the tile instructions of AMX that a processor refuses, in software: code compiled for
// AMX then runs, instruction by instruction as it was assembled, on any machine with AVX-512 VNNI.
// For tests.
#pragma once

#if defined(__x86_64__)
#include <atomic>
#include <cstdint>
#include <cstring>

#include <signal.h>
#include <ucontext.h>

#include "kernels/cpu/tile_emulator.h"

namespace quern::cpu {

// Decodes one VEX instruction of the AMX group (SDM volume 2, opcodes VEX.128.0F38.W0 49, 4B, 5E).
class TileInstruction {
 public:
  TileInstruction(const uint8_t* code, greg_t* registers) : code_(code), registers_(registers) {}

  // Returns the instruction's length, or 0 when it is none that TileEmulator knows.
  int execute(TileEmulator& tiles) {
    if (code_[0] != 0xc4 || (code_[1] & 0x1f) != 2 || (code_[2] & 0x84) != 0) return 0;
    if (mod() == 3) length_ = 5;
    const int prefix = code_[2] & 3;
    switch (code_[3] << 4 | prefix) {
      case 0x490:  // LDTILECFG, TILERELEASE
        return mod() == 3 ? release(tiles) : configure(tiles);
      case 0x493:  // TILEZERO
        tiles.zero(reg());
        return length_;
      case 0x4b3: {  // TILELOADD
        const uintptr_t at = address(Index::kStride);
        tiles.load(reg(), reinterpret_cast<const void*>(at), stride_);
        return length_;
      }
      case 0x4b2: {  // TILESTORED
        const uintptr_t at = address(Index::kStride);
        tiles.store(reg(), reinterpret_cast<void*>(at), stride_);
        return length_;
      }
      case 0x5e3:  // TDPBSSD
        tiles.dot(reg(), rm(), ~(code_[2] >> 3) & 7);
        return length_;
      default:
        return 0;
    }
  }

 private:
  enum class Index { kAdds, kStride };

  int mod() const { return code_[4] >> 6; }

  int reg() const { return code_[4] >> 3 & 7; }

  int rm() const { return code_[4] & 7; }

  int release(TileEmulator& tiles) const {
    tiles.release();
    return length_;
  }

  int configure(TileEmulator& tiles) {
    TileConfig config;
    std::memcpy(&config, reinterpret_cast<const void*>(address(Index::kAdds)), sizeof config);
    tiles.configure(config);
    return length_;
  }

  // General register by its number in the encoding.
  int64_t value(int number) const {
    static constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
    return registers_[kOrder[number]];
  }

  // The effective address; sets length_. In loads and stores of tiles the index register is the
  // distance of rows, and adds nothing.
  uintptr_t address(Index use) {
    const int high_index = (code_[1] & 0x40) != 0 ? 0 : 8;
    const int high_base = (code_[1] & 0x20) != 0 ? 0 : 8;
    const uint8_t* next = code_ + 5;
    int64_t at = 0;
    int base = rm();
    if (base == 4) {
      const int sib = *next++;
      base = sib & 7;
      const int index = (sib >> 3 & 7) + high_index;
      const int64_t scaled = index == 4 ? 0 : value(index) * (int64_t{1} << (sib >> 6));
      if (use == Index::kStride) stride_ = scaled;
      if (use == Index::kAdds) at += scaled;
    }
    const bool bare = mod() == 0 && base == 5;
    const int bytes = mod() == 1 ? 1 : mod() == 2 || bare ? 4 : 0;
    int32_t displacement = 0;
    if (bytes == 1) displacement = static_cast<int8_t>(*next);
    if (bytes == 4) std::memcpy(&displacement, next, sizeof displacement);
    next += bytes;
    length_ = static_cast<int>(next - code_);
    at += displacement;
    if (!bare) return static_cast<uintptr_t>(at + value(base + high_base));
    const bool relative = rm() == 5;  // to the next instruction
    return static_cast<uintptr_t>(at) + (relative ? reinterpret_cast<uintptr_t>(next) : 0);
  }

  const uint8_t* code_;
  greg_t* registers_;
  int length_ = 0;
  int64_t stride_ = 0;
};

// While it lives, tile instructions that the processor refuses are emulated; others crash as ever.
class TileTrap {
 public:
  TileTrap() {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    ::sigaction(SIGILL, &action, &saved_);
  }

  ~TileTrap() { ::sigaction(SIGILL, &saved_, nullptr); }

  TileTrap(const TileTrap&) = delete;
  TileTrap& operator=(const TileTrap&) = delete;

  // Instructions emulated so far, by all threads.
  static int64_t count() { return count_; }

 private:
  static void handle(int, siginfo_t*, void* context) {
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const auto* code = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
    const int length = TileInstruction(code, registers).execute(EmulatedTiles::here());
    if (length == 0) ::signal(SIGILL, SIG_DFL);  // the instruction fails again
    registers[REG_RIP] += length;
    ++count_;
  }

  static inline std::atomic<int64_t> count_{0};

  struct sigaction saved_ = {};
};

}  // namespace quern::cpu
#endif
