// Writes a tokenizer as the files of a Hugging Face directory.
#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer_spec.h"

namespace quern {

// tokenizer.json.
std::string write_tokenizer_json(const TokenizerSpec& spec);

// tokenizer_config.json; `chat_template` may be empty.
std::string write_tokenizer_config_json(const TokenizerSpec& spec, std::string_view chat_template);

}  // namespace quern
