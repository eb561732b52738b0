// Text of a wanted number of tokens, out of a list of plain words.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "load/random_stream.h"

namespace quern {

inline constexpr double kTokensPerWord = 1.3;  // of English text, where the server counts none

// The words that prompts are made of.
std::span<const std::string_view> prompt_words();

// How many tokens each of prompt_words() is, with the space before it.
struct WordTokens {
  std::vector<double> tokens{};
  int64_t template_tokens = 0;  // of a chat request beside its text
  bool counted = false;         // by the server, else estimated

  static WordTokens estimate(double tokens_per_word);
};

// Random words of `tokens` tokens together, or as near below as whole words come, at least one
// word. Requires word_tokens to hold a positive number for each of prompt_words().
std::string random_text(int64_t tokens, const WordTokens& word_tokens, RandomStream& random);

}  // namespace quern
