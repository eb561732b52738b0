#include "text/bpe.h"

#include <cmath>
#include <thread>

#include <gtest/gtest.h>

#include "base/random.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace quern {
namespace {

using Ids = std::vector<int32_t>;

Vocabulary vocabulary_of(const std::vector<std::string>& tokens) {
  Vocabulary vocabulary;
  for (size_t id = 0; id < tokens.size(); ++id)
    EXPECT_TRUE(vocabulary.add(static_cast<int64_t>(id), tokens[id]));
  vocabulary.index();
  return vocabulary;
}

Ids encode(const Bpe& bpe, std::string_view word) {
  Ids ids;
  bpe.encode(word, ids);
  return ids;
}

// Merges the leftmost pair of the lowest rank until none is left.
Ids merge_naively(Ids ids, const std::vector<Merge>& merges) {
  for (;;) {
    const Merge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (const Merge& merge : merges) {
        const bool match = merge.left == ids[i] && merge.right == ids[i + 1];
        if (match && (best == nullptr || merge.rank < best->rank)) {
          best = &merge;
          at = i;
        }
      }
    }
    if (best == nullptr) return ids;
    ids[at] = best->result;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, AgreesWithTheNaiveAlgorithmOnWordsOfAnyLength) {
  const Vocabulary vocabulary =
      vocabulary_of({"a", "b", "ab", "ba", "aa", "aba", "abab", "bb", "aabb", "baab"});
  const std::vector<Merge> merges = {{0, 1, 2, 3},   // a b
                                     {1, 0, 3, 1},   // b a
                                     {0, 0, 4, 2},   // a a
                                     {2, 0, 5, 0},   // ab a
                                     {0, 3, 5, 4},   // a ba
                                     {2, 2, 6, 5},   // ab ab
                                     {1, 1, 7, 6},   // b b
                                     {4, 7, 8, 7},   // aa bb
                                     {3, 2, 9, 7}};  // ba ab, of the same rank
  const Bpe bpe(vocabulary, merges, {});
  constexpr uint64_t kSeed = 3;
  for (uint64_t round = 0; round < 300; ++round) {
    std::string word;
    Ids ids;
    const size_t length = 1 + random_bits(kSeed, round, 0) % 130;
    for (size_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(random_bits(kSeed, round, 1 + i) & 1));
      word += ids.back() == 0 ? 'a' : 'b';
    }
    EXPECT_EQ(encode(bpe, word), merge_naively(ids, merges)) << "seed " << kSeed << " " << word;
  }
}

TEST(Bpe, ByteAlphabetIsABijection) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
  const std::string text = to_byte_alphabet(bytes);
  EXPECT_TRUE(is_valid_utf8(text));
  EXPECT_EQ(from_byte_alphabet(text), bytes);
  EXPECT_EQ(to_byte_alphabet(" \n"), "ĠĊ");
  EXPECT_EQ(from_byte_alphabet(" "), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("中"), std::nullopt);
}

TEST(Bpe, UnknownCharactersBecomeBytesTokensOrNothing) {
  const Vocabulary vocabulary = vocabulary_of({"a", "<unk>", "<0xC3>", "<0xA9>"});
  BpeOptions options;
  EXPECT_EQ(encode(Bpe(vocabulary, {}, options), "aéxxa"), (Ids{0, 0}));
  options.unknown = 1;
  EXPECT_EQ(encode(Bpe(vocabulary, {}, options), "aéxxa"), (Ids{0, 1, 1, 1, 0}));
  options.fuse_unknown = true;
  EXPECT_EQ(encode(Bpe(vocabulary, {}, options), "aéxxa"), (Ids{0, 1, 0}));
  options.byte_fallback = true;
  EXPECT_EQ(encode(Bpe(vocabulary, {}, options), "aéxxa"), (Ids{0, 2, 3, 1, 0}));
}

TEST(Bpe, WholeTokensGoBeforeMergesWhenMergesAreIgnored) {
  const Vocabulary vocabulary = vocabulary_of({"a", "b", "ab"});
  BpeOptions options;
  EXPECT_EQ(encode(Bpe(vocabulary, {}, options), "ab"), (Ids{0, 1}));
  options.ignore_merges = true;
  EXPECT_EQ(encode(Bpe(vocabulary, {}, options), "ab"), (Ids{2}));
}

TEST(Bpe, EncodesTheSameFromManyThreads) {
  const Vocabulary vocabulary = vocabulary_of({"a", "b", "ab", "abab"});
  const Bpe bpe(vocabulary, {{0, 1, 2, 0}, {2, 2, 3, 1}}, {});
  const auto work = [&bpe] {
    for (size_t round = 0; round < 2000; ++round) {
      const size_t pairs = 1 + round % 9;
      std::string word;
      for (size_t i = 0; i < pairs; ++i) word += "ab";
      Ids expected(pairs / 2, 3);
      if (pairs % 2 == 1) expected.push_back(2);
      EXPECT_EQ(encode(bpe, word), expected);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
}

TEST(Bpe, MergesOfRanksAreAllPairs) {
  const Vocabulary vocabulary = vocabulary_of({"a", "b", "ab", "aba", "c"});
  const auto merges = merges_of_ranks(vocabulary, {0, 1, 2, 3, -1});
  ASSERT_TRUE(merges);
  ASSERT_EQ(merges->size(), 2u);
  EXPECT_EQ((*merges)[0].result, 2);
  EXPECT_EQ((*merges)[1].result, 3);
  EXPECT_EQ((*merges)[1].left, 2);
  EXPECT_EQ((*merges)[1].right, 0);
}

TEST(Bpe, EqualScoresShareARank) {
  EXPECT_EQ(score_ranks({-2.0f, 0.0f, -2.0f, NAN, -1.0f}), (Ids{2, 0, 2, 4, 1}));
}

}  // namespace
}  // namespace quern
