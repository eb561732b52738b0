#include "model/families/decoder.h"
#include "model/families/families.h"

namespace quern {

Result<ModelSpec> build_llama(const JsonObject& config) {
  DecoderConfig decoder = QUERN_TRY(read_decoder_config(config));
  const auto bias = [](bool has) { return has ? Bias::kHas : Bias::kNone; };
  decoder.qkv_bias = bias(QUERN_TRY(config.boolean("attention_bias", false)));
  decoder.o_bias = decoder.qkv_bias;
  decoder.mlp_bias = bias(QUERN_TRY(config.boolean("mlp_bias", false)));
  return decoder_spec(decoder);
}

}  // namespace quern
