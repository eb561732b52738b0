#include "tensor/formats/compressed_tensors.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/checked.h"
#include "tensor/formats/packed_scales.h"

namespace quern {
namespace {

Error wrong(std::string_view name, std::string_view message) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", name, message)};
}

int64_t words_for(int64_t codes, int per_word) {
  return codes / per_word + (codes % per_word != 0 ? 1 : 0);
}

uint32_t load_word(std::span<const std::byte> bytes, int64_t index) {
  uint32_t word = 0;
  std::memcpy(&word, bytes.data() + 4 * index, sizeof word);
  return word;
}

Result<Unit> require_words(std::span<const std::byte> bytes,
                           std::array<int64_t, 2> shape,
                           std::string_view what,
                           std::string_view name) {
  const CheckedSize size =
      CheckedSize(4) * static_cast<uint64_t>(shape[0]) * static_cast<uint64_t>(shape[1]);
  if (size.value() == bytes.size()) return Unit{};
  return wrong(name, fmt::format("{} has {} bytes; expected I32 [{}, {}]", what, bytes.size(),
                                 shape[0], shape[1]));
}

// The codes of one row of words, the first in the lowest bits.
void unpack_row(
    std::span<const std::byte> words, int64_t first_word, int bits, int64_t count, uint8_t* codes) {
  const int per_word = 32 / bits;
  const uint32_t mask = (1u << bits) - 1;
  for (int64_t i = 0; i < count; i += per_word) {
    const uint32_t word = load_word(words, first_word + i / per_word);
    const int64_t here = std::min<int64_t>(per_word, count - i);
    for (int64_t j = 0; j < here; ++j) {
      codes[i + j] = static_cast<uint8_t>((word >> (bits * j)) & mask);
    }
  }
}

void pack_row(const uint8_t* codes, int bits, int64_t count, uint32_t* words) {
  const int per_word = 32 / bits;
  for (int64_t i = 0; i < count; ++i) {
    words[i / per_word] |= uint32_t{codes[i]} << (bits * static_cast<int>(i % per_word));
  }
}

// Zero points lie along the outputs: word w of group g holds those of outputs w * p to w * p + p
// - 1.
void unpack_zeros(const CompressedTensors& tensors, GroupedWeight* weight) {
  const int64_t groups = weight->groups();
  const int per_word = 32 / tensors.bits;
  const uint32_t mask = (1u << tensors.bits) - 1;
  for (int64_t row = 0; row < weight->rows; ++row) {
    const int shift = tensors.bits * static_cast<int>(row % per_word);
    for (int64_t g = 0; g < groups; ++g) {
      const uint32_t word = load_word(tensors.weight_zero_point, row / per_word * groups + g);
      weight->zeros[static_cast<size_t>(row * groups + g)] =
          static_cast<uint8_t>((word >> shift) & mask);
    }
  }
}

std::vector<uint32_t> pack_zeros(const GroupedWeight& weight) {
  const int64_t groups = weight.groups();
  const int per_word = 32 / weight.bits;
  std::vector<uint32_t> words(static_cast<size_t>(words_for(weight.rows, per_word) * groups));
  for (int64_t row = 0; row < weight.rows; ++row) {
    const int shift = weight.bits * static_cast<int>(row % per_word);
    for (int64_t g = 0; g < groups; ++g) {
      words[static_cast<size_t>(row / per_word * groups + g)] |=
          uint32_t{weight.zeros[static_cast<size_t>(row * groups + g)]} << shift;
    }
  }
  return words;
}

Error wrong_width(std::string_view name, int bits) {
  return {ErrorCode::kUnsupported,
          fmt::format("{}: codes of {} bits; pack-quantized is read and written with 4 or 8", name,
                      bits)};
}

}  // namespace

Result<GroupedWeight> unpack_compressed_tensors(const CompressedTensors& tensors) {
  const int bits = tensors.bits;
  if (bits != 4 && bits != 8) return wrong_width(tensors.name, bits);
  const int per_word = 32 / bits;
  const int64_t group_size = tensors.group_size == -1 ? tensors.inputs : tensors.group_size;
  if (tensors.inputs < 1 || tensors.outputs < 1) {
    return wrong(tensors.name, fmt::format("weight_shape is [{}, {}]; expected at least 1",
                                           tensors.outputs, tensors.inputs));
  }
  if (group_size < 1 || group_size > INT32_MAX || tensors.inputs % group_size != 0) {
    return wrong(tensors.name, fmt::format("the group size {} does not divide {} inputs",
                                           tensors.group_size, tensors.inputs));
  }
  const int64_t groups = tensors.inputs / group_size;
  const int64_t row_words = words_for(tensors.inputs, per_word);
  QUERN_TRY(require_words(tensors.weight_packed, {tensors.outputs, row_words}, "weight_packed",
                          tensors.name));
  const bool symmetric = tensors.weight_zero_point.empty();
  if (!symmetric) {
    QUERN_TRY(require_words(tensors.weight_zero_point,
                            {words_for(tensors.outputs, per_word), groups}, "weight_zero_point",
                            tensors.name));
  }
  GroupedWeight weight;
  weight.rows = tensors.outputs;
  weight.columns = tensors.inputs;
  weight.group_size = static_cast<int>(group_size);
  weight.bits = bits;
  const auto count = static_cast<uint64_t>(weight.rows * groups);  // fits: no more than the codes
  weight.scales =
      QUERN_TRY(read_scales(tensors.weight_scale, tensors.scale_dtype, count, tensors.name));
  weight.codes.resize(static_cast<size_t>(weight.rows * weight.columns));
  for (int64_t row = 0; row < weight.rows; ++row) {
    unpack_row(tensors.weight_packed, row * row_words, bits, weight.columns,
               weight.codes.data() + row * weight.columns);
  }
  weight.zeros.assign(count, static_cast<uint8_t>(1u << (bits - 1)));
  if (!symmetric) unpack_zeros(tensors, &weight);
  return weight;
}

Result<CompressedTensorsPacked> pack_compressed_tensors(const GroupedWeight& weight,
                                                        std::string_view name,
                                                        const CompressedTensorsOptions& options) {
  const int bits = weight.bits;
  if (bits != 4 && bits != 8) return wrong_width(name, bits);
  if (weight.offset != GroupOffset::kZeroPoint) {
    return wrong(name, "groups with minima; pack-quantized holds integer zero points");
  }
  const auto middle = static_cast<uint8_t>(1u << (bits - 1));
  const bool symmetric = options.zero_points == ZeroPoints::kSymmetric;
  for (const uint8_t zero : weight.zeros) {
    if (symmetric ? zero != middle : zero >= 1 << bits) {
      return wrong(name, symmetric
                             ? fmt::format("a zero is {}; symmetric weights have {}", zero, middle)
                             : fmt::format("a zero is {}; {} bits hold 0 to {}", zero, bits,
                                           (1 << bits) - 1));
    }
  }
  CompressedTensorsPacked packed;
  packed.weight_scale = QUERN_TRY(write_scales(weight.scales, options.scale_dtype, name));
  packed.weight_shape = {weight.rows, weight.columns};
  const int64_t row_words = words_for(weight.columns, 32 / bits);
  packed.weight_packed.resize(static_cast<size_t>(weight.rows * row_words));
  for (int64_t row = 0; row < weight.rows; ++row) {
    pack_row(weight.codes.data() + row * weight.columns, bits, weight.columns,
             packed.weight_packed.data() + row * row_words);
  }
  if (!symmetric) packed.weight_zero_point = pack_zeros(weight);
  return packed;
}

}  // namespace quern
