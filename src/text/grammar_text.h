// Characters as a grammar writes them: sets of code points as expressions over UTF-8, plain or
// within a JSON string.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/grammar_expression.h"

namespace quern {

enum class TextEncoding {
  kPlain,       // the UTF-8 of each code point
  kJsonString,  // as JSON writes it between quotes: an escape only where JSON demands one
};

// A set of code points; surrogates are never in it.
class CodePointSet {
 public:
  static CodePointSet all();

  void add(char32_t low, char32_t high) { ranges_.emplace_back(low, high); }
  void add(char32_t c) { add(c, c); }
  void add(const CodePointSet& other);
  CodePointSet complement() const;
  bool contains(char32_t c) const;

  // Sorted, disjoint, without surrogates.
  std::vector<std::pair<char32_t, char32_t>> ranges() const;

 private:
  std::vector<std::pair<char32_t, char32_t>> ranges_;  // as added
};

// One code point of the set.
ExpressionId encode_set(const CodePointSet& set, TextEncoding encoding, Expressions& out);

// The text of one code point.
std::string encode_code_point(char32_t c, TextEncoding encoding);

}  // namespace quern
