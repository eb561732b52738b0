// Cuts a template into tokens, applying Jinja2's white space control with trim_blocks and
// lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace quern::jinja {

enum class TokenKind : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // data, name, decoded string or operator
  int64_t integer = 0;
  double real = 0;
  uint32_t offset = 0;  // in the normalised source
  int32_t line = 1;

  bool is(TokenKind k) const { return kind == k; }

  bool is_name(std::string_view name) const { return kind == TokenKind::kName && text == name; }

  bool is_operator(std::string_view op) const { return kind == TokenKind::kOperator && text == op; }
};

// `source` with every line break as \n and without one trailing line break.
std::string normalize_newlines(std::string_view source);

// The error for something wrong at `offset` of `source`: names line and column, both from 1.
Error syntax_error(std::string_view source, size_t offset, const std::string& message);

// The tokens of a normalised source, kEnd last. Errors: kInvalidArgument, as syntax_error.
Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace quern::jinja
