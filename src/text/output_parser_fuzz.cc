// Fuzzes the output parser: a text gives the same result fed whole, byte by byte and in pieces. The
// first byte chooses dialect and reasoning, the second where the text is cut.
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "text/output_parser_testing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;
  if (size < 2) return 0;
  const OutputDialect dialect = {static_cast<ToolDialect>(data[0] % 5),
                                 static_cast<ReasoningStyle>(data[0] / 5 % 3)};
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  std::vector<std::string_view> bytes;
  std::vector<std::string_view> pieces;
  for (size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
  for (size_t at = 0; at < text.size();) {
    const size_t length = 1 + random_bits(data[1], 0, at) % 16;
    pieces.push_back(text.substr(at, length));
    at += length;
  }
  const auto whole = parse_pieces(dialect, {text});
  QUERN_CHECK(parse_pieces(dialect, bytes) == whole);
  QUERN_CHECK(parse_pieces(dialect, pieces) == whole);
  int32_t calls = 0;
  size_t said = 0;
  for (const OutputDelta& delta : whole) {
    if (delta.kind == OutputKind::kToolBegin) QUERN_CHECK(delta.index == calls++);
    if (delta.kind == OutputKind::kToolArguments) QUERN_CHECK(delta.index == calls - 1);
    QUERN_CHECK(!delta.text.empty());
    said += delta.text.size();
  }
  QUERN_CHECK(said <= text.size() + 2 * static_cast<size_t>(calls));  // "{}" of calls without any
  return 0;
}
