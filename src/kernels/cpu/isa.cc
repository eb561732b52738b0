#include "kernels/cpu/isa.h"

#include <algorithm>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace quern::cpu {
namespace {

#if defined(__x86_64__)
// Half-precision conversion (F16C); not every compiler's __builtin_cpu_supports knows its name.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 29)) != 0;
}

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool has_avx_vnni() {
  constexpr unsigned kAvxVnniBit = 1u << 4;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
         (eax & kAvxVnniBit) != 0;
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool has_avx512bf16() {
  constexpr unsigned kAvx512Bf16Bit = 1u << 5;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx512vnni() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
         (eax & kAvx512Bf16Bit) != 0;
}

// Tiles are 8 KB of state that Linux saves only for processes that asked (5.16 and later).
int request_tiles() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // the state component of the tiles' contents
  return static_cast<int>(::syscall(SYS_arch_prctl, kRequestPermission, kTileData));
}

bool has_amx() {
  static const bool usable = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return has_avx512bf16() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
           amx_usable(edx, request_tiles);
  }();
  return usable;
}
#elif defined(__aarch64__)
bool has_neon() { return (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

bool has_i8mm() { return has_neon() && (::getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#endif

}  // namespace

std::optional<Isa> isa_from_name(std::string_view name) {
  const auto* found = std::find(kIsaNames.begin(), kIsaNames.end(), name);
  if (found == kIsaNames.end()) return std::nullopt;
  return static_cast<Isa>(found - kIsaNames.begin());
}

bool isa_supported(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
#if defined(__x86_64__)
    case Isa::kAvx2:
      return has_avx2();
    case Isa::kAvxVnni:
      return has_avx_vnni();
    case Isa::kAvx512:
      return has_avx512();
    case Isa::kAvx512Vnni:
      return has_avx512vnni();
    case Isa::kAvx512Bf16:
      return has_avx512bf16();
    case Isa::kAmx:
      return has_amx();
#elif defined(__aarch64__)
    case Isa::kNeon:
      return has_neon();
    case Isa::kI8mm:
      return has_i8mm();
#endif
    default:
      return false;
  }
}

bool amx_usable(uint32_t leaf7_edx, int (*request_permission)()) {
  constexpr uint32_t kTile = 1u << 24;
  constexpr uint32_t kInt8 = 1u << 25;
  constexpr uint32_t kBoth = kTile | kInt8;
  return (leaf7_edx & kBoth) == kBoth && request_permission() == 0;
}

Isa best_isa() {
  // Asked once: CPUID takes a microsecond or more of a virtual machine.
  static const Isa best = [] {
    for (int i = kIsaCount - 1; i > 0; --i) {
      if (isa_supported(static_cast<Isa>(i))) return static_cast<Isa>(i);
    }
    return Isa::kScalar;
  }();
  return best;
}

}  // namespace quern::cpu
