// Loops that do nothing but reach a limit of the processor, one table for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quern::cpu {

struct LimitOps {
  // Reads [data, data + bytes) once; bytes is a multiple of kReadStep. The result keeps the loads.
  int64_t (*read)(const std::byte* data, size_t bytes);
  // `rounds` rounds of independent products; each round is int8_operations or f32_operations.
  int64_t (*int8_products)(int64_t rounds);
  int64_t int8_operations;
  float (*f32_products)(int64_t rounds);
  int64_t f32_operations;
};

inline constexpr size_t kReadStep = 4096;

extern const IsaTables<LimitOps> kLimitOps;

}  // namespace quern::cpu
