#include "model/families/decoder.h"
#include "model/families/families.h"

namespace quern {
namespace {

// The window where config.json does not mention one (an explicit null means none): the first
// Mistral's, which the reference implementation assumes.
constexpr int64_t kDefaultWindow = 4096;
constexpr int64_t kMaxWindow = int64_t{1} << 30;

}  // namespace

Result<ModelSpec> build_mistral(const JsonObject& config) {
  DecoderConfig decoder = QUERN_TRY(read_decoder_config(config));
  const int64_t unmentioned = config.json().contains("sliding_window") ? 0 : kDefaultWindow;
  const int64_t window = QUERN_TRY(config.integer("sliding_window", unmentioned, 1, kMaxWindow));
  decoder.windows = QUERN_TRY(read_windows(config, decoder.layers, window, 0));
  return decoder_spec(decoder);
}

}  // namespace quern
