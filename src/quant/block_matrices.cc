#include "quant/block_matrices.h"

#include <atomic>
#include <cmath>
#include <span>
#include <string>

#include <fmt/format.h>

#include "quant/rounding.h"

namespace quern {
namespace {

constexpr int64_t kRowsPerChunk = 16;

// A float32 matrix as a weight that views it.
Weight view_of(const FloatMatrix& matrix) {
  DenseWeight dense;
  dense.values = matrix.tensor();
  return dense;
}

std::unique_ptr<PackedWeight> pack(
    const BlockMatrices& block, size_t begin, size_t end, Backend& backend, Precision precision) {
  std::vector<Weight> weights;
  std::vector<float> bias;
  bool any_bias = false;
  for (size_t i = begin; i < end; ++i) {
    weights.push_back(view_of(block.linears[i]));
    any_bias |= !block.biases[i].empty();
  }
  std::vector<const Weight*> parts;
  parts.reserve(weights.size());
  for (const Weight& weight : weights) parts.push_back(&weight);
  for (size_t i = begin; any_bias && i < end; ++i) {
    std::vector<float> part = block.biases[i];
    part.resize(static_cast<size_t>(block.linears[i].rows()), 0.0f);
    bias.insert(bias.end(), part.begin(), part.end());
  }
  return backend.pack(parts, bias, precision);
}

// kMaxWeight is what an f16 scale times the largest code reaches.
Result<Unit> check_numbers(const FloatMatrix& matrix, const LinearSpec& spec, ThreadPool& pool) {
  std::atomic<int64_t> bad{matrix.rows()};  // the first row with a number that cannot be rounded
  pool.for_each_chunk(matrix.rows(), kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      bool fits = true;
      const float* w = matrix.row(row);
      for (int64_t i = 0; i < matrix.columns(); ++i) fits &= std::fabs(w[i]) <= kMaxWeight;
      if (fits) continue;
      int64_t seen = bad.load();
      while (row < seen && !bad.compare_exchange_weak(seen, row)) {
      }
    }
  });
  if (bad == matrix.rows()) return Unit{};
  const float* w = matrix.row(bad);
  int64_t column = 0;
  while (std::fabs(w[column]) <= kMaxWeight) ++column;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}.weight[{}][{}] is {}; INT4 with f16 scales holds numbers of at most "
                           "982560",
                           spec.name, bad.load(), column, w[column])};
}

}  // namespace

Result<FloatMatrix> read_matrix(const LinearSpec& spec, const Checkpoint& checkpoint, Backend& b) {
  const Weight weight = QUERN_TRY(checkpoint.weight(spec.name, &b.pool()));
  if (weight_rows(weight) != spec.out || weight_columns(weight) != spec.in) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}.weight is {} x {}; the configuration asks for {} x {}", spec.name,
                             weight_rows(weight), weight_columns(weight), spec.out, spec.in)};
  }
  FloatMatrix matrix(spec.out, spec.in);
  b.pool().for_each_chunk(spec.out, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) widen_row(weight, row, matrix.row(row));
  });
  QUERN_TRY(check_numbers(matrix, spec, b.pool()));
  return matrix;
}

Result<BlockMatrices> read_block(const BlockSpec& spec, const Checkpoint& checkpoint, Backend& b) {
  BlockMatrices block;
  block.norm = QUERN_TRY(load_norm(spec.norm, checkpoint));
  for (const LinearSpec* linear : linears(spec)) {
    block.linears.push_back(QUERN_TRY(read_matrix(*linear, checkpoint, b)));
    std::vector<float> bias;
    if (linear->has_bias) {
      bias = QUERN_TRY(checkpoint.vector(linear->name + ".bias"));
      if (static_cast<int64_t>(bias.size()) != linear->out) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("{}.bias has {} numbers; the configuration asks for {}",
                                 linear->name, bias.size(), linear->out)};
      }
    }
    block.biases.push_back(std::move(bias));
  }
  if (const auto* attention = std::get_if<AttentionSpec>(&spec.mixer)) {
    if (attention->q_norm) block.q_norm = QUERN_TRY(load_norm(*attention->q_norm, checkpoint));
    if (attention->k_norm) block.k_norm = QUERN_TRY(load_norm(*attention->k_norm, checkpoint));
  }
  return block;
}

std::unique_ptr<PackedWeight> pack_input(const BlockMatrices& block,
                                         Backend& backend,
                                         Precision precision) {
  return pack(block, 0, output_index(block), backend, precision);
}

std::unique_ptr<PackedWeight> pack_output(const BlockMatrices& block,
                                          Backend& backend,
                                          Precision precision) {
  return pack(block, output_index(block), output_index(block) + 1, backend, precision);
}

BlockWeights pack_block(const BlockMatrices& block, Backend& backend, Precision precision) {
  return {.norm = block.norm,
          .input = pack_input(block, backend, precision),
          .output = pack_output(block, backend, precision),
          .q_norm = block.q_norm,
          .k_norm = block.k_norm};
}

}  // namespace quern
