#include <algorithm>
#include <cstring>

#include "base/float16.h"
#include "kernels/cpu/packed.h"
#include "kernels/rounding.h"

namespace quern::cpu {
namespace {

constexpr int kNibbleBlock = 8;  // columns in a 64-byte block of kInt4
constexpr int kByteBlock = 4;    // of kInt8
constexpr int kSixBlock = 16;    // columns in three such blocks of kInt6
constexpr int64_t kBlockBytes = 64;
constexpr int kMaxGroup = 32768;  // c, A and zero * A stay exact in int32: 255 * 127 * 32768
constexpr int kLargestSignedByte = 127;
constexpr int kSignedBase = 128;  // moves codes 0 .. 255 into signed bytes

WeightFormat dense_format(const Weight& weight, Precision precision) {
  if (precision == Precision::kBF16) return WeightFormat::kBF16;
  const auto* dense = std::get_if<DenseWeight>(&weight);
  if (dense == nullptr || dense->values.dtype == DType::kF32) return WeightFormat::kF32;
  if (dense->values.dtype == DType::kF16) return WeightFormat::kF16;
  return precision == Precision::kFast ? WeightFormat::kBF16 : WeightFormat::kF32;
}

// Where number k of a row lies among those of its panel.
int64_t dense_place(WeightFormat format, int64_t lane, int64_t k) {
  if (format != WeightFormat::kBF16) return k * kPanelRows + lane;
  return (k / 2 * kPanelRows + lane) * 2 + k % 2;
}

// Row `row` of the weight into lane `row % 16` of its panel. Returns whether nothing was rounded.
bool pack_dense_row(const Weight& weight,
                    int64_t row,
                    const Segment& segment,
                    std::vector<float>& scratch) {
  scratch.resize(static_cast<size_t>(segment.columns));
  widen_row(weight, row, scratch.data());
  const int64_t lane = row % kPanelRows;
  std::byte* panel =
      segment.codes.data() + static_cast<size_t>(row / kPanelRows) * segment.panel_bytes();
  bool exact = true;
  for (int64_t k = 0; k < segment.columns; ++k) {
    const float value = scratch[static_cast<size_t>(k)];
    const int64_t at = dense_place(segment.format, lane, k);
    if (segment.format == WeightFormat::kF32) {
      std::memcpy(panel + 4 * at, &value, sizeof value);
      continue;
    }
    const bool bf16 = segment.format == WeightFormat::kBF16;
    const uint16_t half = bf16 ? f32_to_bf16(value) : f32_to_f16(value);
    exact = exact && (bf16 ? bf16_to_f32(half) : f16_to_f32(half)) == value;
    std::memcpy(panel + 2 * at, &half, sizeof half);
  }
  return exact;
}

// Where a code of kInt4 or kInt6 lies in its panel: the byte, and the bit it begins at.
struct CodePlace {
  int64_t byte = 0;
  int shift = 0;
};

// The low four bits of column k.
CodePlace nibble_place(WeightFormat format, int64_t lane, int64_t k) {
  const int64_t block = format == WeightFormat::kInt4
                            ? k / kNibbleBlock
                            : k / kSixBlock * 3 + k % kSixBlock / kNibbleBlock;
  return {block * kBlockBytes + lane * 4 + k % 4, k % kNibbleBlock < 4 ? 0 : 4};
}

// The upper two of kInt6.
CodePlace pair_place(int64_t lane, int64_t k) {
  return {(k / kSixBlock * 3 + 2) * kBlockBytes + lane * 4 + k % 4,
          2 * static_cast<int>(k % kSixBlock / 4)};
}

int64_t byte_place(int64_t lane, int64_t k) {
  return k / kByteBlock * kBlockBytes + lane * 4 + k % kByteBlock;
}

// Four codes, those of columns k .. k + 3, one a byte.
uint32_t four_codes(const uint8_t* codes, int64_t k) {
  uint32_t four = 0;
  std::memcpy(&four, codes + k, sizeof four);
  return four;
}

constexpr uint32_t kLowNibbles = 0x0f0f0f0f;
constexpr uint32_t kLowPairs = 0x03030303;

// The three words of 16 columns of kInt6 from their codes, four a word.
void pack_six_bits(uint8_t* to, const uint32_t (&codes)[4]) {
  const auto upper = [&](int i) { return (codes[i] >> 4 & kLowPairs) << 2 * i; };
  const uint32_t words[3] = {(codes[0] & kLowNibbles) | (codes[1] & kLowNibbles) << 4,
                             (codes[2] & kLowNibbles) | (codes[3] & kLowNibbles) << 4,
                             upper(0) | upper(1) | upper(2) | upper(3)};
  for (int i = 0; i < 3; ++i) std::memcpy(to + i * kBlockBytes, &words[i], sizeof words[i]);
}

// Whole blocks: a row's four bytes of each at once.
void pack_codes_row(const GroupedWeight& weight, int64_t row, const Segment& segment) {
  const uint8_t* codes = weight.codes.data() + row * weight.columns;
  uint8_t* to = segment.codes.as<uint8_t>() +
                static_cast<size_t>(row / kPanelRows) * segment.panel_bytes() +
                row % kPanelRows * 4;
  uint32_t seen = 0;
  switch (segment.format) {
    case WeightFormat::kInt4:
      for (int64_t k = 0; k < weight.columns; k += kNibbleBlock, to += kBlockBytes) {
        const uint32_t low = four_codes(codes, k);
        const uint32_t high = four_codes(codes, k + 4);
        seen |= low | high;
        const uint32_t word = low | high << 4;
        std::memcpy(to, &word, sizeof word);
      }
      QUERN_CHECK((seen & ~kLowNibbles) == 0);
      return;
    case WeightFormat::kInt6:
      for (int64_t k = 0; k < weight.columns; k += kSixBlock, to += 3 * kBlockBytes) {
        const uint32_t words[4] = {four_codes(codes, k), four_codes(codes, k + 4),
                                   four_codes(codes, k + 8), four_codes(codes, k + 12)};
        seen |= words[0] | words[1] | words[2] | words[3];
        pack_six_bits(to, words);
      }
      QUERN_CHECK((seen & ~(kLowNibbles | kLowPairs << 4)) == 0);
      return;
    default:
      for (int64_t k = 0; k < weight.columns; k += kByteBlock, to += kBlockBytes)
        std::memcpy(to, codes + k, kByteBlock);
  }
}

void pack_scales_row(const GroupedWeight& weight,
                     const RoundedScales& scales,
                     const RoundedScales& minima,
                     int64_t row,
                     const Segment& segment) {
  const auto lane = static_cast<size_t>(row % kPanelRows);
  std::byte* record =
      segment.scales.data() + static_cast<size_t>(row / kPanelRows) * segment.panel_scale_bytes();
  for (int64_t g = 0; g < weight.groups(); ++g, record += segment.record_bytes()) {
    const auto i = static_cast<size_t>(row * weight.groups() + g);
    std::memcpy(record + 2 * lane, &scales.halves[i], 2);
    std::byte* offsets = record + 2 * kPanelRows;
    if (segment.offsets == Offsets::kZeros) offsets[lane] = std::byte{weight.zeros[i]};
    if (segment.offsets == Offsets::kMinima) std::memcpy(offsets + 2 * lane, &minima.halves[i], 2);
  }
}

// Sets offsets, zero, code_base and centred from the codes and zero points.
void measure_range(const GroupedWeight& weight, Segment& segment) {
  if (weight.offset == GroupOffset::kMinimum) segment.offsets = Offsets::kMinima;
  if (weight.codes.empty()) return;
  const int largest = *std::max_element(weight.codes.begin(), weight.codes.end());
  segment.code_base = largest > kLargestSignedByte ? kSignedBase : 0;
  if (segment.offsets == Offsets::kMinima) {
    segment.centred = segment.code_base == 0 ? 1 : 0;
    return;
  }
  const auto [low, high] = std::minmax_element(weight.zeros.begin(), weight.zeros.end());
  if (*low == *high) {
    segment.offsets = Offsets::kOneZero;
    segment.zero = *low;
  }
  const bool fits = largest - *low <= kLargestSignedByte && *high <= kSignedBase;
  segment.centred = fits ? 1 : 0;
}

WeightFormat grouped_format(int bits) {
  if (bits == 4) return WeightFormat::kInt4;
  return bits <= 6 ? WeightFormat::kInt6 : WeightFormat::kInt8;
}

std::string pack_grouped(ThreadPool& pool,
                         HugePageArena& arena,
                         const GroupedWeight& weight,
                         Segment& segment) {
  QUERN_CHECK(weight.group_size == 16 || weight.group_size % 32 == 0);
  QUERN_CHECK(weight.group_size > 0 && weight.group_size <= kMaxGroup);
  QUERN_CHECK(weight.columns % weight.group_size == 0);
  const RoundedScales scales = round_scales(weight.scales);
  const RoundedScales minima = round_scales(weight.minima);
  segment.scale_unit = scales.unit();
  segment.minimum_unit = minima.unit();
  measure_range(weight, segment);
  segment.codes = arena.allocate(static_cast<size_t>(segment.panels()) * segment.panel_bytes());
  segment.scales =
      arena.allocate(static_cast<size_t>(segment.panels()) * segment.panel_scale_bytes());
  pool.for_each_chunk(weight.rows, kPanelRows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      pack_codes_row(weight, row, segment);
      pack_scales_row(weight, scales, minima, row, segment);
    }
  });
  return rounding_note(std::max(scales.largest_error, minima.largest_error));
}

std::string pack_dense(ThreadPool& pool,
                       HugePageArena& arena,
                       const Weight& weight,
                       Segment& segment) {
  segment.codes = arena.allocate(static_cast<size_t>(segment.panels()) * segment.panel_bytes());
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.size()));
  std::vector<uint8_t> rounded(static_cast<size_t>(pool.size()));
  pool.for_each_chunk(segment.rows, kPanelRows, [&](int64_t begin, int64_t end, int worker) {
    const auto w = static_cast<size_t>(worker);
    for (int64_t row = begin; row < end; ++row) {
      if (!pack_dense_row(weight, row, segment, scratch[w])) rounded[w] = 1;
    }
  });
  const bool exact = std::find(rounded.begin(), rounded.end(), 1) == rounded.end();
  return exact ? "" : "widened weights rounded to BF16";
}

void embed_dense(const Segment& segment, int64_t row, float* out) {
  const int64_t lane = row % kPanelRows;
  const std::byte* panel = segment.panel(row / kPanelRows);
  for (int64_t k = 0; k < segment.columns; ++k) {
    const int64_t at = dense_place(segment.format, lane, k);
    if (segment.format == WeightFormat::kF32) {
      std::memcpy(&out[k], panel + 4 * at, sizeof(float));
      continue;
    }
    uint16_t half = 0;
    std::memcpy(&half, panel + 2 * at, sizeof half);
    out[k] = segment.format == WeightFormat::kBF16 ? bf16_to_f32(half) : f16_to_f32(half);
  }
}

int code_at(const Segment& segment, const std::byte* panel, int64_t lane, int64_t k) {
  if (segment.format == WeightFormat::kInt8)
    return std::to_integer<int>(panel[byte_place(lane, k)]);
  const auto bits = [panel](CodePlace place) {
    return std::to_integer<int>(panel[place.byte]) >> place.shift;
  };
  const int low = bits(nibble_place(segment.format, lane, k)) & 15;
  if (segment.format == WeightFormat::kInt4) return low;
  return low | (bits(pair_place(lane, k)) & 3) << 4;
}

void embed_grouped(const Segment& segment, int64_t row, float* out) {
  const int64_t lane = row % kPanelRows;
  const std::byte* panel = segment.panel(row / kPanelRows);
  const std::byte* record = segment.panel_scales(row / kPanelRows);
  for (int64_t g = 0; g < segment.groups; ++g, record += segment.record_bytes()) {
    uint16_t half = 0;
    std::memcpy(&half, record + 2 * lane, sizeof half);
    const float scale = f16_to_f32(half) * segment.scale_unit;
    const std::byte* offsets = record + 2 * kPanelRows;
    int zero = segment.zero;
    if (segment.offsets == Offsets::kZeros) zero = std::to_integer<int>(offsets[lane]);
    float minimum = 0;
    if (segment.offsets == Offsets::kMinima) {
      std::memcpy(&half, offsets + 2 * lane, sizeof half);
      minimum = f16_to_f32(half) * segment.minimum_unit;
    }
    for (int64_t k = g * segment.group_size; k < (g + 1) * segment.group_size; ++k) {
      const int code = code_at(segment, panel, lane, k);
      out[k] = segment.offsets == Offsets::kMinima ? scale * static_cast<float>(code) + minimum
                                                   : scale * static_cast<float>(code - zero);
    }
  }
}

}  // namespace

size_t Segment::panel_bytes() const {
  const auto numbers = static_cast<size_t>(columns * kPanelRows);
  switch (format) {
    case WeightFormat::kF32:
      return 4 * numbers;
    case WeightFormat::kBF16:
      return 4 * static_cast<size_t>((columns + 1) / 2 * kPanelRows);
    case WeightFormat::kF16:
      return 2 * numbers;
    case WeightFormat::kInt8:
      return numbers;
    case WeightFormat::kInt4:
      return numbers / 2;
    case WeightFormat::kInt6:
      return numbers / 4 * 3;
  }
  return 0;
}

size_t CpuWeight::bytes() const {
  size_t total = bias_.size() * sizeof(float);
  for (const Segment& segment : segments_) total += segment.codes.bytes() + segment.scales.bytes();
  return total;
}

const float* CpuWeight::bias(const Segment& segment, int64_t panel) const {
  if (bias_.empty()) return nullptr;
  int64_t at = 0;
  for (const Segment& other : segments_) {
    if (&other == &segment) break;
    at += other.panels();
  }
  return bias_.data() + (at + panel) * kPanelRows;
}

std::unique_ptr<CpuWeight> pack_weight(ThreadPool& pool,
                                       std::span<const Weight* const> parts,
                                       std::span<const float> bias,
                                       Precision precision,
                                       HugePageArena& arena) {
  QUERN_CHECK(!parts.empty());
  auto packed = std::make_unique<CpuWeight>();
  packed->columns_ = weight_columns(*parts[0]);
  for (const Weight* part : parts) {
    QUERN_CHECK(weight_columns(*part) == packed->columns_);
    Segment segment;
    segment.row_begin = packed->rows_;
    segment.rows = weight_rows(*part);
    segment.columns = packed->columns_;
    const auto* grouped = std::get_if<GroupedWeight>(part);
    std::string note;
    if (grouped != nullptr && precision == Precision::kFast) {
      segment.format = grouped_format(grouped->bits);
      segment.group_size = grouped->group_size;
      segment.groups = segment.columns / segment.group_size;
      note = pack_grouped(pool, arena, *grouped, segment);
    } else {
      segment.format = dense_format(*part, precision);
      note = pack_dense(pool, arena, *part, segment);
    }
    if (packed->note_.empty()) packed->note_ = note;
    packed->rows_ += segment.rows;
    packed->panels_ += segment.panels();
    packed->segments_.push_back(std::move(segment));
  }
  if (bias.empty()) return packed;
  QUERN_CHECK(static_cast<int64_t>(bias.size()) == packed->rows_);
  packed->bias_.resize(static_cast<size_t>(packed->panels_ * kPanelRows));
  float* to = packed->bias_.data();
  for (const Segment& segment : packed->segments_) {
    std::copy_n(bias.data() + segment.row_begin, segment.rows, to);
    to += segment.panels() * kPanelRows;
  }
  return packed;
}

void embed_rows(ThreadPool& pool,
                Tensor out,
                const CpuWeight& table,
                std::span<const int32_t> tokens) {
  constexpr int64_t kTokensPerChunk = 8;
  QUERN_CHECK(out.row_elements() == table.columns());
  const auto count = static_cast<int64_t>(tokens.size());
  pool.for_each_chunk(count, kTokensPerChunk, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = tokens[static_cast<size_t>(t)];
      QUERN_CHECK(row >= 0 && row < table.rows());
      const auto segments = table.segments();
      const auto& segment = *std::find_if(segments.begin(), segments.end(), [&](const Segment& s) {
        return row < s.row_begin + s.rows;
      });
      if (segment.group_size == 0) {
        embed_dense(segment, row - segment.row_begin, out.f32_row(t));
      } else {
        embed_grouped(segment, row - segment.row_begin, out.f32_row(t));
      }
    }
  });
}

}  // namespace quern::cpu
