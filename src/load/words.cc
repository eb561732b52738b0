#include "load/words.h"

#include <algorithm>
#include <optional>

#include "base/check.h"

namespace quern {
namespace {

constexpr std::string_view kWords[] = {
    "a",       "barn",     "bell",  "bird",   "boat",   "book",    "bread",  "bridge", "brook",
    "candle",  "carry",    "chair", "clear",  "cloud",  "coast",   "corn",   "count",  "cover",
    "cross",   "dance",    "dark",  "deep",   "door",   "dream",   "drive",  "dry",    "early",
    "earth",   "east",     "edge",  "empty",  "even",   "evening", "farm",   "fast",   "field",
    "fire",    "fish",     "flour", "flower", "follow", "forest",  "friend", "garden", "gate",
    "gentle",  "glass",    "gold",  "grain",  "grass",  "green",   "ground", "grow",   "hand",
    "happy",   "harbor",   "heavy", "high",   "hill",   "home",    "horse",  "house",  "iron",
    "island",  "journey",  "kind",  "lake",   "land",   "large",   "leaf",   "letter", "light",
    "listen",  "little",   "long",  "market", "meadow", "measure", "mill",   "milk",   "moon",
    "morning", "mountain", "music", "narrow", "near",   "night",   "north",  "ocean",  "old",
    "open",    "orange",   "paper", "path",   "people", "pine",    "plain",  "plant",  "quiet",
    "rain",    "read",     "ready", "river",  "road",   "roof",    "round",  "salt",   "sand",
    "school",  "season",   "seed",  "ship",   "silver", "simple",  "sleep",  "slow",   "small",
    "snow",    "song",     "south", "spring", "star",   "stone",   "story",  "street", "strong",
    "summer",  "table",    "tall",  "thread", "tower",  "town",    "travel", "tree",   "turn",
    "valley",  "village",  "voice", "walk",   "wall",   "warm",    "water",  "west",   "wheat",
    "wheel",   "white",    "wind",  "window", "winter", "wood",    "work",   "yellow"};

constexpr double kSlack = 0.5;  // estimates are no whole numbers

// A word of at most `left` tokens, each one that fits first met from a random place.
std::optional<size_t> choose_word(double left, const std::vector<double>& tokens, uint64_t from) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    const size_t word = (from + i) % tokens.size();
    if (tokens[word] <= left + kSlack) return word;
  }
  return std::nullopt;
}

}  // namespace

std::span<const std::string_view> prompt_words() { return kWords; }

WordTokens WordTokens::estimate(double tokens_per_word) {
  return {.tokens = std::vector<double>(std::size(kWords), tokens_per_word)};
}

std::string random_text(int64_t tokens, const WordTokens& word_tokens, RandomStream& random) {
  QUERN_CHECK(word_tokens.tokens.size() == std::size(kWords));
  auto left = static_cast<double>(tokens);
  std::string text;
  while (true) {
    const uint64_t from = random.below(std::size(kWords));
    std::optional<size_t> word = choose_word(left, word_tokens.tokens, from);
    if (!word && !text.empty()) return text;
    if (!word) word = from;
    if (!text.empty()) text += ' ';
    text += kWords[*word];
    left -= word_tokens.tokens[*word];
  }
}

}  // namespace quern
