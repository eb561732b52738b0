#include "text/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_spec.h"
#include "text/tokenizer_template.h"
#include "text/tokenizer_write.h"
#include "text/unicode.h"

namespace quern {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

// Which special tokens count in a text.
enum class SpecialScope {
  kEverywhere,
  kNowhere,
  kInRanges,  // only where they lie within one of the ranges of the text
};

struct PreparedText {
  std::string text;  // valid UTF-8
  SpecialScope scope = SpecialScope::kNowhere;
  std::vector<TextRange> ranges;
};

// Whether some merge joins anything with a following "▁". Without one, a word may be cut before
// each "▁" that begins a run and its parts encoded alone.
bool merges_cross_space_mark(const TokenizerSpec& spec) {
  for (const Merge& merge : spec.merges) {
    const std::string_view token = spec.vocabulary.token(merge.result);
    for (size_t at = token.find(kSpaceMark, 1); at != std::string_view::npos;
         at = token.find(kSpaceMark, at + 1)) {
      if (!token.substr(0, at).ends_with(kSpaceMark)) return true;
    }
  }
  return false;
}

}  // namespace

struct TokenizerData {
  TokenizerSpec spec;
  Normalizer normalizer;
  Pretokenizer pretokenizer;
  TokenDecoder decoder;
  TextTemplate text_template;
  std::unique_ptr<const Bpe> bpe;
  AddedTokenMatcher raw;         // added tokens as they are written; indices into spec.added
  AddedTokenMatcher normalized;  // those sought in normalised text, normalised
  std::unordered_map<std::string_view, size_t> added_by_content;
  std::unordered_map<int32_t, size_t> added_by_id;
  std::vector<bool> special;          // by id
  std::string bytes;                  // of all tokens, one after another
  std::vector<uint64_t> byte_bounds;  // by id, and one more
  bool cut_at_space_mark = false;
};

namespace {

Result<Unit> add_added_tokens(TokenizerData& data) {
  TokenizerSpec& spec = data.spec;
  int32_t size = spec.vocabulary.size();
  for (size_t i = 0; i < spec.added.size(); ++i) {
    const AddedToken& added = spec.added[i];
    if (added.content.empty() || added.content.size() > kMaxAddedTokenBytes) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: added token {} has {} bytes; 1 to {} are allowed", spec.source,
                               added.id, added.content.size(), kMaxAddedTokenBytes)};
    }
    size = std::max(size, added.id + 1);
    const auto index = static_cast<int32_t>(i);
    data.raw.add(index, added.content);
    if (added.normalized) {
      std::string content = added.content;
      data.normalizer.apply(content);
      data.normalized.add(index, content);
    }
    data.added_by_content.emplace(added.content, i);
    data.added_by_id.emplace(added.id, i);
  }
  data.special.resize(static_cast<size_t>(size));
  for (const AddedToken& added : spec.added)
    if (added.special) data.special[static_cast<size_t>(added.id)] = true;
  return Unit{};
}

void decode_vocabulary(TokenizerData& data) {
  const auto size = static_cast<int32_t>(data.special.size());
  data.byte_bounds.reserve(data.special.size() + 1);
  data.byte_bounds.push_back(0);
  for (int32_t id = 0; id < size; ++id) {
    std::string text(data.spec.vocabulary.token(id));
    if (const auto found = data.added_by_id.find(id); found != data.added_by_id.end()) {
      const AddedToken& added = data.spec.added[found->second];
      text = added.content;
      if (added.normalized) data.normalizer.apply(text);
    }
    data.bytes += data.decoder.bytes(text);
    data.byte_bounds.push_back(data.bytes.size());
  }
}

Result<BpeOptions> bpe_options(const TokenizerSpec& spec, BpeAlphabet alphabet) {
  BpeOptions options;
  options.alphabet = alphabet;
  options.ignore_merges = spec.ignore_merges;
  options.byte_fallback = spec.byte_fallback;
  options.fuse_unknown = spec.fuse_unk;
  options.continuing_prefix = spec.continuing_prefix;
  options.end_suffix = spec.end_suffix;
  if (spec.unk_token) {
    options.unknown = spec.vocabulary.find(*spec.unk_token);
    if (!options.unknown) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: model.unk_token \"{}\" is not in the vocabulary", spec.source,
                               *spec.unk_token)};
    }
  }
  return options;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_tokenizer(TokenizerSpec spec) {
  auto data = std::make_unique<TokenizerData>();
  data->spec = std::move(spec);
  TokenizerSpec& s = data->spec;
  const std::string pre_source = s.source + " pre_tokenizer";
  const bool bytes_last =
      QUERN_TRY(Pretokenizer::ends_with_byte_level(s.pre_tokenizer, pre_source));
  const bool raw_bytes = bytes_last && has_byte_alphabet(s.vocabulary) &&
                         s.continuing_prefix.empty() && s.end_suffix.empty();
  data->normalizer = QUERN_TRY(Normalizer::from_json(s.normalizer, s.source + " normalizer"));
  data->pretokenizer = QUERN_TRY(Pretokenizer::from_json(
      s.pre_tokenizer, pre_source, raw_bytes ? ByteMapping::kDeferred : ByteMapping::kInPlace));
  data->decoder = QUERN_TRY(TokenDecoder::from_json(s.decoder, s.source + " decoder"));
  data->text_template =
      QUERN_TRY(TextTemplate::from_json(s.post_processor, s.source + " post_processor"));
  BpeOptions options =
      QUERN_TRY(bpe_options(s, raw_bytes ? BpeAlphabet::kBytes : BpeAlphabet::kCharacters));
  data->cut_at_space_mark = options.alphabet == BpeAlphabet::kCharacters && !s.ignore_merges &&
                            s.continuing_prefix.empty() && s.end_suffix.empty() &&
                            s.vocabulary.find(kSpaceMark) && !merges_cross_space_mark(s);
  data->bpe = std::make_unique<const Bpe>(s.vocabulary, s.merges, std::move(options));
  QUERN_TRY(add_added_tokens(*data));
  decode_vocabulary(*data);
  if (!s.bos && data->text_template.before.size() == 1) s.bos = data->text_template.before.front();
  for (size_t i = 0; s.eos.empty() && i < s.added.size(); ++i)
    if (s.added[i].special && is_end_of_turn_name(s.added[i].content)) s.eos = {s.added[i].id};
  return std::make_unique<Tokenizer>(std::move(data));
}

namespace {

// Encodes one text; lives for one call.
class Encoder {
 public:
  Encoder(const TokenizerData& data, const PreparedText& prepared, std::vector<int32_t>& ids)
      : data_(data), prepared_(prepared), ids_(ids) {}

  void encode() {
    const auto in_raw_text = [this](int32_t index, size_t begin, size_t end) {
      const AddedToken& added = token(index);
      if (prepared_.scope == SpecialScope::kInRanges && added.special) return in_range(begin, end);
      return !added.normalized;
    };
    split(prepared_.text, data_.raw, in_raw_text, [this](size_t begin, size_t end) {
      encode_section(prepared_.text.substr(begin, end - begin), begin == 0);
    });
  }

 private:
  const AddedToken& token(int32_t index) const {
    return data_.spec.added[static_cast<size_t>(index)];
  }

  bool in_range(size_t begin, size_t end) const {
    const auto after = std::upper_bound(prepared_.ranges.begin(), prepared_.ranges.end(), begin,
                                        [](size_t at, const TextRange& r) { return at < r.begin; });
    return after != prepared_.ranges.begin() && end <= std::prev(after)->end;
  }

  // Emits the added tokens of `text` and hands what lies between them to `section`.
  template <typename Allowed, typename Section>
  void split(std::string_view text,
             const AddedTokenMatcher& matcher,
             const Allowed& allowed,
             const Section& section) {
    size_t done = 0;
    size_t from = 0;
    while (!matcher.empty()) {
      const AddedTokenMatcher::Match match = matcher.find(text, from, allowed);
      if (match.index < 0) break;
      from = match.end;
      const AddedToken& added = token(match.index);
      if (prepared_.scope == SpecialScope::kNowhere && added.special) continue;
      if (added.single_word && !stands_alone(text, match)) continue;
      const size_t begin =
          added.lstrip ? std::max(done, skip_space_before(text, match.begin)) : match.begin;
      if (done < begin) section(done, begin);
      ids_.push_back(added.id);
      done = added.rstrip ? skip_space_behind(text, match.end) : match.end;
      from = std::max(from, done);
    }
    if (done < text.size()) section(done, text.size());
  }

  static bool stands_alone(std::string_view text, const AddedTokenMatcher::Match& match) {
    const std::string_view before = text.substr(0, match.begin);
    const std::string_view behind = text.substr(match.end);
    return (before.empty() || !is_word_character(decode_last_code_point(before).value)) &&
           (behind.empty() || !is_word_character(decode_code_point(behind).value));
  }

  static size_t skip_space_before(std::string_view text, size_t at) {
    while (at > 0) {
      const DecodedCodePoint c = decode_last_code_point(text.substr(0, at));
      if (!is_white_space(c.value)) break;
      at -= c.bytes;
    }
    return at;
  }

  static size_t skip_space_behind(std::string_view text, size_t at) {
    while (at < text.size()) {
      const DecodedCodePoint c = decode_code_point(text.substr(at));
      if (!is_white_space(c.value)) break;
      at += c.bytes;
    }
    return at;
  }

  void encode_section(std::string text, bool at_start) {
    data_.normalizer.apply(text);
    const auto in_normalized_text = [this](int32_t index, size_t, size_t) {
      return prepared_.scope != SpecialScope::kInRanges || !token(index).special;
    };
    split(text, data_.normalized, in_normalized_text, [&](size_t begin, size_t end) {
      const bool whole = begin == 0 && end == text.size();
      encode_words(whole ? std::move(text) : text.substr(begin, end - begin),
                   at_start && begin == 0);
    });
  }

  void encode_words(std::string text, bool at_start) {
    Words words;
    words.ranges = {{0, text.size()}};
    words.text = std::move(text);
    words.first_is_start = at_start;
    data_.pretokenizer.apply(words);
    for (const TextRange& range : words.ranges) {
      if (data_.cut_at_space_mark) {
        encode_cut(words.word(range));
      } else {
        data_.bpe->encode(words.word(range), ids_);
      }
    }
  }

  // Encodes a word cut before each run of "▁".
  void encode_cut(std::string_view word) {
    size_t begin = 0;
    for (size_t at = word.find(kSpaceMark); at != std::string_view::npos;
         at = word.find(kSpaceMark, at + kSpaceMark.size())) {
      if (at == begin || word.substr(0, at).ends_with(kSpaceMark)) continue;
      data_.bpe->encode(word.substr(begin, at - begin), ids_);
      begin = at;
    }
    data_.bpe->encode(word.substr(begin), ids_);
  }

  const TokenizerData& data_;
  const PreparedText& prepared_;
  std::vector<int32_t>& ids_;
};

std::string clean(std::string_view text) {
  return is_valid_utf8(text) ? std::string(text) : replace_invalid_utf8(text);
}

SpecialScope scope_of(SpecialTokens special) {
  return special == SpecialTokens::kParse ? SpecialScope::kEverywhere : SpecialScope::kNowhere;
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<TokenizerData> data) : data_(std::move(data)) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  const TextSegment segment{text, special};
  return encode(std::span(&segment, 1));
}

std::vector<int32_t> Tokenizer::encode(std::span<const TextSegment> segments) const {
  PreparedText prepared;
  prepared.scope = segments.size() == 1 ? scope_of(segments[0].special) : SpecialScope::kInRanges;
  for (const TextSegment& segment : segments) {
    const size_t begin = prepared.text.size();
    prepared.text += clean(segment.text);
    if (segment.special == SpecialTokens::kParse)
      prepared.ranges.push_back({begin, prepared.text.size()});
  }
  std::vector<int32_t> ids;
  ids.reserve(prepared.text.size() / 4 + 1);
  Encoder(*data_, prepared, ids).encode();
  return ids;
}

std::vector<int32_t> Tokenizer::encode_with_template(std::string_view text,
                                                     SpecialTokens special) const {
  std::vector<int32_t> ids = data_->text_template.before;
  const std::vector<int32_t> inner = encode(text, special);
  ids.insert(ids.end(), inner.begin(), inner.end());
  const std::vector<int32_t>& after = data_->text_template.after;
  ids.insert(ids.end(), after.begin(), after.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids,
                              SpecialOutput special,
                              TextPosition position) const {
  std::string out;
  size_t first_bytes = 0;
  for (const int32_t id : ids) {
    if (special == SpecialOutput::kSkip && is_special(id)) continue;
    out += token_bytes(id);
    if (first_bytes == 0) first_bytes = out.size();
  }
  if (position == TextPosition::kStart && data_->decoder.strips_start())
    return std::string(data_->decoder.strip_start(out, first_bytes));
  return out;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) return {};
  const auto at = static_cast<size_t>(id);
  const uint64_t begin = data_->byte_bounds[at];
  return std::string_view(data_->bytes).substr(begin, data_->byte_bounds[at + 1] - begin);
}

std::string_view Tokenizer::token(int32_t id) const {
  const auto found = data_->added_by_id.find(id);
  if (found != data_->added_by_id.end()) return data_->spec.added[found->second].content;
  return data_->spec.vocabulary.token(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocabulary_size() && data_->special[static_cast<size_t>(id)];
}

int32_t Tokenizer::vocabulary_size() const { return static_cast<int32_t>(data_->special.size()); }

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  const auto found = data_->added_by_content.find(token);
  if (found != data_->added_by_content.end()) return data_->spec.added[found->second].id;
  return data_->spec.vocabulary.find(token);
}

std::optional<int32_t> Tokenizer::bos_id() const { return data_->spec.bos; }

const std::vector<int32_t>& Tokenizer::eos_ids() const { return data_->spec.eos; }

std::string Tokenizer::to_json() const { return write_tokenizer_json(data_->spec); }

std::string Tokenizer::to_config_json(std::string_view chat_template) const {
  return write_tokenizer_config_json(data_->spec, chat_template);
}

}  // namespace quern
