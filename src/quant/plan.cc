#include "quant/plan.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"
#include "quant/rounding.h"

namespace quern {
namespace {

constexpr int kGroupSizes[] = {32, 64, 128};
constexpr size_t kLeastWindows = 2;
constexpr int64_t kPackedOutputs = 8;                 // AWQ packs this many outputs in a word
constexpr uint64_t kFixedBytes = uint64_t{64} << 20;  // code, pool, tables, file buffers

Error wrong(const std::string& message) { return Error{ErrorCode::kInvalidArgument, message}; }

Result<Unit> check_options(const QuantizeOptions& options) {
  if (find_quantizer(options.method) == nullptr) {
    std::string known;
    for (const Quantizer& q : quantizers())
      known += (known.empty() ? "" : ", ") + std::string(q.name);
    return wrong(fmt::format("unknown method '{}'; known are {}", options.method, known));
  }
  if (options.bits != kBits)
    return wrong(fmt::format("{} bits are not supported; 4 are", options.bits));
  if (std::find(std::begin(kGroupSizes), std::end(kGroupSizes), options.group_size) ==
      std::end(kGroupSizes))
    return wrong(fmt::format("group size {} is not one of 32, 64, 128", options.group_size));
  if (options.held_out_every == 1 || options.held_out_every < 0)
    return wrong("held_out_every must be 0 (nothing held out) or at least 2");
  if (options.shard_bytes == 0) return wrong("shard_bytes must not be 0");
  if (options.output.empty()) return wrong("no output directory is named");
  return Unit{};
}

Result<Unit> check_linear(const LinearSpec& linear, const QuantizeOptions& options) {
  if (linear.in % options.group_size != 0) {
    std::string fitting;
    for (const int size : kGroupSizes) {
      if (linear.in % size == 0) fitting += (fitting.empty() ? "" : ", ") + std::to_string(size);
    }
    return wrong(
        fmt::format("{} has {} inputs, which groups of {} do not divide; {}", linear.name,
                    linear.in, options.group_size,
                    fitting.empty() ? "neither do 32, 64 and 128" : "these sizes do: " + fitting));
  }
  if (options.format == QuantFormat::kAwq && linear.out % kPackedOutputs != 0) {
    return wrong(fmt::format(
        "{} has {} outputs; the AWQ format needs a multiple of {}, compressed-tensors does not",
        linear.name, linear.out, kPackedOutputs));
  }
  return Unit{};
}

std::vector<OuterMatrix> outer_matrices(const ModelSpec& spec, OuterMatrices which) {
  std::vector<OuterMatrix> outer;
  if (which == OuterMatrices::kKeep) return outer;
  LinearSpec head = spec.head;
  if (spec.tied_head() && which == OuterMatrices::kHead) head.name = "lm_head";
  outer.push_back({.linear = head, .source = spec.head.name, .is_head = true});
  if (which == OuterMatrices::kHeadAndEmbedding && !spec.tied_head()) {
    const LinearSpec embedding{.name = spec.embedding, .in = spec.hidden, .out = spec.vocabulary};
    outer.push_back({.linear = embedding, .source = spec.embedding, .is_head = false});
  }
  return outer;
}

Result<Unit> check_windows(const CalibrationWindows& calibration, const ModelSpec& spec) {
  if (calibration.size() < kLeastWindows) {
    return wrong(fmt::format("calibration needs at least {} windows of tokens; {} were given",
                             kLeastWindows, calibration.size()));
  }
  for (size_t i = 0; i < calibration.size(); ++i) {
    if (calibration[i].empty()) return wrong(fmt::format("calibration window {} is empty", i));
    if (static_cast<int64_t>(calibration[i].size()) > spec.max_context) {
      return wrong(fmt::format("calibration window {} has {} tokens; the model's context is {}", i,
                               calibration[i].size(), spec.max_context));
    }
    for (const int32_t token : calibration[i]) {
      if (token >= 0 && token < spec.vocabulary) continue;
      return wrong(fmt::format("calibration window {} holds token {}, outside the vocabulary of {}",
                               i, token, spec.vocabulary));
    }
  }
  return Unit{};
}

// Bytes of float32 numbers.
constexpr uint64_t floats(int64_t rows, int64_t columns) {
  return static_cast<uint64_t>(rows) * static_cast<uint64_t>(columns) * sizeof(float);
}

// The largest that statistics and factorisations, and that copies of weights, take in any block.
struct BlockBytes {
  uint64_t statistics = 0;
  uint64_t weights = 0;
  uint64_t inner_row = 0;  // one token's input of the output layer
};

BlockBytes largest_block(const ModelSpec& spec, const Quantizer& method) {
  BlockBytes largest;
  for (const BlockSpec& block : spec.blocks) {
    const int64_t width = block.norm.width;
    const LinearSpec& output = output_linear(block.mixer);
    uint64_t matrices = 0;
    uint64_t widest = 0;
    for (const LinearSpec* linear : linears(block)) {
      matrices += floats(linear->out, linear->in);
      widest = std::max(widest, floats(linear->out, linear->in));
    }
    // Gram matrices of inputs and outputs, trained and held out; differences; crosses.
    uint64_t statistics =
        method.calibrates ? 2 * floats(width, width) + 2 * floats(output.in, output.in) : 0;
    if (method.compensates) {
      statistics += 3 * floats(width, width) + 2 * floats(width, output.in);
      statistics += 2 * floats(output.in, output.in);  // in the order of rounding, and the factor
    }
    largest.statistics = std::max(largest.statistics, statistics);
    // Full, folded and rounded copies, packed twice; and what rounding one layer needs.
    const uint64_t copies = method.calibrates ? 5 : 2;
    largest.weights = std::max(largest.weights, copies * matrices + 6 * widest);
    largest.inner_row = std::max(largest.inner_row, floats(1, output.in));
  }
  return largest;
}

uint64_t stream_bytes(const ModelSpec& spec, const Quantizer& method, int64_t tokens) {
  return floats(tokens, spec.hidden) * (method.compensates ? 2u : 1u);
}

uint64_t embedding_bytes(const ModelSpec& spec) {  // codes, should the table be grouped
  return static_cast<uint64_t>(spec.vocabulary) * static_cast<uint64_t>(spec.hidden) * 5 / 4;
}

uint64_t scratch_bytes(const ModelSpec& spec, int64_t longest) {
  int64_t widest = 0;
  for (const BlockSpec& block : spec.blocks) {
    int64_t joined = 0;
    for (const LinearSpec* linear : linears(block)) joined += linear->out + linear->in;
    widest = std::max(widest, joined);
  }
  return floats(longest, widest + 4 * spec.hidden);
}

// Takes windows in even spacing until they fit the budget.
Result<Unit> fit_windows(DetailedPlan& plan,
                         const ModelSpec& spec,
                         const CalibrationWindows& calibration,
                         const QuantizeOptions& options) {
  const Quantizer& method = *find_quantizer(options.method);
  QuantizePlan& summary = plan.summary;
  const BlockBytes block = largest_block(spec, method);
  int64_t longest = 1;
  int64_t tokens = 0;
  for (const auto& window : calibration) {
    longest = std::max(longest, static_cast<int64_t>(window.size()));
    tokens += static_cast<int64_t>(window.size());
  }
  summary.statistics_bytes = block.statistics;
  const uint64_t fixed = kFixedBytes + block.statistics + block.weights + embedding_bytes(spec) +
                         (method.calibrates ? scratch_bytes(spec, longest) : 0);
  const uint64_t row = stream_bytes(spec, method, 1);
  const uint64_t inner = method.compensates ? block.inner_row : 0;
  const uint64_t budget = options.memory_budget_bytes;
  const auto given = static_cast<int64_t>(calibration.size());
  summary.windows_given = given;
  if (!method.calibrates) {
    summary.memory_bytes = fixed;
    if (fixed <= budget) return Unit{};
  }
  const uint64_t left = budget > fixed ? budget - fixed : 0;
  const auto all = static_cast<uint64_t>(tokens);
  plan.inner =
      all * (row + inner) <= left ? InnerActivations::kStored : InnerActivations::kRecomputed;
  const uint64_t per_token = plan.inner == InnerActivations::kStored ? row + inner : row;
  const auto window_rows = static_cast<uint64_t>(longest);
  const auto fitting = static_cast<int64_t>(left / (per_token * window_rows));
  summary.windows = all * per_token <= left ? given : std::min(given, fitting);
  if (!method.calibrates || summary.windows < static_cast<int64_t>(kLeastWindows)) {
    return wrong(fmt::format(
        "a memory budget of {} MiB is too small: this model needs {} MiB beside the calibration "
        "tokens and {} KiB for each of them",
        budget >> 20, (fixed >> 20) + 1, (row >> 10) + 1));
  }
  return Unit{};
}

void describe_windows(DetailedPlan& plan,
                      const ModelSpec& spec,
                      const CalibrationWindows& calibration,
                      const QuantizeOptions& options) {
  const Quantizer& method = *find_quantizer(options.method);
  QuantizePlan& summary = plan.summary;
  if (!method.calibrates) return;
  for (int64_t i = 0; i < summary.windows; ++i) {
    const int64_t at = i * summary.windows_given / summary.windows;
    summary.tokens += static_cast<int64_t>(calibration[static_cast<size_t>(at)].size());
  }
  if (options.held_out_every > 0)
    summary.held_out_windows = summary.windows / options.held_out_every;
  const BlockBytes block = largest_block(spec, method);
  const auto tokens = static_cast<uint64_t>(summary.tokens);
  summary.activation_bytes = stream_bytes(spec, method, summary.tokens);
  if (method.compensates && plan.inner == InnerActivations::kStored)
    summary.activation_bytes += tokens * block.inner_row;
  int64_t longest = 1;
  for (const auto& window : calibration)
    longest = std::max(longest, static_cast<int64_t>(window.size()));
  summary.memory_bytes = kFixedBytes + block.statistics + block.weights + embedding_bytes(spec) +
                         scratch_bytes(spec, longest) + summary.activation_bytes;
  if (summary.windows < summary.windows_given) {
    summary.notes.push_back(
        fmt::format("{} of {} calibration windows are used: the memory budget of {} MiB holds no "
                    "more",
                    summary.windows, summary.windows_given, options.memory_budget_bytes >> 20));
  }
  if (method.compensates && plan.inner == InnerActivations::kRecomputed) {
    summary.notes.push_back(
        "inner activations do not fit the memory budget and are computed twice, which takes "
        "longer");
  }
}

void describe_weights(DetailedPlan& plan,
                      const Checkpoint& checkpoint,
                      const ModelSpec& spec,
                      const QuantizeOptions& options) {
  // A code and its share of an f16 scale and a 4-bit zero.
  const double bytes_per_weight = (4.0 + 20.0 / options.group_size) / 8.0;
  double quantised = 0;
  uint64_t dense = 0;
  std::vector<std::string> replaced;
  const auto add = [&](const LinearSpec& linear) {
    quantised += static_cast<double>(linear.in * linear.out) * bytes_per_weight;
    ++plan.summary.linears;
  };
  for (const BlockSpec& block : spec.blocks) {
    for (const LinearSpec* linear : linears(block)) add(*linear);
  }
  bool embedding_stays = true;
  bool head_stays = !spec.tied_head();
  for (const OuterMatrix& outer : plan.outer) {
    add(outer.linear);
    if (outer.linear.name == spec.embedding) embedding_stays = false;
    if (outer.is_head) head_stays = false;
  }
  const uint64_t table = static_cast<uint64_t>(spec.vocabulary * spec.hidden) * 2;
  const bool widened = checkpoint.format() == "gguf";
  if (embedding_stays) dense += widened ? table : checkpoint.weight_bytes(spec.embedding);
  if (head_stays) dense += widened ? table : checkpoint.weight_bytes(spec.head.name);
  plan.summary.estimated_weight_bytes = static_cast<uint64_t>(quantised) + dense;
}

}  // namespace

Result<DetailedPlan> make_plan(const Checkpoint& checkpoint,
                               const ModelSpec& spec,
                               const CalibrationWindows& calibration,
                               const QuantizeOptions& options) {
  QUERN_TRY(check_options(options));
  if (checkpoint.format() == "awq" || checkpoint.format() == "compressed-tensors") {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{} is already quantised ({}); quantise the checkpoint that it was "
                             "made from",
                             checkpoint.path().string(), checkpoint.format())};
  }
  DetailedPlan plan;
  plan.outer = outer_matrices(spec, options.outer);
  for (const BlockSpec& block : spec.blocks) {
    for (const LinearSpec* linear : linears(block)) QUERN_TRY(check_linear(*linear, options));
  }
  for (const OuterMatrix& outer : plan.outer) QUERN_TRY(check_linear(outer.linear, options));
  plan.summary.blocks = static_cast<int64_t>(spec.blocks.size());
  if (find_quantizer(options.method)->calibrates) QUERN_TRY(check_windows(calibration, spec));
  QUERN_TRY(fit_windows(plan, spec, calibration, options));
  describe_windows(plan, spec, calibration, options);
  describe_weights(plan, checkpoint, spec, options);
  return plan;
}

}  // namespace quern
