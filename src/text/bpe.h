// Byte pair encoding of one word: the merges of a tokenizer, applied lowest rank first.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/vocabulary.h"

namespace quern {

// The pair (left, right) becomes `result`. Pairs of equal rank merge from left to right.
struct Merge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
  int32_t rank = 0;
};

enum class BpeAlphabet {
  kCharacters,  // a word is a row of code points as the vocabulary writes them
  kBytes,       // a word is a row of bytes, each written as one code point (GPT-2's byte alphabet)
};

struct BpeOptions {
  BpeAlphabet alphabet = BpeAlphabet::kCharacters;
  bool ignore_merges = false;      // a word that is a token is that token, whatever the merges say
  bool byte_fallback = false;      // an unknown character becomes "<0x..>" for each of its bytes
  bool fuse_unknown = false;       // a run of unknown characters becomes one unknown token
  std::optional<int32_t> unknown;  // without it unknown characters vanish
  std::string continuing_prefix;   // stands before every character but the first
  std::string end_suffix;          // stands behind the last character
};

// The code point that stands for each byte in GPT-2's byte alphabet.
const std::array<char32_t, 256>& byte_alphabet();

// Text in the byte alphabet; the inverse is empty for text with any other character.
std::string to_byte_alphabet(std::string_view bytes);
std::optional<std::string> from_byte_alphabet(std::string_view text);

// Borrows the vocabulary, which must be indexed. Immutable: any number of threads may encode.
class Bpe {
 public:
  Bpe(const Vocabulary& vocabulary, const std::vector<Merge>& merges, BpeOptions options);
  Bpe(const Bpe&) = delete;
  Bpe& operator=(const Bpe&) = delete;
  ~Bpe();

  // Appends the ids of `word`, which is valid UTF-8 with BpeAlphabet::kCharacters. n log n in the
  // length of the word.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  struct Pair {
    int32_t rank;
    int32_t result;
  };

  struct Slot {
    uint64_t key = kFree;
    Pair pair{};
  };

  class Cache;
  static constexpr uint64_t kFree = ~uint64_t{0};

  const Pair* find(int32_t left, int32_t right) const;
  void encode_uncached(std::string_view word, std::vector<int32_t>& ids) const;
  void append_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  void append_unknown(std::string_view symbol, int& pending, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& ids, size_t begin) const;
  void merge_long(std::vector<int32_t>& ids, size_t begin) const;

  const Vocabulary& vocabulary_;
  BpeOptions options_;
  std::array<int32_t, 256> byte_ids_{};      // kBytes: the token of each byte
  std::array<int32_t, 256> fallback_ids_{};  // "<0x..>", -1 where the vocabulary has none
  std::vector<Slot> slots_;                  // open addressing, at most half full
  std::unique_ptr<Cache> cache_;
};

// Whether the vocabulary has a token for every byte of the byte alphabet, which
// BpeAlphabet::kBytes requires.
bool has_byte_alphabet(const Vocabulary& vocabulary);

}  // namespace quern
