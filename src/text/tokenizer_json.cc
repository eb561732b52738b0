// Reads tokenizer.json and the files that stand beside it.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/file.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace quern {
namespace {

std::string shown(const Json& value) {
  constexpr size_t kMaxShown = 80;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

// Puts `where` before the message of an error.
template <typename T>
Result<T> within(const std::string& where, Result<T> result) {
  if (result) return result;
  Error error = std::move(result).error();
  error.message = where + ": " + error.message;
  return error;
}

// As parse_json, whose message may quote a part of a code point: the message is valid UTF-8.
Result<Json> parse(std::string_view text, const std::string& source) {
  Result<Json> parsed = parse_json(text, source);
  if (parsed) return parsed;
  return Error{parsed.error().code, replace_invalid_utf8(parsed.error().message)};
}

class JsonReader {
 public:
  JsonReader(const Json& root, std::string source)
      : root_(root, source), model_source_(source + " model") {
    spec_.source = std::move(source);
  }

  Result<TokenizerSpec> read() {
    const Json* model = root_.find("model");
    if (model == nullptr || !model->is_object())
      return malformed("model", model == nullptr ? Json() : *model, "an object");
    const JsonObject object(*model, model_source_);
    QUERN_TRY(read_type(object));
    QUERN_TRY(read_options(object));
    QUERN_TRY(read_vocabulary(object));
    QUERN_TRY(read_merges(object));
    QUERN_TRY(read_added());
    const auto pipeline = [&](const char* key) {
      const Json* value = root_.find(key);
      return value == nullptr ? Json() : *value;
    };
    spec_.normalizer = pipeline("normalizer");
    spec_.pre_tokenizer = pipeline("pre_tokenizer");
    spec_.post_processor = pipeline("post_processor");
    spec_.decoder = pipeline("decoder");
    return std::move(spec_);
  }

 private:
  Error malformed(std::string_view field, const Json& value, std::string_view wanted) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: {} is {}; {} is needed", spec_.source, field, shown(value), wanted)};
  }

  // Files of old versions have no "type"; a list of merges makes it BPE.
  Result<Unit> read_type(const JsonObject& model) {
    const std::string type = QUERN_TRY(
        model.string("type", std::string(model.find("merges") != nullptr ? "BPE" : "none")));
    if (type == "BPE") return Unit{};
    return Error{
        ErrorCode::kUnsupported,
        fmt::format("{}: model.type is \"{}\"; known is \"BPE\" alone", spec_.source, type)};
  }

  Result<Unit> read_options(const JsonObject& model) {
    const Json* unknown = model.find("unk_token");
    if (unknown != nullptr) spec_.unk_token = QUERN_TRY(model.string("unk_token"));
    spec_.fuse_unk = QUERN_TRY(model.boolean("fuse_unk", false));
    spec_.byte_fallback = QUERN_TRY(model.boolean("byte_fallback", false));
    spec_.ignore_merges = QUERN_TRY(model.boolean("ignore_merges", false));
    spec_.continuing_prefix = QUERN_TRY(model.string("continuing_subword_prefix", std::string()));
    spec_.end_suffix = QUERN_TRY(model.string("end_of_word_suffix", std::string()));
    const double dropout = QUERN_TRY(model.number("dropout", 0.0));
    if (dropout == 0.0) return Unit{};
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: model.dropout is {}; encoding that is not deterministic is not "
                             "supported, use null",
                             spec_.source, dropout)};
  }

  Result<Unit> read_vocabulary(const JsonObject& model) {
    const Json* vocabulary = model.find("vocab");
    if (vocabulary == nullptr || !vocabulary->is_object())
      return malformed("model.vocab", vocabulary == nullptr ? Json() : *vocabulary, "an object");
    for (const auto& [token, id] : vocabulary->items()) {
      if (!id.is_number_integer())
        return malformed(fmt::format("model.vocab[\"{}\"]", token), id, "a token id");
      QUERN_TRY(within(
          spec_.source + " model.vocab",
          spec_.vocabulary.add(
              id.is_number_unsigned() ? clamp_id(id.get<uint64_t>()) : id.get<int64_t>(), token)));
    }
    spec_.vocabulary.index();
    return Unit{};
  }

  static int64_t clamp_id(uint64_t id) {
    return static_cast<int64_t>(std::min<uint64_t>(id, uint64_t{kMaxVocabularyIds}));
  }

  Result<Unit> read_merges(const JsonObject& model) {
    const Json* merges = model.find("merges");
    if (merges == nullptr || !merges->is_array() || merges->size() > kMaxMerges) {
      return malformed("model.merges", merges == nullptr ? Json() : *merges,
                       fmt::format("a list of at most {} merges", kMaxMerges));
    }
    spec_.merges.reserve(merges->size());
    for (const Json& merge : *merges) QUERN_TRY(read_merge(merge));
    return Unit{};
  }

  // "left right" or ["left", "right"].
  Result<Unit> read_merge(const Json& merge) {
    std::string_view left, right;
    if (merge.is_string()) {
      const std::string_view text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != std::string_view::npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
      if (right.find(' ') != std::string_view::npos) right = {};
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    const size_t index = spec_.merges.size();
    if (left.empty() || right.empty()) {
      return malformed(fmt::format("model.merges[{}]", index), merge,
                       "\"left right\" or [left, right]");
    }
    std::string_view tail = right;
    if (!spec_.continuing_prefix.empty() && tail.size() >= spec_.continuing_prefix.size())
      tail.remove_prefix(spec_.continuing_prefix.size());
    const auto left_id = spec_.vocabulary.find(left);
    const auto right_id = spec_.vocabulary.find(right);
    const auto result = spec_.vocabulary.find(std::string(left) + std::string(tail));
    if (!left_id || !right_id || !result) {
      return malformed(fmt::format("model.merges[{}]", index), merge,
                       "a pair that is, with its result, in the vocabulary");
    }
    spec_.merges.push_back({*left_id, *right_id, *result, static_cast<int32_t>(index)});
    return Unit{};
  }

  Result<Unit> read_added() {
    const Json* added = root_.find("added_tokens");
    if (added == nullptr) return Unit{};
    if (!added->is_array() || added->size() > kMaxAddedTokens) {
      return malformed("added_tokens", *added,
                       fmt::format("a list of at most {} tokens", kMaxAddedTokens));
    }
    for (size_t i = 0; i < added->size(); ++i) {
      const Json& value = (*added)[i];
      const std::string field = fmt::format("added_tokens[{}]", i);
      if (!value.is_object()) return malformed(field, value, "an object");
      AddedToken token = QUERN_TRY(read_added_token(JsonObject(value, spec_.source + " " + field)));
      if (!token.content.empty()) spec_.added.push_back(std::move(token));
    }
    return Unit{};
  }

  Result<AddedToken> read_added_token(const JsonObject& object) {
    AddedToken token;
    token.content = QUERN_TRY(object.string("content"));
    token.id = static_cast<int32_t>(
        QUERN_TRY(object.integer("id", std::nullopt, 0, kMaxVocabularyIds - 1)));
    token.special = QUERN_TRY(object.boolean("special", false));
    token.single_word = QUERN_TRY(object.boolean("single_word", false));
    token.lstrip = QUERN_TRY(object.boolean("lstrip", false));
    token.rstrip = QUERN_TRY(object.boolean("rstrip", false));
    token.normalized = QUERN_TRY(object.boolean("normalized", !token.special));
    // A token of the model keeps the model's id.
    token.id = spec_.vocabulary.find(token.content).value_or(token.id);
    return token;
  }

  JsonObject root_;
  std::string model_source_;
  TokenizerSpec spec_;
};

std::optional<int32_t> id_of(const TokenizerSpec& spec, std::string_view token) {
  for (const AddedToken& added : spec.added)
    if (added.content == token) return added.id;
  return spec.vocabulary.find(token);
}

// The named token of tokenizer_config.json: a string or an object with "content".
Result<std::optional<int32_t>> named_token(const TokenizerSpec& spec,
                                           const JsonObject& config,
                                           std::string_view key) {
  const Json* value = config.find(key);
  if (value == nullptr) return std::optional<int32_t>();
  if (value->is_object())
    return id_of(spec, QUERN_TRY(JsonObject(*value, config.source()).string("content")));
  return id_of(spec, QUERN_TRY(config.string(key)));
}

Result<JsonObject> object_of(const Json& value, const std::string& source) {
  if (value.is_object()) return JsonObject(value, source);
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: is {}; an object is needed", source, value.type_name())};
}

Result<Unit> apply_config(std::string_view text, const std::string& source, TokenizerSpec& spec) {
  const Json config = QUERN_TRY(parse(text, source));
  const JsonObject object = QUERN_TRY(object_of(config, source));
  if (const auto bos = QUERN_TRY(named_token(spec, object, "bos_token"))) spec.bos = bos;
  if (const auto unk = QUERN_TRY(named_token(spec, object, "unk_token"))) spec.unk = unk;
  if (const auto pad = QUERN_TRY(named_token(spec, object, "pad_token"))) spec.pad = pad;
  if (const auto eos = QUERN_TRY(named_token(spec, object, "eos_token"))) spec.eos = {*eos};
  return Unit{};
}

// Adds the eos_token_id of generation_config.json: an id or a list of ids.
Result<Unit> apply_generation_config(std::string_view text,
                                     const std::string& source,
                                     TokenizerSpec& spec) {
  const Json config = QUERN_TRY(parse(text, source));
  const JsonObject object = QUERN_TRY(object_of(config, source));
  const Json* eos = object.find("eos_token_id");
  if (eos == nullptr) return Unit{};
  const Json list = eos->is_array() ? *eos : Json::array({*eos});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= kMaxVocabularyIds) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("{}: eos_token_id is {}; a token id is needed", source, shown(*eos))};
    }
    const auto value = id.get<int32_t>();
    if (std::find(spec.eos.begin(), spec.eos.end(), value) == spec.eos.end())
      spec.eos.push_back(value);
  }
  return Unit{};
}

Result<TokenizerSpec> read_spec(std::string_view text, const std::string& source) {
  const Json root = QUERN_TRY(parse(text, source));
  QUERN_TRY(object_of(root, source));
  return JsonReader(root, source).read();
}

constexpr uint64_t kMaxConfigBytes = uint64_t{32} << 20;

Result<std::unique_ptr<Tokenizer>> read_json_directory(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.json";
  const std::string text = QUERN_TRY(read_file(path, kMaxTokenizerFileBytes));
  TokenizerSpec spec = QUERN_TRY(read_spec(text, path.string()));
  const std::filesystem::path config = directory / "tokenizer_config.json";
  if (std::filesystem::exists(config)) {
    const std::string config_text = QUERN_TRY(read_file(config, kMaxConfigBytes));
    QUERN_TRY(apply_config(config_text, config.string(), spec));
  }
  const std::filesystem::path generation = directory / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    const std::string generation_text = QUERN_TRY(read_file(generation, kMaxConfigBytes));
    QUERN_TRY(apply_generation_config(generation_text, generation.string(), spec));
  }
  return make_tokenizer(std::move(spec));
}

Result<std::unique_ptr<Tokenizer>> read_model_file(const std::filesystem::path& path) {
  const std::string text = QUERN_TRY(read_file(path, kMaxTokenizerFileBytes));
  // A SentencePiece model begins with the tag of its first piece; base64 never does.
  if (text.starts_with('\n')) return Tokenizer::from_sentencepiece(text, path.string());
  return Tokenizer::from_tiktoken(text, path.string());
}

// The only file of the directory that ends in .tiktoken; empty without one or with several.
std::filesystem::path only_tiktoken_file(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored))
    if (entry.path().extension() == ".tiktoken") found.push_back(entry.path());
  return found.size() == 1 ? found.front() : std::filesystem::path();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_json(std::string_view tokenizer_json,
                                                        std::string_view source,
                                                        std::string_view config_json) {
  TokenizerSpec spec = QUERN_TRY(read_spec(tokenizer_json, std::string(source)));
  if (!config_json.empty())
    QUERN_TRY(apply_config(config_json, std::string(source) + " (tokenizer_config.json)", spec));
  return make_tokenizer(std::move(spec));
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_directory(
    const std::filesystem::path& directory) {
  if (std::filesystem::exists(directory / "tokenizer.json")) return read_json_directory(directory);
  if (std::filesystem::exists(directory / "tokenizer.model"))
    return read_model_file(directory / "tokenizer.model");
  const std::filesystem::path tiktoken = only_tiktoken_file(directory);
  if (!tiktoken.empty()) return read_model_file(tiktoken);
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: no tokenizer: neither tokenizer.json nor tokenizer.model nor one "
                           "*.tiktoken is there",
                           directory.string())};
}

}  // namespace quern
