#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/elementwise_kernels.h"

namespace quern::cpu {
namespace {

constexpr IsaTables<ElementwiseKernels> kTables = isa_tables<ElementwiseKernels>({
    {Isa::kScalar, &kElementwiseScalar},
    {Isa::kNeon, QUERN_ARM_TABLE(kElementwiseNeon)},
    {Isa::kAvx2, QUERN_X86_TABLE(kElementwiseAvx2)},
    {Isa::kAvx512, QUERN_X86_TABLE(kElementwiseAvx512)},
});

// About 5 us of work from L2: waking another core for less costs more than it saves.
constexpr int64_t kChunkElements = 16384;

// Elements that cost as much as this many of a plain sum.
constexpr int64_t kSiluCost = 4;
constexpr int64_t kSineCost = 32;

int64_t last_dimension(const Tensor& x) { return x.shape[static_cast<size_t>(x.rank - 1)]; }

bool same_shape(const Tensor& a, const Tensor& b) { return a.rank == b.rank && a.shape == b.shape; }

// Calls body(row) for each row; on several threads when there is work enough.
void for_each_row(ThreadPool& pool,
                  int64_t rows,
                  int64_t row_cost,
                  FunctionRef<void(int64_t)> body) {
  const int64_t chunk = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, row_cost));
  pool.for_each_chunk(rows, chunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace

void rms_norm(
    ThreadPool& pool, Isa isa, Tensor out, Tensor x, std::span<const float> weight, float eps) {
  const ElementwiseKernels& kernels = table_for(kTables, isa);
  const int64_t width = last_dimension(x);
  QUERN_CHECK(same_shape(out, x) && width == static_cast<int64_t>(weight.size()));
  for_each_row(pool, x.rows(), x.row_elements(), [&](int64_t row) {
    for (int64_t i = 0; i < x.row_elements(); i += width) {
      kernels.rms_norm(out.f32_row(row) + i, x.f32_row(row) + i, weight.data(), width, eps);
    }
  });
}

void add_rms_norm(ThreadPool& pool,
                  Isa isa,
                  Tensor out,
                  Tensor x,
                  Tensor y,
                  std::span<const float> weight,
                  float eps) {
  const ElementwiseKernels& kernels = table_for(kTables, isa);
  QUERN_CHECK(x.rank == 2 && same_shape(out, x) && same_shape(x, y));
  QUERN_CHECK(x.row_elements() == static_cast<int64_t>(weight.size()));
  for_each_row(pool, x.rows(), x.row_elements(), [&](int64_t row) {
    kernels.add_rms_norm(out.f32_row(row), x.f32_row(row), y.f32_row(row), weight.data(),
                         x.row_elements(), eps);
  });
}

void add(ThreadPool& pool, Isa isa, Tensor x, Tensor y) {
  const ElementwiseKernels& kernels = table_for(kTables, isa);
  QUERN_CHECK(same_shape(x, y));
  for_each_row(pool, x.rows(), x.row_elements(),
               [&](int64_t row) { kernels.add(x.f32_row(row), y.f32_row(row), x.row_elements()); });
}

GateKernel gate_kernel_for(Isa isa) { return table_for(kTables, isa).silu_multiply; }

void silu_multiply(ThreadPool& pool, GateKernel kernel, Tensor out, Tensor gate_up) {
  const int64_t width = out.row_elements();
  QUERN_CHECK(out.rows() == gate_up.rows() && gate_up.row_elements() == 2 * width);
  for_each_row(pool, out.rows(), kSiluCost * width, [&](int64_t row) {
    const float* gate = gate_up.f32_row(row);
    kernel(out.f32_row(row), gate, gate + width, width);
  });
}

std::span<const float> RopeTables::rows(ThreadPool& pool,
                                        std::span<const int32_t> positions,
                                        const RopeParams& params) {
  for (const Table& table : tables_) {
    if (table.inverse_frequencies == params.inverse_frequencies &&
        table.attention_factor == params.attention_factor &&
        std::equal(positions.begin(), positions.end(), table.positions.begin(),
                   table.positions.end())) {
      return table.values;
    }
  }
  Table& table = tables_[next_];
  next_ = (next_ + 1) % tables_.size();
  table.inverse_frequencies = params.inverse_frequencies;
  table.attention_factor = params.attention_factor;
  table.positions.assign(positions.begin(), positions.end());
  const size_t half = params.inverse_frequencies.size();
  table.values.resize(positions.size() * 2 * half);
  for_each_row(pool, static_cast<int64_t>(positions.size()), kSineCost * static_cast<int64_t>(half),
               [&](int64_t row) {
                 const auto at = static_cast<size_t>(row);
                 float* cosines = table.values.data() + at * 2 * half;
                 const auto factor = static_cast<double>(params.attention_factor);
                 for (size_t i = 0; i < half; ++i) {
                   const double angle = positions[at] * params.inverse_frequencies[i];
                   cosines[i] = static_cast<float>(std::cos(angle) * factor);
                   cosines[half + i] = static_cast<float>(std::sin(angle) * factor);
                 }
               });
  return table.values;
}

void rope(ThreadPool& pool,
          Isa isa,
          RopeTables& tables,
          Tensor x,
          std::span<const int32_t> positions,
          const RopeParams& params) {
  const ElementwiseKernels& kernels = table_for(kTables, isa);
  const auto half = static_cast<int64_t>(params.inverse_frequencies.size());
  const int64_t head_dim = last_dimension(x);
  QUERN_CHECK(x.rank == 3 && x.rows() == static_cast<int64_t>(positions.size()));
  QUERN_CHECK(2 * half <= head_dim);
  const std::span<const float> values = tables.rows(pool, positions, params);
  for_each_row(pool, x.rows(), x.row_elements(), [&](int64_t row) {
    const float* cosines = values.data() + row * 2 * half;
    for (int64_t i = 0; i < x.row_elements(); i += head_dim) {
      kernels.rotate(x.f32_row(row) + i, cosines, cosines + half, half);
    }
  });
}

}  // namespace quern::cpu
