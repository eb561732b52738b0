// Vocabularies of GGUF files: tokens, merges or scores, and the name of a pretokenizer.
#include <algorithm>
#include <array>
#include <numeric>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace quern {
namespace {

constexpr int32_t kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5;
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

enum class PreKind { kGpt2, kDigitsThenGpt2, kLlama3, kQwen2, kO200k, kTekken };

// What a value of tokenizer.ggml.pre stands for.
struct Pre {
  std::string_view name;
  PreKind kind;
};

constexpr std::array<Pre, 17> kPres = {{{"default", PreKind::kGpt2},
                                        {"gpt-2", PreKind::kGpt2},
                                        {"smollm", PreKind::kDigitsThenGpt2},
                                        {"starcoder", PreKind::kDigitsThenGpt2},
                                        {"refact", PreKind::kDigitsThenGpt2},
                                        {"command-r", PreKind::kDigitsThenGpt2},
                                        {"codeshell", PreKind::kDigitsThenGpt2},
                                        {"llama-bpe", PreKind::kLlama3},
                                        {"llama3", PreKind::kLlama3},
                                        {"llama-v3", PreKind::kLlama3},
                                        {"falcon3", PreKind::kLlama3},
                                        {"dbrx", PreKind::kLlama3},
                                        {"smaug-bpe", PreKind::kLlama3},
                                        {"qwen2", PreKind::kQwen2},
                                        {"gpt-4o", PreKind::kO200k},
                                        {"llama4", PreKind::kO200k},
                                        {"tekken", PreKind::kTekken}}};

// Mistral's Tekken: as o200k, but without contractions and with single digits.
constexpr std::string_view kTekkenExpression =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json expression_then_bytes(std::string_view expression) {
  return sequence_step("pretokenizers", {split_step(expression), byte_level_step(false)});
}

void set_byte_level_pipelines(PreKind kind, TokenizerSpec& spec) {
  switch (kind) {
    case PreKind::kGpt2:
      spec.pre_tokenizer = byte_level_step(true);
      break;
    case PreKind::kDigitsThenGpt2:
      spec.pre_tokenizer =
          sequence_step("pretokenizers",
                        {{{"type", "Digits"}, {"individual_digits", true}}, byte_level_step(true)});
      break;
    case PreKind::kLlama3:
      spec.pre_tokenizer = expression_then_bytes(expressions::kLlama3);
      spec.ignore_merges = true;
      break;
    case PreKind::kQwen2:
      spec.pre_tokenizer = expression_then_bytes(expressions::kQwen2);
      spec.normalizer = {{"type", "NFC"}};
      break;
    case PreKind::kO200k:
      spec.pre_tokenizer = expression_then_bytes(expressions::kO200k);
      break;
    case PreKind::kTekken:
      spec.pre_tokenizer = expression_then_bytes(kTekkenExpression);
      spec.ignore_merges = true;
      break;
  }
  spec.decoder = byte_level_step(true);
}

class GgufReader {
 public:
  explicit GgufReader(const GgufVocabulary& vocabulary) : gguf_(vocabulary) {
    spec_.source = vocabulary.source.empty() ? "GGUF vocabulary" : vocabulary.source;
  }

  Result<TokenizerSpec> read() {
    QUERN_TRY(check_sizes());
    for (size_t id = 0; id < gguf_.tokens.size(); ++id) QUERN_TRY(add_token(id));
    spec_.vocabulary.index();
    if (gguf_.model == "gpt2") {
      QUERN_TRY(read_byte_level());
    } else if (gguf_.model == "llama") {
      QUERN_TRY(read_sentencepiece());
    } else {
      return Error{
          ErrorCode::kUnsupported,
          fmt::format("{}: tokenizer.ggml.model \"{}\" is not known; known are gpt2, llama",
                      spec_.source, gguf_.model)};
    }
    QUERN_TRY(read_named_tokens());
    return std::move(spec_);
  }

 private:
  Error malformed(const std::string& what) const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", spec_.source, what)};
  }

  int32_t type_of(size_t id) const { return gguf_.types.empty() ? 1 : gguf_.types[id]; }

  Result<Unit> check_sizes() const {
    const size_t count = gguf_.tokens.size();
    if (count == 0) return malformed("tokenizer.ggml.tokens is empty");
    if (!gguf_.types.empty() && gguf_.types.size() != count) {
      return malformed(fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens",
                                   gguf_.types.size(), count));
    }
    if (!gguf_.scores.empty() && gguf_.scores.size() != count) {
      return malformed(fmt::format("tokenizer.ggml.scores has {} entries for {} tokens",
                                   gguf_.scores.size(), count));
    }
    if (gguf_.merges.size() > kMaxMerges) {
      return malformed(fmt::format("tokenizer.ggml.merges has {} entries; at most {}",
                                   gguf_.merges.size(), kMaxMerges));
    }
    return Unit{};
  }

  Result<Unit> add_token(size_t id) {
    const std::string& token = gguf_.tokens[id];
    if (!is_valid_utf8(token))
      return malformed(fmt::format("tokenizer.ggml.tokens[{}] is not valid UTF-8", id));
    const Result<Unit> added = spec_.vocabulary.add(static_cast<int64_t>(id), token);
    if (!added) return malformed("tokenizer.ggml.tokens: " + added.error().message);
    const int32_t type = type_of(id);
    const bool unknown_text = type == kUnknown && gguf_.model == "llama";
    if ((type == kControl || type == kUserDefined || unknown_text) && !token.empty()) {
      AddedToken special;
      special.id = static_cast<int32_t>(id);
      special.content = token;
      special.special = type != kUserDefined;
      special.normalized =
          type == kUserDefined && gguf_.model == "llama" && token.find(kSpaceMark) != token.npos;
      spec_.added.push_back(std::move(special));
    }
    return Unit{};
  }

  Result<Unit> read_byte_level() {
    const std::string name = gguf_.pre.empty() ? "default" : gguf_.pre;
    const auto* const pre =
        std::find_if(kPres.begin(), kPres.end(), [&](const Pre& p) { return p.name == name; });
    if (pre == kPres.end()) {
      std::array<std::string_view, kPres.size()> names;
      std::transform(kPres.begin(), kPres.end(), names.begin(),
                     [](const Pre& p) { return p.name; });
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: tokenizer.ggml.pre \"{}\" is not known; known are {}",
                               spec_.source, name, fmt::join(names, ", "))};
    }
    set_byte_level_pipelines(pre->kind, spec_);
    adds_bos_ = pre->kind == PreKind::kLlama3 || pre->kind == PreKind::kTekken || name == "llama4";
    spec_.merges.reserve(gguf_.merges.size());
    for (size_t i = 0; i < gguf_.merges.size(); ++i) QUERN_TRY(add_merge(i));
    return Unit{};
  }

  Result<Unit> add_merge(size_t index) {
    const std::string_view text = gguf_.merges[index];
    const size_t space = text.find(' ', 1);  // a token may itself begin with a space
    const auto find = [&](std::string_view token) { return spec_.vocabulary.find(token); };
    if (space != std::string_view::npos) {
      const std::string_view left = text.substr(0, space);
      const std::string_view right = text.substr(space + 1);
      const auto left_id = find(left);
      const auto right_id = find(right);
      const auto result = find(std::string(left) + std::string(right));
      if (left_id && right_id && result) {
        spec_.merges.push_back({*left_id, *right_id, *result, static_cast<int32_t>(index)});
        return Unit{};
      }
    }
    return malformed(
        fmt::format("tokenizer.ggml.merges[{}] is \"{}\"; two tokens are needed that are, with "
                    "their concatenation, in the vocabulary",
                    index, is_valid_utf8(text) ? text : "invalid UTF-8"));
  }

  Result<Unit> read_sentencepiece() {
    if (gguf_.scores.empty()) return malformed("tokenizer.ggml.scores is missing");
    adds_bos_ = true;
    const bool prefix = gguf_.add_space_prefix.value_or(true);
    set_sentencepiece_pipelines(spec_, prefix ? SpacePrefix::kAdd : SpacePrefix::kNone);
    std::vector<int32_t> ranks = score_ranks(gguf_.scores);
    for (size_t id = 0; id < ranks.size(); ++id) {
      const int32_t type = type_of(id);
      if (type == kUnknown || type == kControl || type == kUnused) ranks[id] = -1;
    }
    Result<std::vector<Merge>> merges = merges_of_ranks(spec_.vocabulary, ranks);
    if (!merges) return malformed(merges.error().message);
    spec_.merges = std::move(*merges);
    for (size_t id = 0; id < gguf_.tokens.size() && !spec_.unk_token; ++id)
      if (type_of(id) == kUnknown) spec_.unk_token = gguf_.tokens[id];
    return Unit{};
  }

  Result<std::optional<int32_t>> checked(std::string_view name, std::optional<int32_t> id) const {
    if (!id || spec_.vocabulary.has(*id)) return id;
    return malformed(fmt::format("tokenizer.ggml.{} is {}; the vocabulary has {} tokens", name, *id,
                                 gguf_.tokens.size()));
  }

  Result<Unit> read_named_tokens() {
    spec_.bos = QUERN_TRY(checked("bos_token_id", gguf_.bos));
    spec_.unk = QUERN_TRY(checked("unknown_token_id", gguf_.unk));
    spec_.pad = QUERN_TRY(checked("padding_token_id", gguf_.pad));
    const std::optional<int32_t> eos = QUERN_TRY(checked("eos_token_id", gguf_.eos));
    if (eos) spec_.eos.push_back(*eos);
    const bool harmony = spec_.vocabulary.find("<|return|>").has_value();
    for (const AddedToken& added : spec_.added) {
      if (!added.special || !is_end_of_turn_name(added.content) || added.id == eos) continue;
      if (harmony && added.content == "<|end|>") continue;  // ends a message, not the turn
      spec_.eos.push_back(added.id);
    }
    const bool before = gguf_.add_bos.value_or(adds_bos_);
    const bool after = gguf_.add_eos.value_or(false);
    spec_.post_processor =
        template_processing(spec_, before ? spec_.bos : std::nullopt, after ? eos : std::nullopt);
    return Unit{};
  }

  const GgufVocabulary& gguf_;
  TokenizerSpec spec_;
  bool adds_bos_ = false;  // what the vocabulary's kind does when the file does not say
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_gguf(const GgufVocabulary& vocabulary) {
  return make_tokenizer(QUERN_TRY(GgufReader(vocabulary).read()));
}

}  // namespace quern
