#include "text/normalizer.h"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/function_ref.h"
#include "text/bpe.h"
#include "text/pipeline_json.h"
#include "text/unicode.h"

namespace quern {
namespace {

using StepPointer = std::unique_ptr<const NormalizerStep>;

constexpr std::array<std::string_view, 13> kKnown = {
    "NFC",     "NFD",     "NFKC", "NFKD",      "Lowercase",           "Strip",   "StripAccents",
    "Replace", "Prepend", "Nmt",  "ByteLevel", "Precompiled (empty)", "Sequence"};

class UnicodeForm final : public NormalizerStep {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}

  void apply(std::string& text) const override { text = normalize_unicode(text, form_); }

 private:
  NormalForm form_;
};

class Lowercase final : public NormalizerStep {
 public:
  void apply(std::string& text) const override { text = lowercase_unicode(text); }
};

class ToByteAlphabet final : public NormalizerStep {
 public:
  void apply(std::string& text) const override { text = to_byte_alphabet(text); }
};

class Strip final : public NormalizerStep {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}

  void apply(std::string& text) const override {
    std::string_view rest = text;
    while (left_ && !rest.empty() && is_white_space(decode_code_point(rest).value))
      rest.remove_prefix(decode_code_point(rest).bytes);
    while (right_ && !rest.empty() && is_white_space(decode_last_code_point(rest).value))
      rest.remove_suffix(decode_last_code_point(rest).bytes);
    text = std::string(rest);
  }

 private:
  bool left_, right_;
};

class Replace final : public NormalizerStep {
 public:
  Replace(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void apply(std::string& text) const override { text = replace_matches(text, pattern_, content_); }

 private:
  TextPattern pattern_;
  std::string content_;
};

class Prepend final : public NormalizerStep {
 public:
  explicit Prepend(std::string content) : content_(std::move(content)) {}

  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, content_);
  }

 private:
  std::string content_;
};

constexpr char32_t kVanished = ~char32_t{0};

// A map of single code points: each stays, becomes another or kVanished.
class PerCodePoint final : public NormalizerStep {
 public:
  explicit PerCodePoint(char32_t (*map)(char32_t)) : map_(map) {}

  void apply(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const DecodedCodePoint c = decode_code_point(std::string_view(text).substr(at));
      const char32_t mapped = map_(c.value);
      if (mapped != kVanished) append_code_point(mapped, out);
      at += c.bytes;
    }
    text = std::move(out);
  }

 private:
  char32_t (*map_)(char32_t);
};

char32_t strip_accents(char32_t c) { return is_mark(c) ? kVanished : c; }

// SentencePiece's "nmt" rules: controls vanish, odd white space becomes a space.
char32_t nmt(char32_t c) {
  if ((c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
      c == 0x9F) {
    return kVanished;
  }
  const bool space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
  return space ? ' ' : c;
}

Result<StepPointer> make_step(const Json& value, const std::string& source) {
  const JsonObject object(value, source);
  const std::string type = QUERN_TRY(object.string("type"));
  constexpr std::array<std::pair<std::string_view, NormalForm>, 4> kForms = {
      {{"NFC", NormalForm::kNfc},
       {"NFD", NormalForm::kNfd},
       {"NFKC", NormalForm::kNfkc},
       {"NFKD", NormalForm::kNfkd}}};
  for (const auto& [name, form] : kForms)
    if (type == name) return StepPointer(std::make_unique<UnicodeForm>(form));
  if (type == "Lowercase") return StepPointer(std::make_unique<Lowercase>());
  if (type == "StripAccents") return StepPointer(std::make_unique<PerCodePoint>(strip_accents));
  if (type == "Nmt") return StepPointer(std::make_unique<PerCodePoint>(nmt));
  if (type == "ByteLevel") return StepPointer(std::make_unique<ToByteAlphabet>());
  if (type == "Strip") {
    const bool left = QUERN_TRY(object.boolean("strip_left", true));
    const bool right = QUERN_TRY(object.boolean("strip_right", true));
    return StepPointer(std::make_unique<Strip>(left, right));
  }
  if (type == "Replace") {
    TextPattern pattern = QUERN_TRY(read_pattern(object));
    std::string content = QUERN_TRY(object.string("content"));
    return StepPointer(std::make_unique<Replace>(std::move(pattern), std::move(content)));
  }
  if (type == "Prepend") {
    std::string content = QUERN_TRY(object.string("prepend"));
    return StepPointer(std::make_unique<Prepend>(std::move(content)));
  }
  if (type == "Precompiled") {  // without a map it changes nothing
    const std::string map = QUERN_TRY(object.string("precompiled_charsmap", std::string()));
    if (map.empty()) return StepPointer();
  }
  return unknown_type(source, type, kKnown);
}

}  // namespace

Result<Normalizer> Normalizer::from_json(const Json& value, const std::string& source) {
  Normalizer normalizer;
  for (const Json* step : QUERN_TRY(flatten_sequence(value, "normalizers", source))) {
    StepPointer made = QUERN_TRY(make_step(*step, source));
    if (made) normalizer.steps_.push_back(std::move(made));
  }
  return normalizer;
}

}  // namespace quern
