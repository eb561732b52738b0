#include "kernels/ref/ref_backend.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/float16.h"
#include "kernels/ref/attention.h"
#include "kernels/ref/elementwise.h"
#include "kernels/rounding.h"

namespace quern::ref {
namespace {

// One part of a joined layer: widened numbers, or codes with the packed scales widened.
struct Part {
  int64_t rows = 0;
  FloatMatrix dense;      // when codes are not kept
  bool bf16 = false;      // dense holds BF16 numbers, which meet activations rounded to BF16
  GroupedWeight grouped;  // group_size == 0: dense
};

class RefWeight final : public PackedWeight {
 public:
  int64_t rows() const override { return rows_; }

  int64_t columns() const override { return columns_; }

  size_t bytes() const override {
    size_t total = bias.size() * sizeof(float);
    for (const Part& part : parts) {
      const GroupedWeight& g = part.grouped;
      total += static_cast<size_t>(part.dense.rows() * part.dense.columns()) * sizeof(float);
      total +=
          g.codes.size() + g.zeros.size() + (g.scales.size() + g.minima.size()) * sizeof(float);
    }
    return total;
  }

  std::string_view note() const override { return note_; }

  void add(Part part, int64_t columns, std::string_view note) {
    rows_ += part.rows;
    columns_ = columns;
    if (note_.empty()) note_ = note;
    parts.push_back(std::move(part));
  }

  std::vector<Part> parts;
  std::vector<float> bias;

 private:
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  std::string note_;
};

// Rounds scales and minima as every backend packs them; returns the note.
std::string round_in_place(GroupedWeight& weight) {
  double error = 0;
  for (std::vector<float>* values : {&weight.scales, &weight.minima}) {
    const RoundedScales rounded = round_scales(*values);
    error = std::max(error, rounded.largest_error);
    for (size_t i = 0; i < values->size(); ++i) (*values)[i] = rounded.value(i);
  }
  return rounding_note(error);
}

void append_part(RefWeight& packed, const Weight& weight, Precision precision) {
  Part part{.rows = weight_rows(weight), .dense = {}, .bf16 = false, .grouped = {}};
  const int64_t columns = weight_columns(weight);
  const auto* grouped = std::get_if<GroupedWeight>(&weight);
  if (grouped != nullptr && precision == Precision::kFast) {
    QUERN_CHECK(grouped->group_size == 16 || grouped->group_size % 32 == 0);
    part.grouped = *grouped;
    const std::string note = round_in_place(part.grouped);
    packed.add(std::move(part), columns, note);
    return;
  }
  part.dense = widen(weight);
  const auto* dense = std::get_if<DenseWeight>(&weight);
  const bool stored = dense != nullptr && dense->values.dtype == DType::kBF16;
  part.bf16 = precision == Precision::kBF16 || (precision == Precision::kFast && stored);
  bool exact = true;
  if (precision == Precision::kBF16) {
    for (int64_t i = 0; i < part.rows * columns; ++i) {
      float& value = part.dense.data()[i];
      const float rounded = bf16_to_f32(f32_to_bf16(value));
      exact = exact && rounded == value;
      value = rounded;
    }
  }
  packed.add(std::move(part), columns, exact ? "" : "widened weights rounded to BF16");
}

// A row of activations in groups, as Backend::linear() defines it.
struct QuantizedRow {
  std::vector<int> codes;
  std::vector<float> steps;  // d
  std::vector<int> sums;     // A
};

QuantizedRow quantize_row(const float* x, int64_t columns, int group_size) {
  QuantizedRow row;
  for (int64_t begin = 0; begin < columns; begin += group_size) {
    float largest = 0;
    bool finite = true;
    for (int64_t i = begin; i < begin + group_size; ++i) {
      finite = finite && std::isfinite(x[i]);
      largest = std::max(largest, std::fabs(x[i]));
    }
    const bool used = finite && largest >= kSmallestActivation;
    const float inverse = used ? 127.0f / largest : 0.0f;
    int sum = 0;
    for (int64_t i = begin; i < begin + group_size; ++i) {
      const int code = used ? static_cast<int>(std::nearbyint(x[i] * inverse)) : 0;
      row.codes.push_back(code);
      sum += code;
    }
    row.sums.push_back(sum);
    row.steps.push_back(used     ? largest / 127.0f
                        : finite ? 0.0f
                                 : std::numeric_limits<float>::quiet_NaN());
  }
  return row;
}

float dot_grouped(const GroupedWeight& weight, int64_t row, const QuantizedRow& x) {
  const uint8_t* codes = weight.codes.data() + row * weight.columns;
  float y = 0;
  for (int64_t g = 0; g < weight.groups(); ++g) {
    int c = 0;
    for (int64_t k = g * weight.group_size; k < (g + 1) * weight.group_size; ++k)
      c += codes[k] * x.codes[static_cast<size_t>(k)];
    const float d = x.steps[static_cast<size_t>(g)];
    const int sum = x.sums[static_cast<size_t>(g)];
    const auto i = static_cast<size_t>(row * weight.groups() + g);
    if (weight.offset == GroupOffset::kZeroPoint) {
      y = std::fma(weight.scales[i], static_cast<float>(c - weight.zeros[i] * sum) * d, y);
    } else {
      y = std::fma(weight.scales[i], static_cast<float>(c) * d, y);
      y = std::fma(weight.minima[i], static_cast<float>(sum) * d, y);
    }
  }
  return y;
}

float dot_dense(const float* w, const float* x, int64_t columns) {
  float y = 0;
  for (int64_t k = 0; k < columns; ++k) y = std::fma(w[k], x[k], y);
  return y;
}

// Both hold BF16 numbers.
float dot_pairs(const float* w, const float* x, int64_t columns) {
  float y = 0;
  for (int64_t k = 0; k < columns; k += 2) {
    const bool both = k + 1 < columns;
    y = std::fma(both ? w[k + 1] : 0.0f, both ? x[k + 1] : 0.0f, y);
    y = std::fma(w[k], x[k], y);
  }
  return y;
}

// out[0 .. part.rows) for one row of activations.
void multiply_row(float* out, const float* x, const Part& part, int64_t columns) {
  if (part.bf16) {
    std::vector<float> rounded(x, x + columns);
    for (float& value : rounded) value = bf16_to_f32(f32_to_bf16(value));
    for (int64_t n = 0; n < part.rows; ++n)
      out[n] = dot_pairs(part.dense.row(n), rounded.data(), columns);
    return;
  }
  if (part.grouped.group_size == 0) {
    for (int64_t n = 0; n < part.rows; ++n) out[n] = dot_dense(part.dense.row(n), x, columns);
    return;
  }
  const QuantizedRow quantized = quantize_row(x, columns, part.grouped.group_size);
  for (int64_t n = 0; n < part.rows; ++n) out[n] = dot_grouped(part.grouped, n, quantized);
}

void embed_row(float* out, const RefWeight& table, int64_t row) {
  for (const Part& part : table.parts) {
    if (row >= part.rows) {
      row -= part.rows;
      continue;
    }
    if (part.grouped.group_size > 0) {
      const GroupedWeight& w = part.grouped;
      for (int64_t k = 0; k < w.columns; ++k) {
        const auto i = static_cast<size_t>(row * w.groups() + k / w.group_size);
        const int code = w.codes[static_cast<size_t>(row * w.columns + k)];
        out[k] = w.offset == GroupOffset::kZeroPoint
                     ? w.scales[i] * static_cast<float>(code - w.zeros[i])
                     : w.scales[i] * static_cast<float>(code) + w.minima[i];
      }
      return;
    }
    for (int64_t k = 0; k < table.columns(); ++k) out[k] = part.dense.row(row)[k];
    return;
  }
}

}  // namespace

std::unique_ptr<PackedWeight> RefBackend::pack(std::span<const Weight* const> parts,
                                               std::span<const float> bias,
                                               Precision precision) {
  QUERN_CHECK(!parts.empty());
  auto packed = std::make_unique<RefWeight>();
  for (const Weight* weight : parts) {
    QUERN_CHECK(weight_columns(*weight) == weight_columns(*parts[0]));
    append_part(*packed, *weight, precision);
  }
  QUERN_CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == packed->rows());
  packed->bias.assign(bias.begin(), bias.end());
  return packed;
}

void RefBackend::embed(Tensor out, const PackedWeight& table, std::span<const int32_t> tokens) {
  const auto& weight = static_cast<const RefWeight&>(table);
  for (size_t t = 0; t < tokens.size(); ++t)
    embed_row(out.f32_row(static_cast<int64_t>(t)), weight, tokens[t]);
}

void RefBackend::linear(Tensor out, Tensor x, const PackedWeight& packed) {
  const auto& weight = static_cast<const RefWeight&>(packed);
  QUERN_CHECK(x.row_elements() == weight.columns() && out.row_elements() == weight.rows());
  pool_.for_each_chunk(x.rows(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      int64_t row = 0;
      for (const Part& part : weight.parts) {
        multiply_row(out.f32_row(t) + row, x.f32_row(t), part, weight.columns());
        row += part.rows;
      }
      for (size_t n = 0; n < weight.bias.size(); ++n) out.f32_row(t)[n] += weight.bias[n];
    }
  });
}

void RefBackend::rms_norm(Tensor out, Tensor x, std::span<const float> weight, float eps) {
  ref::rms_norm(pool_, out, x, weight, eps);
}

void RefBackend::add_rms_norm(
    Tensor out, Tensor x, Tensor y, std::span<const float> weight, float eps) {
  ref::add_rms_norm(pool_, out, x, y, weight, eps);
}

void RefBackend::add(Tensor x, Tensor y) { ref::add(pool_, x, y); }

void RefBackend::rope(Tensor x, std::span<const int32_t> positions, const RopeParams& params) {
  ref::rope(pool_, x, positions, params);
}

void RefBackend::gated_linear(Tensor out, Tensor x, const PackedWeight& gate_up) {
  const FloatMatrix joined(x.rows(), gate_up.rows());
  linear(joined.tensor(), x, gate_up);
  ref::silu_multiply(pool_, out, joined.tensor());
}

size_t RefBackend::kv_block_bytes(const KvLayout& layout) const {
  return ref::kv_block_bytes(layout);
}

void RefBackend::store_kv(const KvLayer& layer,
                          Tensor k,
                          Tensor v,
                          std::span<const SequenceSpan> sequences) {
  ref::store_kv(pool_, layer, k, v, sequences);
}

void RefBackend::attention(Tensor out,
                           Tensor q,
                           const KvLayer& layer,
                           std::span<const SequenceSpan> sequences,
                           const AttentionParams& params) {
  ref::attention(pool_, out, q, layer, sequences, params);
}

}  // namespace quern::ref
