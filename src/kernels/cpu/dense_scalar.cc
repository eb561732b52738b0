#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/float16.h"
#include "kernels/cpu/dense_ops.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/target.h"

namespace quern::cpu {
namespace {
#include "kernels/cpu/lanes_scalar.inl"

constexpr int kDenseTiles = 4;

// Each builds on the one before.
// clang-format off
#include "kernels/cpu/dense_pairs.inl"
#include "kernels/cpu/dense_body.inl"
// clang-format on
}  // namespace

extern const DenseOps kDenseScalar;
const DenseOps kDenseScalar = kOps;
}  // namespace quern::cpu
