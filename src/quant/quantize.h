// Turns a checkpoint into a smaller one: plans, calibrates block by block, rounds, writes,
// verifies.
//
// The procedure (AWQ, arXiv:2306.00978; GPTQ, arXiv:2210.17323) and what it was measured to be
// worth are in docs/quantisation.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/json.h"
#include "base/result.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"

namespace quern {

// What a method does on the way from full-precision weights to codes.
struct Quantizer {
  std::string_view name;
  std::string_view description;
  bool calibrates = false;   // reads calibration tokens
  bool scales = false;       // activation-aware channel scales, folded into the producers
  bool clips = false;        // searches the range of each group
  bool compensates = false;  // correction toward the full-precision output and error feedback
};

// rtn, awq, best.
std::span<const Quantizer> quantizers();

// nullptr when there is none of that name.
const Quantizer* find_quantizer(std::string_view name);

enum class QuantFormat : uint8_t { kAwq, kCompressedTensors };

std::string_view quant_format_name(QuantFormat format);  // "awq", "compressed-tensors"

// Errors: kInvalidArgument listing the names that are known.
Result<QuantFormat> parse_quant_format(std::string_view name);

// Which matrices outside the blocks become INT4 too.
enum class OuterMatrices : uint8_t {
  kKeep,              // head and embedding stay as they are; every loader reads the result
  kHead,              // the head alone; a tied head becomes a matrix of its own
  kHeadAndEmbedding,  // both; Quern reads such a checkpoint, other loaders may not
};

struct QuantizeOptions {
  std::string method = "best";
  int bits = 4;
  int group_size = 64;  // 32, 64 or 128
  QuantFormat format = QuantFormat::kAwq;
  OuterMatrices outer = OuterMatrices::kKeep;
  uint64_t memory_budget_bytes = uint64_t{8} << 30;
  uint64_t shard_bytes = uint64_t{4} << 30;  // a safetensors file is closed before it grows larger
  // One window in this many is held out: it never moves a weight, it decides whether a group keeps
  // its choice or goes back to plain rounding.
  int held_out_every = 8;
  // Where finished blocks are kept until the end; empty: OUTPUT + ".work". Work left there by a
  // killed run with the same inputs and options is taken up, other work is discarded.
  std::filesystem::path work_directory{};
  std::filesystem::path output;  // the directory to make; must not exist, or be empty
};

// Windows of token ids, each one sequence from position 0. Equal lengths are not required. May be
// empty for methods that do not calibrate.
using CalibrationWindows = std::vector<std::vector<int32_t>>;

// Declared before the work begins.
struct QuantizePlan {
  int64_t blocks = 0;
  int64_t linears = 0;                  // matrices that become INT4
  int64_t windows = 0;                  // calibration windows used, held-out ones included
  int64_t windows_given = 0;            // more than `windows` when the budget cannot hold them
  int64_t held_out_windows = 0;         // of `windows`
  int64_t tokens = 0;                   // of the windows used
  uint64_t memory_bytes = 0;            // planned peak of what this process allocates
  uint64_t activation_bytes = 0;        // of it, the two residual streams and the inner activations
  uint64_t statistics_bytes = 0;        // of it, Gram matrices and factorisations
  uint64_t estimated_weight_bytes = 0;  // of the result, scales included
  std::vector<std::string> notes;       // one sentence each, e.g. that fewer windows were taken
};

// What happened to one matrix. Losses are mean squared output errors per token,
// tr(dW H dW^T) / rows, on the held-out windows; 0 when the method does not calibrate.
struct LinearReport {
  std::string name;
  int64_t rows = 0;
  int64_t columns = 0;
  double rtn_loss = 0;
  double loss = 0;
  double signal = 0;   // tr(W H W^T) / rows: what the losses are to be compared with
  double damping = 0;  // of the Gram matrix, as a share of its mean diagonal; 0: not needed
  int64_t groups = 0;
  int64_t reverted_groups = 0;  // went back to plain rounding by the held-out guard
};

struct BlockReport {
  std::string name;  // of the block's norm
  double seconds = 0;
  double fold_error = 0;    // largest relative change of the block's output by folding alone
  std::string fold;         // "folded", "reverted" or "none"
  double output_error = 0;  // |quantised - full|^2 / |full|^2 of the residual stream behind it
  bool resumed = false;     // taken up from the work directory
  std::vector<LinearReport> linears;
};

struct QuantizeReport {
  QuantizePlan plan;
  std::string method;
  int bits = 0;
  int group_size = 0;
  QuantFormat format = QuantFormat::kAwq;
  std::filesystem::path output;
  uint64_t source_bytes = 0;  // tensors of the source
  uint64_t weight_bytes = 0;  // tensors of the result, scales included
  uint64_t file_bytes = 0;    // safetensors files of the result, headers included
  double seconds = 0;
  uint64_t peak_rss_bytes = 0;  // of the process, as the kernel counts it
  int64_t verified_tensors = 0;
  std::vector<BlockReport> layers;
  std::vector<std::string> notes;

  Json to_json() const;  // keys in snake_case, units last
};

// Called between steps on the calling thread; `done` and `total` count units of work whose share of
// the time is about equal.
using QuantizeProgress = FunctionRef<void(int64_t done, int64_t total, std::string_view note)>;

// Called once with the directory in which the result is complete but for what the caller adds to it
// (the tokenizer's files), before it appears under its final name.
using FinishOutput = FunctionRef<Result<Unit>(const std::filesystem::path& directory)>;

// What quantize() would do. Errors: as quantize(), those that need no weights.
Result<QuantizePlan> plan_quantize(const Checkpoint& checkpoint,
                                   const CalibrationWindows& calibration,
                                   const QuantizeOptions& options);

struct QuantizeJob {
  const Checkpoint* checkpoint = nullptr;
  Backend* backend = nullptr;
  const CalibrationWindows* calibration = nullptr;
  QuantizeProgress* progress = nullptr;  // may be nullptr
  FinishOutput* finish = nullptr;        // may be nullptr
};

// Writes options.output: safetensors, config.json, generation_config.json, quern-report.json. It
// appears under its name complete and verified or not at all; finished blocks survive in the work
// directory. The result is the same bit for bit for any number of threads and whether or not the
// run was resumed.
//
// Errors: kInvalidArgument for an unknown method or option (with what is known), a group size that
// does not divide a layer's width (named, with what would), NaN or infinite weights (named), token
// ids outside the vocabulary, too little memory or calibration; kConflict when the output exists;
// kUnsupported for an architecture without folding rules; kExhausted when interrupted, with the
// work kept. Throws std::system_error when the disk fails.
Result<QuantizeReport> quantize(const QuantizeJob& job, const QuantizeOptions& options);

}  // namespace quern
