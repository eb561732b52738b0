// The instruction sets that the CPU kernels are compiled for, and which of them this machine runs.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quern::cpu {

// Worst first; a machine that runs one runs all before it.
enum class Isa : uint8_t {
  kScalar,      // plain C++
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Vnni,  // the same and VNNI
  kAmx,         // the same and AMX tiles of int8
};

inline constexpr int kIsaCount = 5;
inline constexpr std::array<std::string_view, kIsaCount> kIsaNames = {"scalar", "avx2", "avx512",
                                                                      "avx512vnni", "amx"};

// What to give QUERN_TARGET_BEGIN for each.
#define QUERN_TARGET_AVX2 "avx2,fma,f16c"
#define QUERN_TARGET_AVX512 "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"
#define QUERN_TARGET_AVX512_VNNI "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#define QUERN_TARGET_AMX QUERN_TARGET_AVX512_VNNI ",amx-tile,amx-int8"

constexpr std::string_view isa_name(Isa isa) { return kIsaNames[static_cast<size_t>(isa)]; }

// Empty for an unknown name.
std::optional<Isa> isa_from_name(std::string_view name);

// Whether the processor and the operating system support `isa`. Any thread. The first question for
// kAmx asks Linux to let this process use tiles, which is best done before it has other threads.
bool isa_supported(Isa isa);

// Whether tiles of int8 may be used: CPUID leaf 7 names them in EDX, and request_permission(), not
// called otherwise, returns 0.
bool amx_usable(uint32_t leaf7_edx, int (*request_permission)());

// The last supported one.
Isa best_isa();

// One entry for each instruction set: the tables of kernels are indexed by it. An instruction set
// that adds nothing to the one before has none of its own; the first one always has.
template <typename Table>
using IsaTables = std::array<const Table*, kIsaCount>;

template <typename Table>
const Table& table_for(const IsaTables<Table>& tables, Isa isa) {
  auto i = static_cast<size_t>(isa);
  while (tables[i] == nullptr) --i;
  return *tables[i];
}

}  // namespace quern::cpu
