// The instruction sets that the CPU kernels are compiled for, and which of them this machine runs.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

namespace quern::cpu {

// Worst first for each processor; a machine that runs one runs its base (isa_base()) as well.
enum class Isa : uint8_t {
  kScalar,      // plain C++
  kNeon,        // ARM: NEON and its dot product of bytes
  kI8mm,        // the same and products of int8 matrices
  kAvx2,        // AVX2, FMA, F16C
  kAvxVnni,     // the same and dot products of bytes
  kAvx512,      // AVX2 and AVX-512 F, BW, DQ, VL
  kAvx512Vnni,  // the same and VNNI
  kAvx512Bf16,  // the same and dot products of BF16
  kAmx,         // the same and AMX tiles of int8
};

inline constexpr int kIsaCount = 9;
inline constexpr std::array<std::string_view, kIsaCount> kIsaNames = {
    "scalar", "neon", "i8mm", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx"};

// The one whose kernels serve where `isa` has none of its own.
constexpr Isa isa_base(Isa isa) {
  constexpr std::array<Isa, kIsaCount> kBases = {Isa::kScalar, Isa::kScalar,     Isa::kNeon,
                                                 Isa::kScalar, Isa::kAvx2,       Isa::kAvx2,
                                                 Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAvx512Bf16};
  return kBases[static_cast<size_t>(isa)];
}

// What to give QUERN_TARGET_BEGIN for each.
#define QUERN_TARGET_AVX2 "avx2,fma,f16c"
#define QUERN_TARGET_AVX_VNNI QUERN_TARGET_AVX2 ",avxvnni"
#define QUERN_TARGET_AVX512 "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"
#define QUERN_TARGET_AVX512_VNNI "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#define QUERN_TARGET_AVX512_BF16 QUERN_TARGET_AVX512_VNNI ",avx512bf16"
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

// The best supported one.
Isa best_isa();

// The address of a table of kernels that only one processor has; elsewhere none.
#if defined(__x86_64__)
#define QUERN_X86_TABLE(table) &(table)
#else
#define QUERN_X86_TABLE(table) nullptr
#endif
#if defined(__aarch64__)
#define QUERN_ARM_TABLE(table) &(table)
#else
#define QUERN_ARM_TABLE(table) nullptr
#endif

// The tables of kernels, indexed by Isa; kScalar always has one.
template <typename Table>
using IsaTables = std::array<const Table*, kIsaCount>;

// Table for table from its instruction set.
template <typename Table>
struct IsaEntry {
  Isa isa;
  const Table* table;
};

template <typename Table>
constexpr IsaTables<Table> isa_tables(std::initializer_list<IsaEntry<Table>> entries) {
  IsaTables<Table> tables = {};
  for (const IsaEntry<Table>& entry : entries) tables[static_cast<size_t>(entry.isa)] = entry.table;
  return tables;
}

template <typename Table>
const Table& table_for(const IsaTables<Table>& tables, Isa isa) {
  while (tables[static_cast<size_t>(isa)] == nullptr) isa = isa_base(isa);
  return *tables[static_cast<size_t>(isa)];
}

}  // namespace quern::cpu
