// What the endpoints know of a model that is being served: how its text becomes tokens, what a
// request may ask of it, and what its publisher recommends.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/request.h"
#include "serve/api_grammars.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace quern {

// The publisher's sampling parameters, used where a request leaves a field out. Each is within the
// range of SamplingParams.
struct GenerationDefaults {
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;

  friend bool operator==(const GenerationDefaults&, const GenerationDefaults&) = default;
};

// From the text of a generation_config.json; `source` names it in errors. "do_sample": false is
// temperature 0. Errors: kInvalidArgument for what is no JSON object or is out of range.
Result<GenerationDefaults> parse_generation_defaults(std::string_view text,
                                                     std::string_view source);

// From `directory`/generation_config.json; empty without that file or when `directory` is a file.
// Errors: as above.
Result<GenerationDefaults> read_generation_defaults(const std::filesystem::path& directory);

// Plain data; borrows the tokenizer and the template, which outlive it. Immutable while it is
// served but for its cache of grammars, so that any number of threads may read it.
struct ServedModel {
  std::string id;              // what requests call it
  int64_t created_unix_s = 0;  // as GET /v1/models says
  std::string owned_by = "quern";
  std::string fingerprint;  // system_fingerprint: changes when answers to a seed may change
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;  // nullptr: no chat
  std::string chat_template_source;             // its text, which tells the dialect of tool calls
  std::string bos_token, eos_token;             // as the template sees them
  std::vector<int32_t> eos_ids;                 // tokens that end a text
  RequestLimits limits;
  int64_t hidden = 0;                // numbers of an embedding
  Pooling pooling = Pooling::kMean;  // how it is made
  GenerationDefaults defaults;
  std::unique_ptr<GrammarCache> grammars = std::make_unique<GrammarCache>();
};

// Borrows the models, which outlive every exchange opened on them.
struct ServedModels {
  std::vector<const ServedModel*> models;  // the first serves requests without name

  // nullptr when no model has that id.
  const ServedModel* find(std::string_view id) const;
};

// What a model is called that was given no name: the name of its directory or file without its
// place.
std::string default_model_id(const std::string& model);

// The strings that the template calls bos_token and eos_token.
void set_template_tokens(ServedModel& model);

}  // namespace quern
