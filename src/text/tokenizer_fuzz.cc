// Fuzzes the readers of tokenizers and what encodes with them. The input is a vocabulary file, a
// zero byte and a text; the file is taken as tokenizer.json, or by its first byte as a
// SentencePiece model ('S' before it) or a tiktoken file ('T').
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/check.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace {

using namespace quern;

Result<std::unique_ptr<Tokenizer>> read(std::string_view file) {
  if (file.starts_with('S')) return Tokenizer::from_sentencepiece(file.substr(1), "fuzz");
  if (file.starts_with('T')) return Tokenizer::from_tiktoken(file.substr(1), "fuzz");
  return Tokenizer::from_json(file, "fuzz");
}

void use(const Tokenizer& tokenizer, std::string_view text) {
  const TextSegment segments[] = {{text.substr(0, text.size() / 2), SpecialTokens::kParse},
                                  {text.substr(text.size() / 2), SpecialTokens::kAsText}};
  for (const auto& ids :
       {tokenizer.encode(text, SpecialTokens::kParse),
        tokenizer.encode(text, SpecialTokens::kAsText), tokenizer.encode(segments)}) {
    Detokenizer stream(tokenizer, TextPosition::kStart);
    std::string streamed;
    for (const int32_t id : ids) {
      QUERN_CHECK(id >= 0 && id < tokenizer.vocabulary_size());
      streamed += stream.push(id);
      QUERN_CHECK(is_valid_utf8(streamed));
    }
    streamed += stream.finish();
    QUERN_CHECK(is_valid_utf8(streamed));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // A SentencePiece model holds zero bytes itself: there the text follows the last one.
  const size_t zero = input.starts_with('S') ? input.rfind('\0') : input.find('\0');
  const bool whole = zero == std::string_view::npos;
  const auto tokenizer = read(input.substr(0, whole ? input.size() : zero));
  if (!tokenizer) {
    QUERN_CHECK(is_valid_utf8(tokenizer.error().message));
    return 0;
  }
  use(**tokenizer, whole ? std::string_view() : input.substr(zero + 1));
  const auto copy = Tokenizer::from_json((*tokenizer)->to_json(), "copy");
  QUERN_CHECK(copy.has_value());
  return 0;
}
