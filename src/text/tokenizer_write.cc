#include "text/tokenizer_write.h"

#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>

namespace quern {
namespace {

std::string json_string(std::string_view text) { return Json(std::string(text)).dump(); }

std::string optional_string(const std::optional<std::string>& text) {
  return text ? json_string(*text) : "null";
}

std::string write_added(const std::vector<AddedToken>& added) {
  std::vector<const AddedToken*> sorted;
  sorted.reserve(added.size());
  for (const AddedToken& token : added) sorted.push_back(&token);
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->id < b->id; });
  std::string out = "[";
  for (const AddedToken* token : sorted) {
    out += fmt::format(
        "{}\n    {{\"id\": {}, \"content\": {}, \"single_word\": {}, \"lstrip\": {}, \"rstrip\": "
        "{}, "
        "\"normalized\": {}, \"special\": {}}}",
        out.size() > 1 ? "," : "", token->id, json_string(token->content), token->single_word,
        token->lstrip, token->rstrip, token->normalized, token->special);
  }
  return out + "\n  ]";
}

std::string write_vocabulary(const Vocabulary& vocabulary) {
  std::string out = "{";
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    // Of equal strings only the one that is found can be written.
    if (!vocabulary.has(id) || vocabulary.find(vocabulary.token(id)) != id) continue;
    out += fmt::format("{}\n      {}: {}", out.size() > 1 ? "," : "",
                       json_string(vocabulary.token(id)), id);
  }
  return out + "\n    }";
}

std::string write_merges(const TokenizerSpec& spec) {
  std::vector<const Merge*> sorted;
  sorted.reserve(spec.merges.size());
  for (const Merge& merge : spec.merges) sorted.push_back(&merge);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](auto* a, auto* b) { return a->rank < b->rank; });
  std::string out = "[";
  for (const Merge* merge : sorted) {
    out += fmt::format("{}\n      [{}, {}]", out.size() > 1 ? "," : "",
                       json_string(spec.vocabulary.token(merge->left)),
                       json_string(spec.vocabulary.token(merge->right)));
  }
  return out + "\n    ]";
}

std::string token_text(const TokenizerSpec& spec, int32_t id) {
  for (const AddedToken& added : spec.added)
    if (added.id == id) return added.content;
  return std::string(spec.vocabulary.token(id));
}

}  // namespace

std::string write_tokenizer_json(const TokenizerSpec& spec) {
  const auto affix = [](const std::string& text) {
    return text.empty() ? std::string("null") : json_string(text);
  };
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  out += fmt::format("  \"added_tokens\": {},\n", write_added(spec.added));
  out += fmt::format("  \"normalizer\": {},\n", spec.normalizer.dump());
  out += fmt::format("  \"pre_tokenizer\": {},\n", spec.pre_tokenizer.dump());
  out += fmt::format("  \"post_processor\": {},\n", spec.post_processor.dump());
  out += fmt::format("  \"decoder\": {},\n", spec.decoder.dump());
  out += fmt::format(
      "  \"model\": {{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": {},\n"
      "    \"continuing_subword_prefix\": {},\n    \"end_of_word_suffix\": {},\n"
      "    \"fuse_unk\": {},\n    \"byte_fallback\": {},\n    \"ignore_merges\": {},\n",
      optional_string(spec.unk_token), affix(spec.continuing_prefix), affix(spec.end_suffix),
      spec.fuse_unk, spec.byte_fallback, spec.ignore_merges);
  out += fmt::format("    \"vocab\": {},\n", write_vocabulary(spec.vocabulary));
  out += fmt::format("    \"merges\": {}\n  }}\n}}\n", write_merges(spec));
  return out;
}

std::string write_tokenizer_config_json(const TokenizerSpec& spec, std::string_view chat_template) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, std::optional<int32_t> id) {
    if (id) config[key] = token_text(spec, *id);
  };
  name("bos_token", spec.bos);
  name("unk_token", spec.unk);
  name("pad_token", spec.pad);
  if (!spec.eos.empty()) name("eos_token", spec.eos.front());
  if (!chat_template.empty()) config["chat_template"] = std::string(chat_template);
  return config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace quern
