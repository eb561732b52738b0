#include "text/tokenizer_decoder.h"

#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pipeline_json.h"

namespace quern {
namespace {

constexpr std::array<std::string_view, 7> kKnown = {
    "ByteLevel", "ByteFallback", "Metaspace", "Replace", "Strip", "Fuse", "Sequence"};

class FromByteAlphabet final : public TokenDecoderStep {
 public:
  void apply(std::string& token) const override {
    if (auto bytes = from_byte_alphabet(token)) token = std::move(*bytes);
  }
};

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

class FromByteFallback final : public TokenDecoderStep {
 public:
  void apply(std::string& token) const override {  // <0xHH>
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return;
    const int high = hex_digit(token[3]);
    const int low = hex_digit(token[4]);
    if (high >= 0 && low >= 0) token = std::string(1, static_cast<char>(high * 16 + low));
  }
};

class ReplaceInToken final : public TokenDecoderStep {
 public:
  ReplaceInToken(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void apply(std::string& token) const override {
    token = replace_matches(token, pattern_, content_);
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

class StripToken final : public TokenDecoderStep {
 public:
  StripToken(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}

  void apply(std::string& token) const override {
    std::string_view rest = token;
    for (size_t i = 0; i < start_ && rest.starts_with(content_); ++i)
      rest.remove_prefix(content_.size());
    for (size_t i = 0; i < stop_ && rest.ends_with(content_); ++i)
      rest.remove_suffix(content_.size());
    token = std::string(rest);
  }

 private:
  std::string content_;
  size_t start_, stop_;
};

}  // namespace

class TokenDecoderBuilder {
 public:
  Result<Unit> add(const Json& value, const std::string& source) {
    const JsonObject object(value, source);
    const std::string type = QUERN_TRY(object.string("type"));
    if (bytes_made_ && type != "Fuse" && type != "Strip") {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: \"{}\" behind a step that makes bytes", source, type)};
    }
    if (type == "ByteLevel") {
      decoder_.steps_.push_back(std::make_unique<FromByteAlphabet>());
      bytes_made_ = true;
    } else if (type == "ByteFallback") {
      decoder_.steps_.push_back(std::make_unique<FromByteFallback>());
      bytes_made_ = true;
    } else if (type == "Metaspace") {
      QUERN_TRY(add_metaspace(object));
    } else if (type == "Replace") {
      TextPattern pattern = QUERN_TRY(read_pattern(object));
      std::string content = QUERN_TRY(object.string("content"));
      decoder_.steps_.push_back(
          std::make_unique<ReplaceInToken>(std::move(pattern), std::move(content)));
    } else if (type == "Strip") {
      QUERN_TRY(add_strip(object));
    } else if (type == "Fuse") {
      fused_ = true;
      bytes_made_ = true;
    } else {
      return unknown_type(source, type, kKnown);
    }
    return Unit{};
  }

  TokenDecoder take() { return std::move(decoder_); }

 private:
  Result<Unit> add_metaspace(const JsonObject& object) {
    const std::string replacement =
        QUERN_TRY(read_character(object, "replacement", "\xE2\x96\x81"));
    const std::string scheme = QUERN_TRY(object.string("prepend_scheme", "always"));
    const bool add_prefix_space = QUERN_TRY(object.boolean("add_prefix_space", true));
    decoder_.steps_.push_back(
        std::make_unique<ReplaceInToken>(TextPattern{replacement, std::nullopt}, " "));
    if (scheme != "never" && add_prefix_space) {
      decoder_.start_strip_ = " ";
      decoder_.start_strip_max_ = 0;
    }
    return Unit{};
  }

  Result<Unit> add_strip(const JsonObject& object) {
    constexpr int64_t kMaxCount = 1 << 16;
    std::string content = QUERN_TRY(read_character(object, "content"));
    const auto start = static_cast<size_t>(QUERN_TRY(object.integer("start", 0, 0, kMaxCount)));
    const auto stop = static_cast<size_t>(QUERN_TRY(object.integer("stop", 0, 0, kMaxCount)));
    if (!fused_) {
      decoder_.steps_.push_back(std::make_unique<StripToken>(std::move(content), start, stop));
      return Unit{};
    }
    if (stop != 0 || !decoder_.start_strip_.empty()) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: \"Strip\" at the end of the text, or a second one behind Fuse",
                               object.source())};
    }
    if (start == 0) return Unit{};
    decoder_.start_strip_ = std::move(content);
    decoder_.start_strip_max_ = start;
    return Unit{};
  }

  TokenDecoder decoder_;
  bool fused_ = false;
  bool bytes_made_ = false;
};

Result<TokenDecoder> TokenDecoder::from_json(const Json& value, const std::string& source) {
  TokenDecoderBuilder builder;
  for (const Json* step : QUERN_TRY(flatten_sequence(value, "decoders", source)))
    QUERN_TRY(builder.add(*step, source));
  return builder.take();
}

std::string TokenDecoder::bytes(std::string_view token) const {
  std::string text(token);
  for (const auto& step : steps_) step->apply(text);
  return text;
}

std::string_view TokenDecoder::strip_start(std::string_view text, size_t first_bytes) const {
  if (start_strip_.empty()) return text;
  const size_t max = start_strip_max_ == 0 ? first_bytes : start_strip_max_;
  const size_t limit = start_strip_max_ == 0 ? first_bytes : text.size();
  size_t taken = 0;
  for (size_t i = 0; i < max && taken + start_strip_.size() <= limit &&
                     text.substr(taken).starts_with(start_strip_);
       ++i) {
    taken += start_strip_.size();
  }
  return text.substr(taken);
}

}  // namespace quern
