// One residual block with its weights: the unit that a forward pass runs and the quantiser streams.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "model/spec.h"

namespace quern {

// Packed weights of one block. For attention: input = q, k, v joined, output = o; for an MLP: input
// = gate, up joined, output = down.
struct BlockWeights {
  std::vector<float> norm;
  std::unique_ptr<PackedWeight> input;
  std::unique_ptr<PackedWeight> output;
  std::vector<float> q_norm, k_norm;
};

// Supplies the matrix of a linear layer by module name; lets the quantiser hand in weights of its
// own.
using WeightSource = FunctionRef<Result<Weight>(const LinearSpec&)>;

// Whether the matrix has the shape of `spec`, in groups that backends pack; that its numbers are
// finite is Checkpoint::weight()'s to check. Errors: kInvalidArgument for the shape, kUnsupported
// for the groups, naming the layer.
Result<Unit> check_weight(const Weight& weight, const LinearSpec& spec);

// Layers that read one input, packed as one: matrices from `source`, biases from `checkpoint`.
// Errors: those of `source`, check_weight() and Checkpoint::vector().
Result<std::unique_ptr<PackedWeight>> load_joined(std::span<const LinearSpec* const> linears,
                                                  const Checkpoint& checkpoint,
                                                  WeightSource source,
                                                  Backend& backend,
                                                  Precision precision);

// The vector of a norm. Errors: those of Checkpoint::vector(), and kInvalidArgument for another
// width.
Result<std::vector<float>> load_norm(const NormSpec& norm, const Checkpoint& checkpoint);

// Reads norms and biases from `checkpoint`, matrices from `source`. Errors: as load_joined().
Result<BlockWeights> load_block(const BlockSpec& spec,
                                const Checkpoint& checkpoint,
                                WeightSource source,
                                Backend& backend,
                                Precision precision);

// Scratch of a forward step for at most `rows` rows of any block of `spec`.
class BlockScratch {
 public:
  BlockScratch(const ModelSpec& spec, int64_t rows);

  FloatMatrix joined;  // [rows, widest of q+k+v]
  FloatMatrix inner;   // [rows, widest of heads * head_dim and MLP width]
  FloatMatrix hidden;  // [rows, hidden]: what a mixer answers
  FloatMatrix normed;  // [rows, hidden]: what it reads
};

// Bytes that a block takes for each row: BlockScratch, and gate and up joined, which backends keep
// where they cannot do without.
uint64_t scratch_row_bytes(const ModelSpec& spec);

// Those of a forward step: the residual stream, too.
uint64_t step_row_bytes(const ModelSpec& spec);

// Where the tokens of this step stand.
struct Step {
  std::span<const int32_t> positions;
  std::span<const SequenceSpan> sequences;
};

// Sees the input of every linear layer before it runs: the joined layers' input once, under the
// first one's spec. input: [rows, in].
using LinearObserver = FunctionRef<void(const LinearSpec& first, Tensor input)>;

// y = mixer(h): scratch.hidden rows for h: [rows, hidden], the normalised input. `kv` is used by
// attention blocks alone. `observer` may be nullptr.
Tensor run_mixer(const BlockSpec& spec,
                 const BlockWeights& weights,
                 Backend& backend,
                 const KvLayer& kv,
                 const Step& step,
                 Tensor h,
                 BlockScratch& scratch,
                 LinearObserver* observer);

}  // namespace quern
