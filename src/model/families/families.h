// The architectures that Quern runs: each maps its config keys and tensor names to a ModelSpec.
#pragma once

#include <span>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "model/spec.h"

namespace quern {

// `config` is the checkpoint's; what is common to all (architecture name, end tokens, agreement
// with the tensors) is read_spec()'s.
// Errors: kInvalidArgument for a field that is missing, of another type, out of range or at odds
// with another; kUnsupported for a mechanism that Quern lacks. Each names the field and its value.
using FamilyBuilder = Result<ModelSpec> (*)(const JsonObject& config);

Result<ModelSpec> build_llama(const JsonObject& config);
Result<ModelSpec> build_mistral(const JsonObject& config);
Result<ModelSpec> build_qwen2(const JsonObject& config);
Result<ModelSpec> build_qwen3(const JsonObject& config);

struct Family {
  std::string_view architecture;  // as config.json's "architectures" names it
  FamilyBuilder build;
};

inline constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", build_llama},      // Llama 1 to 3.3, SmolLM2, and all that share the code
    {"MistralForCausalLM", build_mistral},  // Mistral 7B, Nemo, Small
    {"Qwen2ForCausalLM", build_qwen2},      // Qwen 2 and 2.5
    {"Qwen3ForCausalLM", build_qwen3},      // Qwen 3, dense
};

}  // namespace quern
