// What a tokenizer is made of, whichever file it came in; its pipelines in the JSON of
// tokenizer.json, so that there is one reader for them and a tokenizer can be written back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/bpe.h"
#include "text/tokenizer.h"
#include "text/tokenizer_added.h"
#include "text/vocabulary.h"

namespace quern {

inline constexpr uint64_t kMaxTokenizerFileBytes = uint64_t{256} << 20;
inline constexpr size_t kMaxMerges = size_t{1} << 23;
inline constexpr size_t kMaxAddedTokens = size_t{1} << 17;

struct TokenizerSpec {
  std::string source;     // for errors
  Vocabulary vocabulary;  // of the model, indexed; added tokens may lie outside
  std::vector<Merge> merges;
  std::vector<AddedToken> added;
  Json normalizer, pre_tokenizer, post_processor, decoder;  // null: none
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
  std::string continuing_prefix;
  std::string end_suffix;
  std::optional<int32_t> bos, unk, pad;
  std::vector<int32_t> eos;  // the first is the model's own
};

// Errors: kInvalidArgument and kUnsupported, naming spec.source and the field.
Result<std::unique_ptr<Tokenizer>> make_tokenizer(TokenizerSpec spec);

// Every pair of tokens whose concatenation is a token, for vocabularies that keep ranks instead of
// merges. ranks[id]: when a token is merged, lowest first; negative: never. Pairs with the same
// result share its rank. Errors: kInvalidArgument above kMaxMerges.
Result<std::vector<Merge>> merges_of_ranks(const Vocabulary& vocabulary,
                                           const std::vector<int32_t>& ranks);

// The rank of each token by its score, highest score first; equal scores share a rank, NaN is last.
std::vector<int32_t> score_ranks(const std::vector<float>& scores);

// The TemplateProcessing that puts the two tokens around a text; null without any.
Json template_processing(const TokenizerSpec& spec,
                         std::optional<int32_t> before,
                         std::optional<int32_t> after);

// ByteLevel steps as the byte-level tokenizers write them.
Json byte_level_step(bool use_regex);
Json split_step(std::string_view expression);
Json sequence_step(std::string_view list, std::vector<Json> steps);

// The pipelines of a SentencePiece vocabulary: "▁" for spaces, one before the first word when
// `add_space_prefix`.
enum class SpacePrefix { kAdd, kNone };
void set_sentencepiece_pipelines(TokenizerSpec& spec, SpacePrefix prefix);

// The expressions by family.
namespace expressions {
extern const std::string_view kLlama3;
extern const std::string_view kQwen2;
extern const std::string_view kO200k;
}  // namespace expressions

// Names under which vocabularies keep the token that ends a turn.
bool is_end_of_turn_name(std::string_view token);

}  // namespace quern
