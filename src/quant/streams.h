// The calibration windows on their way through the model: the residual stream at full precision and
// the one that the quantised blocks make of it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "kernels/backend.h"
#include "model/block.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "tensor/buffer.h"

namespace quern {

// One window's rows in the streams.
struct Window {
  int64_t begin = 0;
  int64_t rows = 0;
  bool held_out = false;
};

struct Streams {
  std::vector<Window> windows;
  FloatMatrix full;     // [tokens, hidden]
  FloatMatrix rounded;  // likewise; empty for methods that do not follow the quantised model

  Tensor full_rows(const Window& w) const { return full.tensor().slice_rows(w.begin, w.rows); }
  Tensor rounded_rows(const Window& w) const {
    return rounded.tensor().slice_rows(w.begin, w.rows);
  }
};

enum class RoundedStream : uint8_t { kNone, kFollowed };

// The embedded windows. Every `held_out_every`-th is held out (0: none). Errors: those of
// Checkpoint::weight().
Result<Streams> embed_windows(const ModelSpec& spec,
                              const Checkpoint& checkpoint,
                              const std::vector<std::vector<int32_t>>& windows,
                              int held_out_every,
                              RoundedStream rounded);

// Runs mixers over windows of at most `longest` tokens, each from position 0 with a float32 cache.
class BlockRunner {
 public:
  BlockRunner(const ModelSpec& spec, Backend& backend, int64_t longest);

  // The mixer's answer to the rows of a stream: [rows, hidden], not yet added to them. Valid, like
  // the inputs that the observer sees, until the next call.
  Tensor run(const BlockSpec& spec,
             const BlockWeights& weights,
             Tensor stream,
             LinearObserver* observer);

  static size_t bytes(const ModelSpec& spec, const Backend& backend, int64_t longest);

 private:
  Backend& backend_;
  BlockScratch scratch_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> block_table_;
  Buffer cache_;
};

}  // namespace quern
