#include "text/tokenizer_spec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <tuple>

#include <fmt/format.h>

#include "text/unicode.h"

namespace quern {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // "▁", which SentencePiece writes for " "

std::string_view token_text(const TokenizerSpec& spec, int32_t id) {
  for (const AddedToken& added : spec.added)
    if (added.id == id) return added.content;
  return spec.vocabulary.token(id);
}

}  // namespace

namespace expressions {

const std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace expressions

Result<std::vector<Merge>> merges_of_ranks(const Vocabulary& vocabulary,
                                           const std::vector<int32_t>& ranks) {
  std::vector<Merge> merges;
  const auto mergeable = [&](std::optional<int32_t> id) {
    return id && ranks[static_cast<size_t>(*id)] >= 0;
  };
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const int32_t rank = ranks[static_cast<size_t>(id)];
    const std::string_view token = vocabulary.token(id);
    if (rank < 0 || token.empty()) continue;
    for (size_t at = decode_code_point(token).bytes; at < token.size();
         at += decode_code_point(token.substr(at)).bytes) {
      const std::optional<int32_t> left = vocabulary.find(token.substr(0, at));
      const std::optional<int32_t> right = vocabulary.find(token.substr(at));
      if (!mergeable(left) || !mergeable(right)) continue;
      if (merges.size() >= kMaxMerges) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("the vocabulary has more than {} merges", kMaxMerges)};
      }
      merges.push_back({*left, *right, id, rank});
    }
  }
  std::sort(merges.begin(), merges.end(), [&](const Merge& a, const Merge& b) {
    const auto key = [&](const Merge& m) {
      return std::tuple(m.rank, ranks[static_cast<size_t>(m.left)],
                        ranks[static_cast<size_t>(m.right)], m.left);
    };
    return key(a) < key(b);
  });
  return merges;
}

std::vector<int32_t> score_ranks(const std::vector<float>& scores) {
  std::vector<float> sorted;
  for (const float score : scores)
    if (!std::isnan(score)) sorted.push_back(score);
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<int32_t> ranks;
  ranks.reserve(scores.size());
  for (const float score : scores) {
    const auto at = std::isnan(score)
                        ? sorted.end()
                        : std::lower_bound(sorted.begin(), sorted.end(), score, std::greater<>());
    ranks.push_back(static_cast<int32_t>(at - sorted.begin()));
  }
  return ranks;
}

Json template_processing(const TokenizerSpec& spec,
                         std::optional<int32_t> before,
                         std::optional<int32_t> after) {
  if (!before && !after) return nullptr;
  Json single = Json::array();
  Json pair = Json::array();
  Json special = Json::object();
  const auto token = [&](std::optional<int32_t> id) {
    if (!id) return;
    const std::string text(token_text(spec, *id));
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    pair.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    special[text] = {{"id", text}, {"ids", {*id}}, {"tokens", {text}}};
  };
  const auto sequence = [](const char* name, int type) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  token(before);
  single.push_back(sequence("A", 0));
  pair.push_back(sequence("A", 0));
  pair.push_back(sequence("B", 1));
  token(after);
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}

Json byte_level_step(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json split_step(std::string_view expression) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", std::string(expression)}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json sequence_step(std::string_view list, std::vector<Json> steps) {
  return {{"type", "Sequence"}, {std::string(list), std::move(steps)}};
}

void set_sentencepiece_pipelines(TokenizerSpec& spec, SpacePrefix prefix) {
  const Json escape = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}};
  const Json unescape = {
      {"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}};
  std::vector<Json> decoders = {unescape, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (prefix == SpacePrefix::kAdd) {
    spec.normalizer =
        sequence_step("normalizers", {{{"type", "Prepend"}, {"prepend", kSpaceMark}}, escape});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  } else {
    spec.normalizer = escape;
  }
  spec.decoder = sequence_step("decoders", std::move(decoders));
  spec.byte_fallback = true;
  spec.fuse_unk = true;
}

bool is_end_of_turn_name(std::string_view token) {
  constexpr std::array<std::string_view, 14> kNames = {
      "<|im_end|>", "<|eot_id|>",    "<|eot|>",  "<|eom_id|>",    "<|eom|>",
      "<|end|>",    "<|return|>",    "<|call|>", "<|endoftext|>", "<|end_of_text|>",
      "<|EOT|>",    "<end_of_turn>", "<EOT>",    "</s>"};
  return std::find(kNames.begin(), kNames.end(), token) != kNames.end();
}

}  // namespace quern
