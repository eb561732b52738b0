#include "model/families/decoder.h"
#include "model/families/families.h"

namespace quern {
namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 30;
constexpr int64_t kMaxLayers = 1024;

// Both generations slide only where "use_sliding_window" says so, and then from layer
// "max_window_layers" on. The defaults are the reference implementation's.
Result<std::vector<int64_t>> read_qwen_windows(const JsonObject& config, int layers) {
  const bool sliding = QUERN_TRY(config.boolean("use_sliding_window", false));
  const int64_t window =
      sliding ? QUERN_TRY(config.integer("sliding_window", 4096, 1, kMaxWindow)) : 0;
  const int64_t first = QUERN_TRY(config.integer("max_window_layers", 28, 0, kMaxLayers));
  return read_windows(config, layers, window, first);
}

}  // namespace

Result<ModelSpec> build_qwen2(const JsonObject& config) {
  DecoderConfig decoder = QUERN_TRY(read_decoder_config(config));
  decoder.qkv_bias = Bias::kHas;
  decoder.windows = QUERN_TRY(read_qwen_windows(config, decoder.layers));
  return decoder_spec(decoder);
}

Result<ModelSpec> build_qwen3(const JsonObject& config) {
  DecoderConfig decoder = QUERN_TRY(read_decoder_config(config));
  if (QUERN_TRY(config.boolean("attention_bias", false))) {
    decoder.qkv_bias = Bias::kHas;
    decoder.o_bias = Bias::kHas;
  }
  decoder.head_norms = true;
  decoder.windows = QUERN_TRY(read_qwen_windows(config, decoder.layers));
  return decoder_spec(decoder);
}

}  // namespace quern
