#include "quant/block_quantizer.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "quant/damping.h"
#include "quant/feedback.h"
#include "quant/fold.h"
#include "quant/objective.h"
#include "quant/rounding.h"
#include "quant/scale_search.h"
#include "quant/token_weights.h"

namespace quern {
namespace {

// Calibration tokens go through the model with weights and inputs of linear layers rounded to BF16.
constexpr Precision kCalibration = Precision::kBF16;

// Shares of a block's time at the end of its stages, about.
constexpr double kInputsRead = 0.3;
constexpr double kInputsRounded = 0.5;
constexpr double kInnerRead = 0.8;

int64_t longest_window(const Streams& streams) {
  int64_t longest = 1;
  for (const Window& window : streams.windows) longest = std::max(longest, window.rows);
  return longest;
}

std::vector<float> to_floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

BlockMatrices copy_of(const BlockMatrices& block) {
  BlockMatrices copy;
  copy.norm = block.norm;
  for (const FloatMatrix& matrix : block.linears) copy.linears.push_back(copy_of(matrix.tensor()));
  copy.biases = block.biases;
  copy.q_norm = block.q_norm;
  copy.k_norm = block.k_norm;
  return copy;
}

// out = a - b, all [rows, columns].
void subtract_into(ThreadPool& pool, Tensor out, Tensor a, Tensor b) {
  pool.for_each_chunk(out.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = 0; c < out.shape[1]; ++c)
        out.f32_row(i)[c] = a.f32_row(i)[c] - b.f32_row(i)[c];
    }
  });
}

// A stand-in of few bits for an output layer whose answer nobody reads.
std::unique_ptr<PackedWeight> quick_output(const BlockMatrices& block, int group_size, Backend& b) {
  const Weight weight = round_to_nearest(b.pool(), block.linears.back().tensor(), group_size);
  const Weight* parts[] = {&weight};
  return b.pack(parts, block.biases.back(), Precision::kFast);
}

}  // namespace

// A block on its way.
struct BlockQuantizer::Work {
  const BlockSpec& spec;
  BlockMatrices block;      // full precision; scales are folded in as work goes on
  BlockMatrices rounded{};  // what the codes stand for
  BlockProgress progress;
  QuantizedBlock result{};

  Statistics input{}, held_input{}, held_difference{};  // of the joined layers' inputs
  Statistics inner{}, held_inner{};                     // of the output layer's inputs
  std::vector<float> input_scales{}, inner_scales{};    // empty: nothing folded
  std::vector<std::vector<float>> output_weights{};     // of each window's tokens
  FloatMatrix check_stream{}, check_answer{};  // of the first window, before anything changed
  FloatMatrix normed{}, difference{};          // one window each
  FloatMatrix stored_inner{};                  // [tokens, inner width]

  const Statistics* held(const Statistics& statistics) const {
    return statistics.tokens > 0 ? &statistics : nullptr;
  }
};

BlockQuantizer::BlockQuantizer(const Setup& setup)
    : setup_(setup),
      pool_(setup.backend.pool()),
      runner_(setup.spec, setup.backend, longest_window(setup.streams)) {}

// `joined`: [rows, width], what q, k and v or gate and up read; `weights`: one a row or none.
void BlockQuantizer::add_inputs(Work& work,
                                const Window& window,
                                Tensor joined,
                                const std::vector<float>& weights) {
  Statistics& statistics = window.held_out ? work.held_input : work.input;
  if (!setup_.method.compensates) return statistics.add(pool_, joined, nullptr, weights);
  const Tensor normed = work.normed.tensor().slice_rows(0, window.rows);
  const Tensor difference = work.difference.tensor().slice_rows(0, window.rows);
  setup_.backend.rms_norm(normed, setup_.streams.rounded_rows(window), work.block.norm,
                          work.spec.norm.eps);
  subtract_into(pool_, difference, joined, normed);
  statistics.add(pool_, normed, &difference, weights);
  if (window.held_out) work.held_difference.add(pool_, difference, nullptr, weights);
}

void BlockQuantizer::read_window(Work& work, size_t index, const BlockWeights& weights) {
  const Window& window = setup_.streams.windows[index];
  const Tensor full = setup_.streams.full_rows(window);
  Tensor joined;
  Tensor inner;
  auto observe = [&](const LinearSpec& first, Tensor x) {
    (first.name == output_linear(work.spec.mixer).name ? inner : joined) = x;
  };
  LinearObserver observer(observe);
  const Tensor answer = runner_.run(work.spec, weights, full, &observer);
  setup_.backend.add(full, answer);
  TokenWeights counted = token_weights(answer, full, setup_.recipe.token_weighting);
  if (!std::holds_alternative<MlpSpec>(work.spec.mixer)) counted.input.clear();
  add_inputs(work, window, joined, counted.input);
  const auto every =
      static_cast<size_t>(setup_.method.compensates ? setup_.recipe.scale_search_every : 1);
  if (window.held_out || index % every == 0)
    (window.held_out ? work.held_inner : work.inner).add(pool_, inner, nullptr, counted.output);
  work.output_weights[index] = std::move(counted.output);
}

// The block's answer to its check stream, in float32.
FloatMatrix BlockQuantizer::check_answer(const Work& work) {
  const BlockWeights weights = pack_block(work.block, setup_.backend, Precision::kFloat32);
  const FloatMatrix stream = copy_of(work.check_stream.tensor());
  return copy_of(runner_.run(work.spec, weights, stream.tensor(), nullptr));
}

Result<Unit> BlockQuantizer::read_inputs(Work& work) {
  const int64_t width = work.spec.norm.width;
  const int64_t inner_width = output_linear(work.spec.mixer).in;
  const int64_t longest = longest_window(setup_.streams);
  const int64_t targets = setup_.method.compensates ? width : 0;
  work.input = Statistics(width, targets);
  work.held_input = Statistics(width, targets);
  work.held_difference = Statistics(width, 0);
  work.inner = Statistics(inner_width, 0);
  work.held_inner = Statistics(inner_width, 0);
  work.normed = FloatMatrix(longest, width);
  work.difference = FloatMatrix(longest, width);
  if (setup_.method.scales) {
    work.check_stream = copy_of(setup_.streams.full_rows(setup_.streams.windows[0]));
    work.check_answer = check_answer(work);
  }
  const BlockWeights weights = pack_block(work.block, setup_.backend, kCalibration);
  const size_t count = setup_.streams.windows.size();
  work.output_weights.resize(count);
  for (size_t i = 0; i < count; ++i) {
    read_window(work, i, weights);
    const double share = kInputsRead * static_cast<double>(i + 1) / static_cast<double>(count);
    if (!work.progress(share)) return Error{ErrorCode::kExhausted, "interrupted"};
  }
  for (Statistics* s :
       {&work.input, &work.held_input, &work.held_difference, &work.inner, &work.held_inner})
    s->finish(pool_);
  return Unit{};
}

void BlockQuantizer::fold_inner(Work& work) {
  ScaleProblem problem{.consumers = {work.block.linears.back().tensor()},
                       .gram = work.inner.gram.tensor(),
                       .magnitude = to_floats(work.inner.magnitude),
                       .group_size = setup_.group_size};
  if (const auto* attention = std::get_if<AttentionSpec>(&work.spec.mixer)) {
    problem.class_of =
        grouped_query_classes(attention->heads, attention->kv_heads, attention->head_dim);
    problem.classes = int64_t{attention->kv_heads} * attention->head_dim;
  }
  const ScaleChoice choice = search_scales(pool_, problem);
  if (choice.cost >= choice.identity_cost) return;
  if (work.held_inner.tokens > 0) {
    problem.gram = work.held_inner.gram.tensor();
    const std::vector<float> ones(choice.scales.size(), 1.0f);
    if (scaled_rounding_cost(pool_, problem, choice.scales) >=
        scaled_rounding_cost(pool_, problem, ones))
      return;
  }
  fold_output_scales(pool_, work.spec, work.block, choice.scales);
  work.inner_scales = choice.scales;
}

void BlockQuantizer::fold_input(Work& work) {
  ScaleProblem problem{.gram = work.input.gram.tensor(),
                       .magnitude = to_floats(work.input.magnitude),
                       .group_size = setup_.group_size};
  for (size_t i = 0; i < output_index(work.block); ++i)
    problem.consumers.push_back(work.block.linears[i].tensor());
  const ScaleChoice choice = search_scales(pool_, problem);
  if (choice.cost >= choice.identity_cost) return;
  if (work.held_input.tokens > 0) {
    problem.gram = work.held_input.gram.tensor();
    const std::vector<float> ones(choice.scales.size(), 1.0f);
    if (scaled_rounding_cost(pool_, problem, choice.scales) >=
        scaled_rounding_cost(pool_, problem, ones))
      return;
  }
  work.input_scales = fold_input_scales(pool_, work.block, choice.scales);
}

double BlockQuantizer::fold_error(const Work& work) {
  FloatMatrix off = check_answer(work);
  subtract(pool_, off.tensor(), work.check_answer.tensor());
  const double signal = sum_of_squares(work.check_answer.tensor());
  return std::sqrt(sum_of_squares(off.tensor()) / std::max(signal, 1e-30));
}

void BlockQuantizer::fold(Work& work) {
  work.result.report.fold = "none";
  if (!setup_.method.scales) return;
  BlockMatrices before = copy_of(work.block);
  fold_inner(work);
  fold_input(work);
  if (work.inner_scales.empty() && work.input_scales.empty()) return;
  const double error = fold_error(work);
  work.result.report.fold_error = error;
  if (!(error <= static_cast<double>(setup_.recipe.largest_fold_error))) {
    work.block = std::move(before);
    work.inner_scales.clear();
    work.input_scales.clear();
    work.result.report.fold = "reverted";
    return;
  }
  work.result.report.fold = "folded";
  if (!work.inner_scales.empty()) {
    work.inner.divide_inputs(pool_, work.inner_scales);
    work.held_inner.divide_inputs(pool_, work.inner_scales);
    const auto bias = output_index(work.block) - 1;
    if (!work.block.biases[bias].empty()) work.result.biases[bias] = work.block.biases[bias];
  }
  if (work.input_scales.empty()) return;
  work.result.norm = work.block.norm;
  for (Statistics* s : {&work.input, &work.held_input, &work.held_difference}) {
    s->divide_inputs(pool_, work.input_scales);
    for (int64_t i = 0; i < s->cross.rows(); ++i) {  // differences of inputs are inputs
      for (int64_t k = 0; k < s->cross.columns(); ++k)
        s->cross.row(i)[k] /= work.input_scales[static_cast<size_t>(i)];
    }
  }
}

Result<OrderedGram> BlockQuantizer::prepare_feedback(Work& work,
                                                     std::span<const Tensor> consumers,
                                                     const LayerInputs& inputs) {
  const size_t first = work.result.linears.size();
  float& last = last_dampings_[work.spec.mixer.index()][first == 0 ? 0 : 1];
  const float damping =
      QUERN_TRY(choose_damping(pool_, consumers, inputs, {setup_.recipe.damping, last}));
  last = damping;
  for (size_t i = 0; i < consumers.size(); ++i)
    work.result.report.linears[first + i].damping = static_cast<double>(damping);
  return order_gram(pool_, inputs.train->gram.tensor(), setup_.group_size, damping);
}

Result<Unit> BlockQuantizer::round_inputs(Work& work) {
  const LayerRounder rounder{pool_, setup_.method, setup_.recipe, setup_.group_size};
  LayerInputs inputs;
  OrderedGram ordered;
  if (setup_.method.calibrates) {
    inputs = {.train = &work.input,
              .held_out = work.held(work.held_input),
              .held_out_difference = &work.held_difference,
              .scales = work.input_scales.empty() ? nullptr : &work.input_scales};
    if (setup_.method.compensates) {
      inputs.kind = CrossKind::kInput;
      std::vector<Tensor> consumers;
      for (size_t i = 0; i < output_index(work.block); ++i)
        consumers.push_back(work.block.linears[i].tensor());
      ordered = QUERN_TRY(prepare_feedback(work, consumers, inputs));
      inputs.ordered = &ordered;
    }
  }
  for (size_t i = 0; i < output_index(work.block); ++i) {
    work.result.linears.push_back(
        rounder.round(work.block.linears[i].tensor(), inputs, work.result.report.linears[i]));
    dequantize(pool_, work.result.linears[i], work.rounded.linears[i].tensor());
  }
  return Unit{};
}

Result<Unit> BlockQuantizer::read_rounded_inner(Work& work) {
  const Streams& streams = setup_.streams;
  const LinearSpec& output = output_linear(work.spec.mixer);
  work.inner = Statistics(output.in, output.out);
  work.held_inner = Statistics(output.in, output.out);
  if (setup_.inner == InnerActivations::kStored)
    work.stored_inner = FloatMatrix(streams.full.rows(), output.in);
  BlockWeights weights{.norm = work.rounded.norm,
                       .input = pack_input(work.rounded, setup_.backend, kCalibration),
                       .output = quick_output(work.block, setup_.group_size, setup_.backend),
                       .q_norm = work.rounded.q_norm,
                       .k_norm = work.rounded.k_norm};
  const std::vector<float>& bias = work.block.biases.back();
  for (size_t i = 0; i < streams.windows.size(); ++i) {
    const Window& window = streams.windows[i];
    const Tensor full = streams.full_rows(window);
    const Tensor wanted = work.difference.tensor().slice_rows(0, window.rows);
    subtract_into(pool_, wanted, full, streams.rounded_rows(window));
    for (int64_t row = 0; !bias.empty() && row < window.rows; ++row) {
      for (size_t c = 0; c < bias.size(); ++c) wanted.f32_row(row)[c] -= bias[c];
    }
    auto observe = [&](const LinearSpec& first, Tensor x) {
      if (first.name != output.name) return;
      (window.held_out ? work.held_inner : work.inner)
          .add(pool_, x, &wanted, work.output_weights[i]);
      if (setup_.inner == InnerActivations::kRecomputed) return;
      for (int64_t row = 0; row < window.rows; ++row)
        std::copy_n(x.f32_row(row), output.in, work.stored_inner.row(window.begin + row));
    };
    LinearObserver observer(observe);
    runner_.run(work.spec, weights, streams.rounded_rows(window), &observer);
    const double share = static_cast<double>(i + 1) / static_cast<double>(streams.windows.size());
    if (!work.progress(kInputsRounded + (kInnerRead - kInputsRounded) * share))
      return Error{ErrorCode::kExhausted, "interrupted"};
  }
  work.inner.finish(pool_);
  work.held_inner.finish(pool_);
  return Unit{};
}

Result<Unit> BlockQuantizer::round_output(Work& work) {
  const LayerRounder rounder{pool_, setup_.method, setup_.recipe, setup_.group_size};
  LayerInputs inputs;
  OrderedGram ordered;
  if (setup_.method.calibrates) {
    inputs = {.train = &work.inner,
              .held_out = work.held(work.held_inner),
              .scales = work.inner_scales.empty() ? nullptr : &work.inner_scales};
    if (setup_.method.compensates) {
      inputs.kind = CrossKind::kOutput;
      const Tensor consumer = work.block.linears.back().tensor();
      ordered = QUERN_TRY(prepare_feedback(work, {&consumer, 1}, inputs));
      inputs.ordered = &ordered;
    }
  }
  work.result.linears.push_back(
      rounder.round(work.block.linears.back().tensor(), inputs, work.result.report.linears.back()));
  dequantize(pool_, work.result.linears.back(), work.rounded.linears.back().tensor());
  return Unit{};
}

void BlockQuantizer::carry_rounded(Work& work) {
  const bool stored = setup_.inner == InnerActivations::kStored;
  const BlockWeights weights = pack_block(work.rounded, setup_.backend, kCalibration);
  for (const Window& window : setup_.streams.windows) {
    const Tensor stream = setup_.streams.rounded_rows(window);
    Tensor answer = work.difference.tensor().slice_rows(0, window.rows);
    if (stored) {
      const Tensor inner = work.stored_inner.tensor().slice_rows(window.begin, window.rows);
      setup_.backend.linear(answer, inner, *weights.output);
    } else {
      answer = runner_.run(work.spec, weights, stream, nullptr);
    }
    setup_.backend.add(stream, answer);
  }
}

// Over all windows: |rounded - full|^2 / |full|^2.
double BlockQuantizer::output_error() const {
  double off = 0;
  double signal = 0;
  for (int64_t row = 0; row < setup_.streams.full.rows(); ++row) {
    const float* full = setup_.streams.full.row(row);
    const float* rounded = setup_.streams.rounded.row(row);
    for (int64_t c = 0; c < setup_.streams.full.columns(); ++c) {
      const auto difference = static_cast<double>(rounded[c] - full[c]);
      off += difference * difference;
      signal += static_cast<double>(full[c]) * static_cast<double>(full[c]);
    }
  }
  return off / std::max(signal, 1e-30);
}

Result<QuantizedBlock> BlockQuantizer::quantize(const BlockSpec& spec,
                                                BlockMatrices block,
                                                BlockProgress progress) {
  Work work{.spec = spec, .block = std::move(block), .progress = progress};
  work.result.biases.resize(work.block.linears.size());
  work.result.report.name = spec.norm.name;
  for (const LinearSpec* linear : linears(spec)) {
    work.result.report.linears.push_back(
        {.name = linear->name, .rows = linear->out, .columns = linear->in});
  }
  if (setup_.method.calibrates) {
    QUERN_TRY(read_inputs(work));
    fold(work);
  }
  work.rounded = copy_of(work.block);
  QUERN_TRY(round_inputs(work));
  if (!progress(kInputsRounded)) return Error{ErrorCode::kExhausted, "interrupted"};
  if (setup_.method.compensates) QUERN_TRY(read_rounded_inner(work));
  QUERN_TRY(round_output(work));
  if (setup_.method.compensates) {
    carry_rounded(work);
    work.result.report.output_error = output_error();
  }
  if (!progress(1.0)) return Error{ErrorCode::kExhausted, "interrupted"};
  return std::move(work.result);
}

Result<Unit> BlockQuantizer::replay(const BlockSpec& spec,
                                    const BlockMatrices& block,
                                    const QuantizedBlock& quantized,
                                    BlockProgress progress) {
  if (!setup_.method.calibrates) return Unit{};
  const std::vector<LinearReport>& reports = quantized.report.linears;
  last_dampings_[spec.mixer.index()] = {static_cast<float>(reports.front().damping),
                                        static_cast<float>(reports.back().damping)};
  BlockMatrices rounded = copy_of(block);
  for (size_t i = 0; i < rounded.linears.size(); ++i) {
    dequantize(pool_, quantized.linears[i], rounded.linears[i].tensor());
    if (!quantized.biases[i].empty()) rounded.biases[i] = quantized.biases[i];
  }
  if (!quantized.norm.empty()) rounded.norm = quantized.norm;
  const BlockWeights full_weights = pack_block(block, setup_.backend, kCalibration);
  const BlockWeights rounded_weights = pack_block(rounded, setup_.backend, kCalibration);
  const size_t count = setup_.streams.windows.size();
  for (size_t i = 0; i < count; ++i) {
    const Window& window = setup_.streams.windows[i];
    const Tensor full = setup_.streams.full_rows(window);
    setup_.backend.add(full, runner_.run(spec, full_weights, full, nullptr));
    if (setup_.method.compensates) {
      const Tensor stream = setup_.streams.rounded_rows(window);
      setup_.backend.add(stream, runner_.run(spec, rounded_weights, stream, nullptr));
    }
    if (!progress(static_cast<double>(i + 1) / static_cast<double>(count)))
      return Error{ErrorCode::kExhausted, "interrupted"};
  }
  return Unit{};
}

}  // namespace quern
