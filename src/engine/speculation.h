// Guesses the next tokens of a text from the text itself, and tells when guessing pays.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace quern {

struct SpeculationOptions {
  int64_t max_draft = 0;  // guesses for one sequence in one step; 0: none
  // Of guesses from the text, where there is no draft model:
  int64_t min_ngram = 2;  // a guess is what followed that many tokens when they came before
  int64_t max_ngram = 6;
};

// Puts up to `most` guesses of what follows `tokens` into `draft` (prompt lookup): what followed
// the last time that the text's longest possible end, of min_ngram to max_ngram tokens, occurred in
// it before. A text that repeats itself is guessed on beyond its end. Leaves `draft` empty when no
// such end occurs. O(tokens * max_ngram), takes memory only beyond the capacity of `draft`.
void guess_from_text(std::span<const int32_t> tokens,
                     const SpeculationOptions& options,
                     int64_t most,
                     std::vector<int32_t>& draft);

// How often a guess is right when those before it were, as an average that forgets.
class Acceptance {
 public:
  void observe(bool right) { rate_ += kWeight * ((right ? 1.0 : 0.0) - rate_); }

  double rate() const { return rate_; }

 private:
  static constexpr double kWeight = 1.0 / 16;
  double rate_ = 0.5;  // before anything is known
};

// Decides how many guesses a sequence gets, from what steps were measured to cost.
//
// A step of n sequences gives n tokens in the time T; a row more costs b, and a round in which a
// draft model makes a guess for each of them costs D (0 where guesses are looked up). The k-th
// guess gives a token more with probability p^k, p being the rate of acceptance. For all of them
// that is worth its time while (n + n * p^k) / (T + n * b + D) >= n / T, that is, while p^k >= (n *
// b + D) / T. T and b come from a line fitted to the steps so far, old ones counting less. As long
// as nothing is known of b, and once in kProbe steps, guessing is tried all the same.
class DraftPolicy {
 public:
  // A step of that many rows, all of them of sequences that go on by one token and its guesses.
  void observe(int64_t rows, int64_t ns);

  // To be called once before the lengths of a step are asked for.
  void begin_step() { ++steps_; }

  // How many guesses to check, at most `most`, in a step of `sequences` rows without guesses.
  int64_t length(double acceptance, int64_t sequences, int64_t most, double round_ns = 0) const;

 private:
  static constexpr double kWeight = 1.0 / 32;
  static constexpr int64_t kProbe = 64;

  double time_of(double rows) const { return mean_ns_ + row_ns_ * (rows - mean_rows_); }

  int64_t steps_ = 0;
  bool has_steps_ = false;
  double mean_rows_ = 0;
  double mean_ns_ = 0;
  double rows_variance_ = 0;
  double covariance_ = 0;
  double row_ns_ = 0;
};

}  // namespace quern
