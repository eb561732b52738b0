#include "model/block.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace quern {
namespace {

constexpr int kMaxGroupSize = 32768;  // sums of 255 * 127 * 32768 stay exact in int32

Result<Unit> check_groups(const GroupedWeight& weight, const LinearSpec& spec) {
  const int size = weight.group_size;
  if ((size != 16 && size % 32 != 0) || size > kMaxGroupSize) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}.weight has groups of {} columns; supported are 16 and multiples "
                             "of 32 up to {}",
                             spec.name, size, kMaxGroupSize)};
  }
  return Unit{};
}

Result<std::vector<float>> load_vector(const Checkpoint& checkpoint,
                                       const std::string& name,
                                       int64_t width) {
  std::vector<float> values = QUERN_TRY(checkpoint.vector(name));
  if (static_cast<int64_t>(values.size()) == width) return values;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: {} has {} numbers; the configuration asks for {}",
                           checkpoint.path().string(), name, values.size(), width)};
}

// The biases of joined layers in a row, zeros where one has none; empty when none has.
Result<std::vector<float>> load_biases(const Checkpoint& checkpoint,
                                       std::span<const LinearSpec* const> linears) {
  std::vector<float> joined;
  if (std::none_of(linears.begin(), linears.end(), [](auto* l) { return l->has_bias; })) {
    return joined;
  }
  for (const LinearSpec* linear : linears) {
    std::vector<float> bias(static_cast<size_t>(linear->out));
    if (linear->has_bias) {
      bias = QUERN_TRY(load_vector(checkpoint, linear->name + ".bias", linear->out));
    }
    joined.insert(joined.end(), bias.begin(), bias.end());
  }
  return joined;
}

int64_t joined_width(const MixerSpec& mixer) {
  int64_t width = 0;
  for (const LinearSpec* linear : input_linears(mixer)) width += linear->out;
  return width;
}

int64_t attention_width(const MixerSpec& mixer) {
  return std::holds_alternative<AttentionSpec>(mixer) ? joined_width(mixer) : 0;
}

int64_t inner_width(const MixerSpec& mixer) { return output_linear(mixer).in; }

Tensor contiguous(const FloatMatrix& matrix, int64_t rows, int64_t columns) {
  QUERN_CHECK(rows * columns <= matrix.rows() * matrix.columns());
  return Tensor(matrix.data(), DType::kF32, {rows, columns});
}

// The heads that begin at column `first` of the joined output, in place.
Tensor heads_of(Tensor joined, int64_t first, int64_t heads, int64_t head_dim) {
  Tensor view(joined.f32() + first, DType::kF32, {joined.rows(), heads, head_dim});
  view.row_stride = joined.row_stride;
  return view;
}

// Everything that a mixer's run needs beside its own spec.
struct MixerRun {
  const BlockWeights& weights;
  Backend& backend;
  const KvLayer& kv;
  const Step& step;
  Tensor h;
  BlockScratch& scratch;
  LinearObserver* observer;

  void observe(const LinearSpec& first, Tensor input) const {
    if (observer != nullptr) (*observer)(first, input);
  }

  // The joined output of q, k and v.
  Tensor project(const AttentionSpec& mixer) const {
    observe(mixer.q, h);
    const Tensor joined = contiguous(scratch.joined, h.rows(), weights.input->rows());
    backend.linear(joined, h, *weights.input);
    return joined;
  }

  Tensor answer(const LinearSpec& linear, Tensor inner) const {
    observe(linear, inner);
    const Tensor y = contiguous(scratch.hidden, h.rows(), linear.out);
    backend.linear(y, inner, *weights.output);
    return y;
  }
};

Tensor run(const AttentionSpec& spec, const MixerRun& run) {
  const Tensor joined = run.project(spec);
  const int64_t rows = joined.rows();
  const Tensor q = heads_of(joined, 0, spec.heads, spec.head_dim);
  const Tensor k = heads_of(joined, spec.q.out, spec.kv_heads, spec.head_dim);
  const Tensor v = heads_of(joined, spec.q.out + spec.k.out, spec.kv_heads, spec.head_dim);
  if (spec.q_norm) run.backend.rms_norm(q, q, run.weights.q_norm, spec.q_norm->eps);
  if (spec.k_norm) run.backend.rms_norm(k, k, run.weights.k_norm, spec.k_norm->eps);
  run.backend.rope(q, run.step.positions, spec.rope);
  run.backend.rope(k, run.step.positions, spec.rope);
  run.backend.store_kv(run.kv, k, v, run.step.sequences);

  const AttentionParams params{spec.heads, 1.0f / std::sqrt(static_cast<float>(spec.head_dim)),
                               spec.window};
  const Tensor inner = contiguous(run.scratch.inner, rows, spec.o.in);
  const Tensor mixed = heads_of(inner, 0, spec.heads, spec.head_dim);
  run.backend.attention(mixed, q, run.kv, run.step.sequences, params);
  return run.answer(spec.o, inner);
}

Tensor run(const MlpSpec& spec, const MixerRun& run) {
  run.observe(spec.gate, run.h);
  const Tensor inner = contiguous(run.scratch.inner, run.h.rows(), spec.down.in);
  run.backend.gated_linear(inner, run.h, *run.weights.input);
  return run.answer(spec.down, inner);
}

int64_t widest(const ModelSpec& spec, int64_t (*width)(const MixerSpec&)) {
  int64_t most = 0;
  for (const BlockSpec& block : spec.blocks) most = std::max(most, width(block.mixer));
  return most;
}

}  // namespace

Result<Unit> check_weight(const Weight& weight, const LinearSpec& spec) {
  if (weight_rows(weight) != spec.out || weight_columns(weight) != spec.in) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}.weight has {} rows and {} columns; the configuration asks for {} "
                    "and {}",
                    spec.name, weight_rows(weight), weight_columns(weight), spec.out, spec.in)};
  }
  const auto* grouped = std::get_if<GroupedWeight>(&weight);
  return grouped == nullptr ? Unit{} : check_groups(*grouped, spec);
}

Result<std::unique_ptr<PackedWeight>> load_joined(std::span<const LinearSpec* const> linears,
                                                  const Checkpoint& checkpoint,
                                                  WeightSource source,
                                                  Backend& backend,
                                                  Precision precision) {
  std::vector<Weight> weights;
  for (const LinearSpec* linear : linears) {
    weights.push_back(QUERN_TRY(source(*linear)));
    QUERN_TRY(check_weight(weights.back(), *linear));
  }
  const std::vector<float> bias = QUERN_TRY(load_biases(checkpoint, linears));
  std::vector<const Weight*> parts;
  parts.reserve(weights.size());
  for (const Weight& weight : weights) parts.push_back(&weight);
  return backend.pack(parts, bias, precision);
}

Result<std::vector<float>> load_norm(const NormSpec& norm, const Checkpoint& checkpoint) {
  return load_vector(checkpoint, norm.name + ".weight", norm.width);
}

Result<BlockWeights> load_block(const BlockSpec& spec,
                                const Checkpoint& checkpoint,
                                WeightSource source,
                                Backend& backend,
                                Precision precision) {
  BlockWeights weights;
  weights.norm = QUERN_TRY(load_norm(spec.norm, checkpoint));
  if (const auto* attention = std::get_if<AttentionSpec>(&spec.mixer)) {
    if (attention->q_norm) weights.q_norm = QUERN_TRY(load_norm(*attention->q_norm, checkpoint));
    if (attention->k_norm) weights.k_norm = QUERN_TRY(load_norm(*attention->k_norm, checkpoint));
  }
  const std::vector<const LinearSpec*> inputs = input_linears(spec.mixer);
  weights.input = QUERN_TRY(load_joined(inputs, checkpoint, source, backend, precision));
  const LinearSpec* output = &output_linear(spec.mixer);
  weights.output = QUERN_TRY(load_joined({&output, 1}, checkpoint, source, backend, precision));
  return weights;
}

BlockScratch::BlockScratch(const ModelSpec& spec, int64_t rows)
    : joined(rows, widest(spec, attention_width)),
      inner(rows, widest(spec, inner_width)),
      hidden(rows, spec.hidden),
      normed(rows, spec.hidden) {}

uint64_t scratch_row_bytes(const ModelSpec& spec) {
  const int64_t scratch = widest(spec, joined_width) + widest(spec, inner_width) + 2 * spec.hidden;
  return static_cast<uint64_t>(scratch) * sizeof(float);
}

uint64_t step_row_bytes(const ModelSpec& spec) {
  return scratch_row_bytes(spec) + static_cast<uint64_t>(spec.hidden) * sizeof(float);
}

Tensor run_mixer(const BlockSpec& spec,
                 const BlockWeights& weights,
                 Backend& backend,
                 const KvLayer& kv,
                 const Step& step,
                 Tensor h,
                 BlockScratch& scratch,
                 LinearObserver* observer) {
  const MixerRun mixer_run{weights, backend, kv, step, h, scratch, observer};
  return std::visit([&](const auto& mixer) { return run(mixer, mixer_run); }, spec.mixer);
}

}  // namespace quern
