#include "text/bpe.h"

#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <queue>

#include <fmt/format.h>

#include "base/check.h"
#include "base/random.h"
#include "text/unicode.h"

namespace quern {
namespace {

// Up to here a scan over all pairs is faster than a heap.
constexpr size_t kShortWordSymbols = 48;

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

std::array<char32_t, 256> make_byte_alphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 256;
  for (char32_t b = 0; b < 256; ++b) {
    const bool printable =
        (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
    alphabet[b] = printable ? b : next++;
  }
  return alphabet;
}

constexpr char32_t kByteAlphabetEnd = 0x144;  // 68 bytes are not printable: 256 + 68

std::array<int16_t, kByteAlphabetEnd> make_byte_of_code_point() {
  std::array<int16_t, kByteAlphabetEnd> bytes{};
  bytes.fill(-1);
  for (size_t b = 0; b < 256; ++b) bytes[byte_alphabet()[b]] = static_cast<int16_t>(b);
  return bytes;
}

}  // namespace

const std::array<char32_t, 256>& byte_alphabet() {
  static const std::array<char32_t, 256> alphabet = make_byte_alphabet();
  return alphabet;
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) append_code_point(byte_alphabet()[static_cast<uint8_t>(b)], out);
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  static const std::array<int16_t, kByteAlphabetEnd> bytes = make_byte_of_code_point();
  std::string out;
  while (!text.empty()) {
    const DecodedCodePoint c = decode_code_point(text);
    if (c.value >= kByteAlphabetEnd || bytes[c.value] < 0) return std::nullopt;
    out += static_cast<char>(bytes[c.value]);
    text.remove_prefix(c.bytes);
  }
  return out;
}

bool has_byte_alphabet(const Vocabulary& vocabulary) {
  for (size_t b = 0; b < 256; ++b) {
    std::string text;
    append_code_point(byte_alphabet()[b], text);
    if (!vocabulary.find(text)) return false;
  }
  return true;
}

// The ids of words seen before: a table of fixed size where a new word takes the place of the one
// that shares its slot. Safe for any number of threads.
class Bpe::Cache {
 public:
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) {
    Shard& shard = shards_[hash % kShards];
    const std::lock_guard lock(shard.mutex);
    if (shard.slots.empty()) return false;
    const Word& slot = shard.slots[hash / kShards % kSlots];
    if (slot.bytes != word.size() || std::memcmp(slot.text.data(), word.data(), word.size()) != 0)
      return false;
    ids.insert(ids.end(), slot.ids.begin(), slot.ids.begin() + slot.count);
    return true;
  }

  void insert(std::string_view word, uint64_t hash, const int32_t* ids, size_t count) {
    if (count > kMaxIds) return;
    Shard& shard = shards_[hash % kShards];
    const std::lock_guard lock(shard.mutex);
    if (shard.slots.empty()) shard.slots.resize(kSlots);
    Word& slot = shard.slots[hash / kShards % kSlots];
    slot.bytes = static_cast<uint8_t>(word.size());
    slot.count = static_cast<uint8_t>(count);
    std::memcpy(slot.text.data(), word.data(), word.size());
    std::copy(ids, ids + count, slot.ids.begin());
  }

  static constexpr size_t kMaxBytes = 30;

 private:
  static constexpr size_t kMaxIds = 8;
  static constexpr size_t kShards = 16;
  static constexpr size_t kSlots = 4096;  // 16 x 4096 slots x 64 bytes = 4 MiB

  struct Word {
    uint8_t bytes = 0;  // 0: free; empty words are never looked up
    uint8_t count = 0;
    std::array<char, kMaxBytes> text{};
    std::array<int32_t, kMaxIds> ids{};
  };

  static_assert(sizeof(Word) == 64);

  struct Shard {
    std::mutex mutex;
    std::vector<Word> slots;
  };

  std::array<Shard, kShards> shards_;
};

Bpe::Bpe(const Vocabulary& vocabulary, const std::vector<Merge>& merges, BpeOptions options)
    : vocabulary_(vocabulary), options_(std::move(options)), cache_(std::make_unique<Cache>()) {
  for (size_t b = 0; b < 256; ++b) {
    fallback_ids_[b] = vocabulary.find(fmt::format("<0x{:02X}>", b)).value_or(-1);
    std::string text;
    append_code_point(byte_alphabet()[b], text);
    byte_ids_[b] = vocabulary.find(text).value_or(-1);
    QUERN_CHECK(options_.alphabet == BpeAlphabet::kCharacters || byte_ids_[b] >= 0);
  }
  slots_.resize(std::bit_ceil(merges.size() * 2 + 1));
  const size_t mask = slots_.size() - 1;
  for (const Merge& merge : merges) {
    const uint64_t key = pair_key(merge.left, merge.right);
    size_t slot = mix64(key) & mask;
    while (slots_[slot].key != kFree && slots_[slot].key != key) slot = (slot + 1) & mask;
    slots_[slot] = {key, {merge.rank, merge.result}};
  }
}

Bpe::~Bpe() = default;

const Bpe::Pair* Bpe::find(int32_t left, int32_t right) const {
  const size_t mask = slots_.size() - 1;
  const uint64_t key = pair_key(left, right);
  for (size_t slot = mix64(key) & mask; slots_[slot].key != kFree; slot = (slot + 1) & mask)
    if (slots_[slot].key == key) return &slots_[slot].pair;
  return nullptr;
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  if (word.size() > Cache::kMaxBytes) {
    encode_uncached(word, ids);
    return;
  }
  const uint64_t hash = std::hash<std::string_view>{}(word);
  if (cache_->find(word, hash, ids)) return;
  const size_t begin = ids.size();
  encode_uncached(word, ids);
  cache_->insert(word, hash, ids.data() + begin, ids.size() - begin);
}

void Bpe::encode_uncached(std::string_view word, std::vector<int32_t>& ids) const {
  if (options_.ignore_merges && word.size() <= kMaxTokenBytes) {
    const std::optional<int32_t> whole = options_.alphabet == BpeAlphabet::kBytes
                                             ? vocabulary_.find(to_byte_alphabet(word))
                                             : vocabulary_.find(word);
    if (whole) {
      ids.push_back(*whole);
      return;
    }
  }
  const size_t begin = ids.size();
  if (options_.alphabet == BpeAlphabet::kBytes) {
    for (const char b : word) ids.push_back(byte_ids_[static_cast<uint8_t>(b)]);
  } else {
    append_symbols(word, ids);
  }
  if (ids.size() - begin <= kShortWordSymbols) {
    merge_short(ids, begin);
  } else {
    merge_long(ids, begin);
  }
}

void Bpe::append_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  const bool bare = options_.continuing_prefix.empty() && options_.end_suffix.empty();
  int pending = 0;  // unknown characters that are not appended yet
  std::string decorated;
  for (size_t at = 0; at < word.size();) {
    const size_t bytes = decode_code_point(word.substr(at)).bytes;
    std::string_view symbol = word.substr(at, bytes);
    if (!bare) {
      decorated = at == 0 ? "" : options_.continuing_prefix;
      decorated += symbol;
      if (at + bytes == word.size()) decorated += options_.end_suffix;
      symbol = decorated;
    }
    at += bytes;
    if (const auto id = vocabulary_.find(symbol)) {
      if (pending > 0) ids.push_back(*options_.unknown);
      pending = 0;
      ids.push_back(*id);
    } else {
      append_unknown(symbol, pending, ids);
    }
  }
  if (pending > 0) ids.push_back(*options_.unknown);
}

void Bpe::append_unknown(std::string_view symbol, int& pending, std::vector<int32_t>& ids) const {
  if (options_.byte_fallback) {
    bool complete = true;
    for (const char b : symbol) complete = complete && fallback_ids_[static_cast<uint8_t>(b)] >= 0;
    if (complete) {
      for (const char b : symbol) ids.push_back(fallback_ids_[static_cast<uint8_t>(b)]);
      return;
    }
  }
  if (!options_.unknown) return;
  if (pending > 0 && !options_.fuse_unknown) ids.push_back(*options_.unknown);
  pending = 1;
}

void Bpe::merge_short(std::vector<int32_t>& ids, size_t begin) const {
  constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
  std::array<Pair, kShortWordSymbols> pairs;  // pairs[i]: of symbols i and i + 1
  size_t count = ids.size() - begin;
  int32_t* symbols = ids.data() + begin;
  const auto look_up = [&](size_t i) {
    const Pair* pair = find(symbols[i], symbols[i + 1]);
    pairs[i] = pair != nullptr ? *pair : Pair{kNone, -1};
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (pairs[i].rank < pairs[best].rank) best = i;
    if (pairs[best].rank == kNone) break;
    symbols[best] = pairs[best].result;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    --count;
    std::copy(pairs.begin() + static_cast<ptrdiff_t>(best) + 1,
              pairs.begin() + static_cast<ptrdiff_t>(count),
              pairs.begin() + static_cast<ptrdiff_t>(best));
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.resize(begin + count);
}

void Bpe::merge_long(std::vector<int32_t>& ids, size_t begin) const {
  struct Symbol {
    int32_t id;  // -1: merged into its left neighbour
    size_t previous, next;
  };

  struct Candidate {
    int32_t rank;
    size_t at;
    int32_t left, right, result;

    bool operator<(const Candidate& other) const {  // the queue's top is the largest
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };

  const size_t count = ids.size() - begin;
  const size_t none = count;
  std::vector<Symbol> symbols(count);
  for (size_t i = 0; i < count; ++i) symbols[i] = {ids[begin + i], i == 0 ? none : i - 1, i + 1};
  std::vector<Candidate> initial;
  const auto candidate = [&](size_t at, auto&& push) {
    if (at == none || symbols[at].next == none) return;
    const int32_t left = symbols[at].id;
    const int32_t right = symbols[symbols[at].next].id;
    if (const Pair* pair = find(left, right)) push({pair->rank, at, left, right, pair->result});
  };
  for (size_t i = 0; i < count; ++i)
    candidate(i, [&](const Candidate& c) { initial.push_back(c); });
  std::priority_queue<Candidate> queue(std::less<Candidate>{}, std::move(initial));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.at];
    if (left.id != top.left || left.next == none || symbols[left.next].id != top.right) continue;
    Symbol& right = symbols[left.next];
    left.id = top.result;
    right.id = -1;
    left.next = right.next;
    if (right.next != none) symbols[right.next].previous = top.at;
    candidate(left.previous, [&](const Candidate& c) { queue.push(c); });
    candidate(top.at, [&](const Candidate& c) { queue.push(c); });
  }
  ids.resize(begin);
  for (size_t i = 0; i < count; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace quern
