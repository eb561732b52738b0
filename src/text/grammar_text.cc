#include "text/grammar_text.h"

#include <algorithm>

#include <fmt/format.h>

#include "text/unicode.h"

namespace quern {
namespace {

constexpr char32_t kLast = 0x10FFFF;
constexpr char32_t kSurrogatesBegin = 0xD800;
constexpr char32_t kSurrogatesEnd = 0xE000;

size_t utf8_length(char32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

// Cuts ranges of code points into products of byte ranges.
class Utf8Ranges {
 public:
  explicit Utf8Ranges(Expressions& out) : out_(out) {}

  void add(char32_t low, char32_t high) {
    for (const char32_t border : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}}) {
      if (low <= border && border < high) {
        add(low, border);
        low = border + 1;
      }
    }
    if (high < 0x80) {
      for (char32_t c = low; c <= high; ++c) ascii_.set(c);
    } else {
      split(low, high);
    }
  }

  ExpressionId result() {
    branches_.push_back(out_.bytes(ascii_));
    return out_.choice(std::move(branches_));
  }

 private:
  // Both ends have the same length in UTF-8.
  void split(char32_t low, char32_t high) {
    const size_t bytes = utf8_length(low);
    for (size_t i = 1; i < bytes; ++i) {
      const char32_t tail = (char32_t{1} << (6 * i)) - 1;  // bits of the last i bytes
      if ((low & ~tail) == (high & ~tail)) continue;
      if ((low & tail) != 0) {
        split(low, low | tail);
        return split((low | tail) + 1, high);
      }
      if ((high & tail) != tail) {
        split(low, (high & ~tail) - 1);
        return split(high & ~tail, high);
      }
    }
    std::string first;
    std::string last;
    append_code_point(low, first);
    append_code_point(high, last);
    std::vector<ExpressionId> parts;
    for (size_t i = 0; i < bytes; ++i) {
      parts.push_back(
          out_.byte_range(static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i])));
    }
    branches_.push_back(out_.sequence(std::move(parts)));
  }

  Expressions& out_;
  ByteSet ascii_;
  std::vector<ExpressionId> branches_;
};

// Every code point beyond ASCII, parts shared so that the automaton has one state for each number
// of bytes still to come (RFC 3629, section 4).
ExpressionId beyond_ascii(Expressions& out) {
  const ExpressionId tail = out.byte_range(0x80, 0xBF);
  const auto lead = [&](uint8_t first, uint8_t low, uint8_t high) {
    return out.sequence({out.byte_range(first, first), out.byte_range(low, high)});
  };
  const ExpressionId four = out.sequence(
      {out.choice({lead(0xF0, 0x90, 0xBF), out.sequence({out.byte_range(0xF1, 0xF3), tail}),
                   lead(0xF4, 0x80, 0x8F)}),
       tail});
  const ExpressionId three =
      out.choice({lead(0xE0, 0xA0, 0xBF), out.sequence({out.byte_range(0xE1, 0xEC), tail}),
                  lead(0xED, 0x80, 0x9F), out.sequence({out.byte_range(0xEE, 0xEF), tail})});
  return out.sequence({out.choice({out.byte_range(0xC2, 0xDF), three, four}), tail});
}

bool needs_escape(char32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

}  // namespace

CodePointSet CodePointSet::all() {
  CodePointSet set;
  set.add(0, kLast);
  return set;
}

void CodePointSet::add(const CodePointSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
}

std::vector<std::pair<char32_t, char32_t>> CodePointSet::ranges() const {
  std::vector<std::pair<char32_t, char32_t>> sorted;
  for (const auto& [low, high] : ranges_) {
    if (low < kSurrogatesBegin)
      sorted.emplace_back(low, std::min<char32_t>(high, kSurrogatesBegin - 1));
    if (high >= kSurrogatesEnd) sorted.emplace_back(std::max(low, kSurrogatesEnd), high);
  }
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::pair<char32_t, char32_t>> out;
  for (const auto& [low, high] : sorted) {
    if (!out.empty() && low <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, high);
    } else {
      out.emplace_back(low, high);
    }
  }
  return out;
}

CodePointSet CodePointSet::complement() const {
  CodePointSet out;
  char32_t next = 0;
  for (const auto& [low, high] : ranges()) {
    if (next < low) out.add(next, low - 1);
    next = high + 1;
  }
  if (next <= kLast) out.add(next, kLast);
  return out;
}

bool CodePointSet::contains(char32_t c) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const auto& r) { return r.first <= c && c <= r.second; });
}

std::string encode_code_point(char32_t c, TextEncoding encoding) {
  std::string out;
  if (encoding == TextEncoding::kPlain || !needs_escape(c)) {
    append_code_point(c, out);
    return out;
  }
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  }
}

ExpressionId encode_set(const CodePointSet& set, TextEncoding encoding, Expressions& out) {
  Utf8Ranges ranges(out);
  std::vector<ExpressionId> branches;
  std::vector<std::pair<char32_t, char32_t>> beyond;
  for (auto [low, high] : set.ranges()) {
    for (; low <= high && low < 0x80; ++low) {
      if (encoding == TextEncoding::kJsonString && needs_escape(low)) {
        branches.push_back(out.literal(encode_code_point(low, encoding)));
      } else {
        ranges.add(low, low);
      }
    }
    if (low <= high) beyond.emplace_back(low, high);
  }
  const bool all_beyond = beyond.size() == 2 && beyond[0].first == 0x80 &&
                          beyond[0].second == kSurrogatesBegin - 1 &&
                          beyond[1].first == kSurrogatesEnd && beyond[1].second == kLast;
  if (all_beyond) {
    branches.push_back(beyond_ascii(out));
  } else {
    for (const auto& [low, high] : beyond) ranges.add(low, high);
  }
  branches.push_back(ranges.result());
  return out.choice(std::move(branches));
}

}  // namespace quern
