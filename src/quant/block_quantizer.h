// Quantises one residual block: statistics of both streams, scales folded and checked, matrices
// rounded, and the streams carried on to the next block.
#pragma once

#include <array>
#include <span>
#include <variant>
#include <vector>

#include "base/function_ref.h"
#include "base/result.h"
#include "kernels/backend.h"
#include "model/spec.h"
#include "quant/block_matrices.h"
#include "quant/layer_rounder.h"
#include "quant/quantize.h"
#include "quant/statistics.h"
#include "quant/streams.h"

namespace quern {

// What becomes of a block. Vectors are empty where the checkpoint's own stay.
struct QuantizedBlock {
  std::vector<float> norm;
  std::vector<GroupedWeight> linears;      // in the order of linears(spec)
  std::vector<std::vector<float>> biases;  // likewise
  BlockReport report;
};

// Called between steps with the share of the block that is done; false ends the work.
using BlockProgress = FunctionRef<bool(double share)>;

// Whether the inputs of output layers are kept between statistics and use, or computed twice.
enum class InnerActivations : uint8_t { kStored, kRecomputed };

class BlockQuantizer {
 public:
  struct Setup {
    const ModelSpec& spec;
    Backend& backend;
    const Quantizer& method;
    int group_size;
    Recipe recipe;
    Streams& streams;  // without windows for methods that do not calibrate
    InnerActivations inner = InnerActivations::kStored;
  };

  // `setup` and what it refers to outlive the object.
  explicit BlockQuantizer(const Setup& setup);

  // Errors: kExhausted when `progress` says so.
  Result<QuantizedBlock> quantize(const BlockSpec& spec,
                                  BlockMatrices block,
                                  BlockProgress progress);

  // Carries the streams through a block that was quantised before.
  Result<Unit> replay(const BlockSpec& spec,
                      const BlockMatrices& block,
                      const QuantizedBlock& quantized,
                      BlockProgress progress);

 private:
  struct Work;

  Result<Unit> read_inputs(Work& work);
  void add_inputs(Work& work,
                  const Window& window,
                  Tensor joined,
                  const std::vector<float>& weights);
  void read_window(Work& work, size_t index, const BlockWeights& weights);
  void fold(Work& work);
  void fold_inner(Work& work);
  void fold_input(Work& work);
  FloatMatrix check_answer(const Work& work);
  double fold_error(const Work& work);
  Result<OrderedGram> prepare_feedback(Work& work,
                                       std::span<const Tensor> consumers,
                                       const LayerInputs& inputs);
  Result<Unit> round_inputs(Work& work);
  Result<Unit> round_output(Work& work);
  Result<Unit> read_rounded_inner(Work& work);
  void carry_rounded(Work& work);
  double output_error() const;

  Setup setup_;
  ThreadPool& pool_;
  BlockRunner runner_;
  // Of the last block with each kind of mixer: of its inputs and of its output's; 0 before any.
  std::array<std::array<float, 2>, std::variant_size_v<MixerSpec>> last_dampings_{};
};

}  // namespace quern
