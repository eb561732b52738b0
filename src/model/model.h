// A model that runs: takes a batch of tokens of several sequences, answers with logits and hidden
// states.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "model/head.h"
#include "model/spec.h"

namespace quern {

// One forward step. Rows of `tokens` are grouped by sequence as `sequences` says.
struct Batch {
  std::span<const int32_t> tokens;     // [rows]
  std::span<const int32_t> positions;  // [rows]
  std::span<const SequenceSpan> sequences;
  std::span<const int32_t> logit_rows;  // the rows whose logits are wanted, ascending

  // The rows whose hidden states behind the final norm are wanted, ascending, and where they go:
  // [hidden_rows, spec().hidden], float32.
  std::span<const int32_t> hidden_rows = {};
  Tensor hidden = {};
};

// What memory a model needs beside its weights.
struct ModelLimits {
  int64_t max_batch_tokens = 512;  // rows of one forward step
  int64_t max_logit_rows = 64;
  int64_t kv_blocks = 0;  // blocks of kKvBlockTokens positions, shared by all sequences
  KvDType kv_dtype = KvDType::kInt8;
};

// Two implementations: the real one of load_model() and the engine's simulated one.
class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  virtual const ModelSpec& spec() const = 0;
  virtual const ModelLimits& limits() const = 0;

  // Runs the batch: reads and extends the key-value cache, writes logits: [logit_rows, vocabulary],
  // float32, and batch.hidden. Requires a batch within limits(). Owner thread only.
  virtual void forward(const Batch& batch, Tensor logits) = 0;
};

struct LoadOptions {
  Precision precision = Precision::kFast;
  HeadFormat head = HeadFormat::kAuto;
  ModelLimits limits;
  // Told after every packed layer, for a progress bar: bytes of weights done and in all.
  FunctionRef<void(uint64_t done, uint64_t total)>* progress = nullptr;
};

// What loading did to the stored numbers, one line for each kind of rounding, empty when exact.
struct LoadReport {
  size_t weight_bytes = 0;
  size_t kv_cache_bytes = 0;
  size_t scratch_bytes = 0;
  std::vector<std::string> notes;
};

// The spec of the checkpoint's architecture. Errors: kUnsupported naming the architecture and
// listing kFamilies; kInvalidArgument for a config that contradicts itself or the tensors.
Result<ModelSpec> read_spec(const Checkpoint& checkpoint);

// The same by the configuration alone, whatever the tensors are.
Result<ModelSpec> read_config_spec(const Checkpoint& checkpoint);

// Reads and packs every weight. The checkpoint may be closed afterwards; the backend outlives the
// model. `report` may be nullptr.
Result<std::unique_ptr<Model>> load_model(const Checkpoint& checkpoint,
                                          Backend& backend,
                                          const LoadOptions& options,
                                          LoadReport* report);

}  // namespace quern
