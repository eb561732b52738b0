#include "tensor/formats/awq.h"

#include <array>
#include <cstring>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/clones.h"
#include "tensor/formats/packed_scales.h"

namespace quern {
namespace {

constexpr int64_t kPerWord = 8;  // 32 bits / 4
constexpr uint8_t kMaxCode = 15;

// The nibble in which channel j of a word's eight lies: channels 0 to 7 holding 0 to 7 make the
// word 0x75316420.
constexpr std::array<int, kPerWord> kNibble = {0, 4, 1, 5, 2, 6, 3, 7};

uint8_t channel_of(uint32_t word, size_t j) {
  return static_cast<uint8_t>((word >> (4 * kNibble[j])) & 0xfu);
}

uint32_t load_word(std::span<const std::byte> bytes, int64_t index) {
  uint32_t word = 0;
  std::memcpy(&word, bytes.data() + 4 * index, sizeof word);
  return word;
}

Error wrong(std::string_view name, std::string_view message) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", name, message)};
}

constexpr int64_t kTogether = 16;  // rows whose codes of a channel are written at once

// Channel j of kTogether words, whose codes lie j * stride behind `codes`.
QUERN_CLONES
void split_channels(const uint32_t* words, uint8_t* codes, int64_t stride) {
  for (size_t j = 0; j < kPerWord; ++j, codes += stride) {
    for (int64_t i = 0; i < kTogether; ++i) codes[i] = channel_of(words[i], j);
  }
}

// Unpacks [rows, columns / 8] words into codes[columns][rows].
void unpack_transposed(std::span<const std::byte> words,
                       int64_t rows,
                       int64_t columns,
                       uint8_t* codes) {
  const int64_t word_columns = columns / kPerWord;
  for (int64_t c = 0; c < word_columns; ++c, codes += kPerWord * rows) {
    int64_t r = 0;
    for (; r + kTogether <= rows; r += kTogether) {
      std::array<uint32_t, kTogether> together;
      for (int64_t i = 0; i < kTogether; ++i)
        together[static_cast<size_t>(i)] = load_word(words, (r + i) * word_columns + c);
      split_channels(together.data(), codes + r, rows);
    }
    for (; r < rows; ++r) {
      const uint32_t word = load_word(words, r * word_columns + c);
      for (size_t j = 0; j < kPerWord; ++j)
        codes[static_cast<int64_t>(j) * rows + r] = channel_of(word, j);
    }
  }
}

// Packs codes[columns][rows] into [rows, columns / 8] words.
std::vector<uint32_t> pack_transposed(const uint8_t* codes, int64_t rows, int64_t columns) {
  const int64_t word_columns = columns / kPerWord;
  std::vector<uint32_t> words(static_cast<size_t>(rows * word_columns));
  for (int64_t c = 0; c < word_columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) {
      uint32_t word = 0;
      for (size_t j = 0; j < kPerWord; ++j) {
        const uint32_t code = codes[(c * kPerWord + static_cast<int64_t>(j)) * rows + r];
        word |= code << (4 * kNibble[j]);
      }
      words[static_cast<size_t>(r * word_columns + c)] = word;
    }
  }
  return words;
}

template <typename T>
std::vector<T> transposed(const std::vector<T>& values, int64_t rows, int64_t columns) {
  std::vector<T> result(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      result[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * columns + c)];
    }
  }
  return result;
}

Result<Unit> require_words(std::span<const std::byte> bytes,
                           int64_t rows,
                           int64_t columns,
                           std::string_view what,
                           std::string_view name) {
  const CheckedSize size =
      CheckedSize(4) * static_cast<uint64_t>(rows) * static_cast<uint64_t>(columns / kPerWord);
  if (size.value() == bytes.size()) return Unit{};
  return wrong(name, fmt::format("{} has {} bytes; expected I32 [{}, {}]", what, bytes.size(), rows,
                                 columns / kPerWord));
}

}  // namespace

Result<GroupedWeight> unpack_awq(const AwqTensors& tensors) {
  const int64_t inputs = tensors.inputs;
  const int64_t outputs = tensors.outputs;
  const int64_t group_size = tensors.group_size == -1 ? inputs : tensors.group_size;
  if (inputs < 1 || outputs < 1 || outputs % kPerWord != 0) {
    return wrong(tensors.name, fmt::format("{} inputs and {} outputs; expected outputs in "
                                           "multiples of {}",
                                           inputs, outputs, kPerWord));
  }
  if (group_size < 1 || group_size > INT32_MAX || inputs % group_size != 0) {
    return wrong(tensors.name, fmt::format("the group size {} does not divide {} inputs",
                                           tensors.group_size, inputs));
  }
  const int64_t groups = inputs / group_size;
  QUERN_TRY(require_words(tensors.qweight, inputs, outputs, "qweight", tensors.name));
  QUERN_TRY(require_words(tensors.qzeros, groups, outputs, "qzeros", tensors.name));
  const auto count = static_cast<uint64_t>(groups * outputs);  // fits, as qzeros has half as many
  const std::vector<float> scales =
      QUERN_TRY(read_scales(tensors.scales, tensors.scales_dtype, count, tensors.name));
  GroupedWeight weight;
  weight.rows = outputs;
  weight.columns = inputs;
  weight.group_size = static_cast<int>(group_size);
  weight.codes.resize(static_cast<size_t>(outputs * inputs));
  weight.zeros.resize(scales.size());
  unpack_transposed(tensors.qweight, inputs, outputs, weight.codes.data());
  unpack_transposed(tensors.qzeros, groups, outputs, weight.zeros.data());
  weight.scales = transposed(scales, groups, outputs);
  return weight;
}

Result<AwqPacked> pack_awq(const GroupedWeight& weight, std::string_view name) {
  if (weight.bits != 4 || weight.offset != GroupOffset::kZeroPoint) {
    return wrong(
        name, fmt::format("{} bits with {}; AWQ holds 4 bits with integer zero points", weight.bits,
                          weight.offset == GroupOffset::kZeroPoint ? "zero points" : "minima"));
  }
  if (weight.rows % kPerWord != 0) {
    return wrong(name, fmt::format("{} outputs; AWQ holds multiples of {}", weight.rows, kPerWord));
  }
  for (const uint8_t zero : weight.zeros) {
    if (zero > kMaxCode) return wrong(name, fmt::format("a zero is {}; AWQ holds 0 to 15", zero));
  }
  const std::vector<float> by_group = transposed(weight.scales, weight.rows, weight.groups());
  const std::vector<std::byte> bytes = QUERN_TRY(write_scales(by_group, DType::kF16, name));
  AwqPacked packed;
  packed.qweight = pack_transposed(weight.codes.data(), weight.columns, weight.rows);
  packed.qzeros = pack_transposed(weight.zeros.data(), weight.groups(), weight.rows);
  packed.scales.resize(by_group.size());
  std::memcpy(packed.scales.data(), bytes.data(), bytes.size());
  return packed;
}

}  // namespace quern
