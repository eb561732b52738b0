#include "text/pretokenizer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include <fmt/format.h>

#include "base/function_ref.h"
#include "text/bpe.h"
#include "text/pipeline_json.h"
#include "text/unicode.h"

namespace quern {
namespace {

using StepPointer = std::unique_ptr<const PretokenizerStep>;

constexpr std::array<std::string_view, 11> kKnown = {
    "ByteLevel",        "Split",       "Digits",          "Punctuation",
    "Metaspace",        "Whitespace",  "WhitespaceSplit", "CharDelimiterSplit",
    "BertPreTokenizer", "FixedLength", "Sequence"};

// The expression of GPT-2 (Radford et al. 2019, encoder.py), which ByteLevel applies.
constexpr std::string_view kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Finds matches in one word; calls back with their bounds within the word.
using MatchCallback = FunctionRef<void(size_t begin, size_t end)>;

struct Part {
  TextRange range;
  bool match;
};

// The whole word as matches and the gaps between them; `inverted` swaps the two.
template <typename Find>
void find_parts(std::string_view word, bool inverted, const Find& find, std::vector<Part>& parts) {
  parts.clear();
  size_t previous = 0;
  find(word, [&](size_t begin, size_t end) {
    if (previous != begin) parts.push_back({{previous, begin}, inverted});
    parts.push_back({{begin, end}, !inverted});
    previous = end;
  });
  if (previous != word.size()) parts.push_back({{previous, word.size()}, inverted});
}

// A match joins what stands before it, unless that is a match that did not join either.
void merge_with_previous(std::vector<Part>& parts) {
  std::vector<Part> merged;
  bool previous_match = false;
  for (const Part& part : parts) {
    if (part.match && !previous_match && !merged.empty()) {
      merged.back().range.end = part.range.end;
    } else {
      merged.push_back(part);
    }
    previous_match = part.match;
  }
  parts = std::move(merged);
}

void merge_with_next(std::vector<Part>& parts) {
  std::vector<Part> merged;
  bool previous_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->match && !previous_match && !merged.empty()) {
      merged.back().range.begin = part->range.begin;
    } else {
      merged.push_back(*part);
    }
    previous_match = part->match;
  }
  std::reverse(merged.begin(), merged.end());
  parts = std::move(merged);
}

void merge_contiguous(std::vector<Part>& parts) {
  std::vector<Part> merged;
  for (const Part& part : parts) {
    if (!merged.empty() && merged.back().match == part.match) {
      merged.back().range.end = part.range.end;
    } else {
      merged.push_back(part);
    }
  }
  parts = std::move(merged);
}

void apply_behavior(SplitBehavior behavior, std::vector<Part>& parts) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kRemoved:
      std::erase_if(parts, [](const Part& part) { return part.match; });
      break;
    case SplitBehavior::kMergedWithPrevious:
      merge_with_previous(parts);
      break;
    case SplitBehavior::kMergedWithNext:
      merge_with_next(parts);
      break;
    case SplitBehavior::kContiguous:
      merge_contiguous(parts);
      break;
  }
}

// Splits every word where `find` matches.
template <typename Find>
void split_words(Words& words, SplitBehavior behavior, bool inverted, const Find& find) {
  std::vector<TextRange> ranges;
  ranges.reserve(words.ranges.size());
  std::vector<Part> parts;
  for (const TextRange& range : words.ranges) {
    find_parts(words.word(range), inverted, find, parts);
    apply_behavior(behavior, parts);
    for (const Part& part : parts) {
      if (part.range.begin == part.range.end) continue;
      ranges.push_back({range.begin + part.range.begin, range.begin + part.range.end});
    }
  }
  words.first_is_start =
      words.first_is_start && !ranges.empty() && ranges.front().begin == words.ranges.front().begin;
  words.ranges = std::move(ranges);
}

// Calls back for each code point of `word` that `test` accepts.
template <typename Test>
void match_code_points(std::string_view word, const Test& test, MatchCallback match) {
  for (size_t at = 0; at < word.size();) {
    const DecodedCodePoint c = decode_code_point(word.substr(at));
    if (test(c.value)) match(at, at + c.bytes);
    at += c.bytes;
  }
}

void match_literal(std::string_view word, std::string_view literal, MatchCallback match) {
  if (literal.empty()) return;
  for (size_t at = word.find(literal); at != std::string_view::npos;
       at = word.find(literal, at + literal.size())) {
    match(at, at + literal.size());
  }
}

// Rewrites every word; `rewrite(word, index)` returns its new text.
template <typename Rewrite>
void rewrite_words(Words& words, const Rewrite& rewrite) {
  std::string text;
  text.reserve(words.text.size() + words.ranges.size());
  for (size_t i = 0; i < words.ranges.size(); ++i) {
    const std::string word = rewrite(words.word(words.ranges[i]), i);
    words.ranges[i] = {text.size(), text.size() + word.size()};
    text += word;
  }
  words.text = std::move(text);
}

class ByteLevel final : public PretokenizerStep {
 public:
  ByteLevel(bool add_prefix_space,
            std::optional<PretokenizerExpression> expression,
            ByteMapping mapping)
      : add_prefix_space_(add_prefix_space),
        expression_(std::move(expression)),
        mapping_(mapping) {}

  void apply(Words& words) const override {
    if (add_prefix_space_) {
      rewrite_words(words, [](std::string_view word, size_t) {
        return word.starts_with(' ') ? std::string(word) : " " + std::string(word);
      });
    }
    if (expression_) {
      split_words(words, SplitBehavior::kIsolated, false, [&](std::string_view word, auto match) {
        expression_->for_each_match(word, match);
      });
    }
    if (mapping_ == ByteMapping::kInPlace)
      rewrite_words(words, [](std::string_view word, size_t) { return to_byte_alphabet(word); });
  }

 private:
  bool add_prefix_space_;
  std::optional<PretokenizerExpression> expression_;
  ByteMapping mapping_;
};

class Split final : public PretokenizerStep {
 public:
  Split(TextPattern pattern, SplitBehavior behavior, bool inverted)
      : pattern_(std::move(pattern)), behavior_(behavior), inverted_(inverted) {}

  void apply(Words& words) const override {
    split_words(words, behavior_, inverted_, [&](std::string_view word, auto match) {
      if (pattern_.expression) {
        pattern_.expression->for_each_match(word, match);
      } else {
        match_literal(word, pattern_.literal, match);
      }
    });
  }

 private:
  TextPattern pattern_;
  SplitBehavior behavior_;
  bool inverted_;
};

// Splits at code points of a class.
class SplitAtClass final : public PretokenizerStep {
 public:
  SplitAtClass(bool (*test)(char32_t), SplitBehavior behavior) : test_(test), behavior_(behavior) {}

  void apply(Words& words) const override {
    split_words(words, behavior_, false,
                [&](std::string_view word, auto match) { match_code_points(word, test_, match); });
  }

 private:
  bool (*test_)(char32_t);
  SplitBehavior behavior_;
};

enum class PrependScheme { kAlways, kFirst, kNever };

class Metaspace final : public PretokenizerStep {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  void apply(Words& words) const override {
    const TextPattern space{" ", std::nullopt};
    rewrite_words(words, [&](std::string_view word, size_t index) {
      std::string out = replace_matches(word, space, replacement_);
      const bool prepend = scheme_ == PrependScheme::kAlways ||
                           (scheme_ == PrependScheme::kFirst && index == 0 && words.first_is_start);
      if (prepend && !out.starts_with(replacement_)) out.insert(0, replacement_);
      return out;
    });
    if (!split_) return;
    split_words(
        words, SplitBehavior::kMergedWithNext, false,
        [&](std::string_view word, auto match) { match_literal(word, replacement_, match); });
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class FixedLength final : public PretokenizerStep {
 public:
  explicit FixedLength(size_t length) : length_(length) {}

  void apply(Words& words) const override {
    split_words(words, SplitBehavior::kIsolated, false, [&](std::string_view word, auto match) {
      size_t begin = 0;
      size_t count = 0;
      for (size_t at = 0; at < word.size();) {
        at += decode_code_point(word.substr(at)).bytes;
        if (++count % length_ == 0) {
          match(begin, at);
          begin = at;
        }
      }
    });
  }

 private:
  size_t length_;
};

Error malformed(const JsonObject& object, std::string_view key, std::string_view wanted) {
  return {ErrorCode::kInvalidArgument,
          fmt::format(
              "{}: \"{}\" is {}; {} is needed", object.source(), key,
              object.json().value(key, Json()).dump(-1, ' ', true, Json::error_handler_t::replace),
              wanted)};
}

Result<SplitBehavior> read_behavior(const JsonObject& object, std::optional<std::string> fallback) {
  constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kNames = {
      {{"Removed", SplitBehavior::kRemoved},
       {"Isolated", SplitBehavior::kIsolated},
       {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
       {"MergedWithNext", SplitBehavior::kMergedWithNext},
       {"Contiguous", SplitBehavior::kContiguous}}};
  const std::string name = QUERN_TRY(object.string("behavior", std::move(fallback)));
  for (const auto& [known, behavior] : kNames)
    if (name == known) return behavior;
  return malformed(object, "behavior",
                   "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

Result<StepPointer> make_metaspace(const JsonObject& object) {
  std::string replacement = QUERN_TRY(read_character(object, "replacement", "\xE2\x96\x81"));
  const std::string name = QUERN_TRY(object.string("prepend_scheme", "always"));
  const bool add_prefix_space = QUERN_TRY(object.boolean("add_prefix_space", true));
  const bool split = QUERN_TRY(object.boolean("split", true));
  PrependScheme scheme = PrependScheme::kAlways;
  if (name == "first") {
    scheme = PrependScheme::kFirst;
  } else if (name == "never") {
    scheme = PrependScheme::kNever;
  } else if (name != "always") {
    return malformed(object, "prepend_scheme", "\"always\", \"first\" or \"never\"");
  }
  if (!add_prefix_space) scheme = PrependScheme::kNever;
  return StepPointer(std::make_unique<Metaspace>(std::move(replacement), scheme, split));
}

Result<StepPointer> make_byte_level(const JsonObject& object, ByteMapping mapping) {
  const bool add_prefix_space = QUERN_TRY(object.boolean("add_prefix_space", true));
  const bool use_regex = QUERN_TRY(object.boolean("use_regex", true));
  std::optional<PretokenizerExpression> expression;
  if (use_regex)
    expression = QUERN_TRY(PretokenizerExpression::compile(kGpt2Expression, object.source()));
  return StepPointer(std::make_unique<ByteLevel>(add_prefix_space, std::move(expression), mapping));
}

Result<StepPointer> make_split(const JsonObject& object) {
  TextPattern pattern = QUERN_TRY(read_pattern(object));
  const SplitBehavior behavior = QUERN_TRY(read_behavior(object, std::nullopt));
  const bool inverted = QUERN_TRY(object.boolean("invert", false));
  return StepPointer(std::make_unique<Split>(std::move(pattern), behavior, inverted));
}

Result<StepPointer> make_character_delimiter(const JsonObject& object) {
  TextPattern pattern{QUERN_TRY(read_character(object, "delimiter")), std::nullopt};
  return StepPointer(std::make_unique<Split>(std::move(pattern), SplitBehavior::kRemoved, false));
}

Result<StepPointer> make_digits(const JsonObject& object) {
  const bool individual = QUERN_TRY(object.boolean("individual_digits", false));
  return StepPointer(std::make_unique<SplitAtClass>(
      is_numeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
}

// Appends the steps of one object; most are one step.
Result<Unit> append_steps(const Json& value,
                          const std::string& source,
                          ByteMapping mapping,
                          std::vector<StepPointer>& steps) {
  const JsonObject object(value, source);
  const std::string type = QUERN_TRY(object.string("type"));
  const auto at_class = [&](bool (*test)(char32_t), SplitBehavior behavior) {
    steps.push_back(std::make_unique<SplitAtClass>(test, behavior));
  };
  if (type == "ByteLevel") {
    steps.push_back(QUERN_TRY(make_byte_level(object, mapping)));
  } else if (type == "Split") {
    steps.push_back(QUERN_TRY(make_split(object)));
  } else if (type == "Metaspace") {
    steps.push_back(QUERN_TRY(make_metaspace(object)));
  } else if (type == "Digits") {
    steps.push_back(QUERN_TRY(make_digits(object)));
  } else if (type == "Punctuation") {
    at_class(is_punctuation, QUERN_TRY(read_behavior(object, "Isolated")));
  } else if (type == "WhitespaceSplit") {
    at_class(is_white_space, SplitBehavior::kRemoved);
  } else if (type == "BertPreTokenizer") {
    at_class(is_white_space, SplitBehavior::kRemoved);
    at_class(is_punctuation, SplitBehavior::kIsolated);
  } else if (type == "Whitespace") {
    at_class(is_white_space, SplitBehavior::kRemoved);
    at_class(is_word_character, SplitBehavior::kContiguous);
  } else if (type == "CharDelimiterSplit") {
    steps.push_back(QUERN_TRY(make_character_delimiter(object)));
  } else if (type == "FixedLength") {
    const int64_t length = QUERN_TRY(object.integer("length", 5, 1));
    steps.push_back(std::make_unique<FixedLength>(static_cast<size_t>(length)));
  } else {
    return unknown_type(source, type, kKnown);
  }
  return Unit{};
}

bool is_byte_level(const Json& step) { return step["type"] == "ByteLevel"; }

}  // namespace

Result<bool> Pretokenizer::ends_with_byte_level(const Json& value, const std::string& source) {
  const std::vector<const Json*> steps =
      QUERN_TRY(flatten_sequence(value, "pretokenizers", source));
  return !steps.empty() && is_byte_level(*steps.back());
}

Result<Pretokenizer> Pretokenizer::from_json(const Json& value,
                                             const std::string& source,
                                             ByteMapping mapping) {
  Pretokenizer pretokenizer;
  const std::vector<const Json*> steps =
      QUERN_TRY(flatten_sequence(value, "pretokenizers", source));
  for (const Json* step : steps) {
    QUERN_TRY(append_steps(*step, source, step == steps.back() ? mapping : ByteMapping::kInPlace,
                           pretokenizer.steps_));
  }
  return pretokenizer;
}

}  // namespace quern
