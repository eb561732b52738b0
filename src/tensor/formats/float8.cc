#include "tensor/formats/float8.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "base/check.h"

namespace quern {
namespace {

constexpr int kMantissaBits = 3;
constexpr int kBias = 7;
constexpr uint8_t kNan = 0x7f;
constexpr int kLargestBits = 6;  // the largest integer of a group lies in [2^6, 2^7)
constexpr int64_t kRowsPerChunk = 16;
constexpr int kGroupSizes[] = {128, 64, 32};

constexpr float decode(uint8_t bits) {
  const int exponent = (bits >> kMantissaBits) & 15;
  const int mantissa = bits & 7;
  if ((bits & kNan) == kNan) return std::numeric_limits<float>::quiet_NaN();
  const int significand = exponent == 0 ? mantissa : mantissa + 8;
  const int shift = (exponent == 0 ? 1 : exponent) - kBias - kMantissaBits;
  float value = static_cast<float>(significand);
  for (int i = 0; i < shift; ++i) value *= 2;
  for (int i = 0; i > shift; --i) value /= 2;
  return (bits & 0x80) != 0 ? -value : value;
}

constexpr std::array<float, 256> make_table() {
  std::array<float, 256> table{};
  for (size_t i = 0; i < table.size(); ++i) table[i] = decode(static_cast<uint8_t>(i));
  return table;
}

constexpr std::array<float, 256> kValues = make_table();

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool groups_fit(int size, int64_t columns, int64_t block_columns) {
  return columns % size == 0 && (block_columns % size == 0 || block_columns >= columns);
}

// The codes of one group become integers; returns the scale.
float round_group(const float* values, int count, uint8_t* codes) {
  float largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  if (largest == 0) {
    std::fill_n(codes, count, static_cast<uint8_t>(kByteZero));
    return 0;
  }
  const int exponent = std::ilogb(largest) - kLargestBits;
  for (int i = 0; i < count; ++i) {
    const float steps = std::nearbyint(std::ldexp(values[i], -exponent));
    codes[i] = static_cast<uint8_t>(static_cast<int>(steps) + kByteZero);
  }
  return std::ldexp(1.0f, exponent);
}

}  // namespace

float e4m3_to_f32(uint8_t bits) { return kValues[bits]; }

Result<Float8Weight> make_float8_weight(Float8Parts parts) {
  const auto [rows, columns] = parts.shape;
  QUERN_CHECK(static_cast<int64_t>(parts.codes.size()) == rows * columns);
  QUERN_CHECK(parts.block_rows > 0 && parts.block_columns > 0);
  const int64_t blocks = ceil_div(rows, parts.block_rows) * ceil_div(columns, parts.block_columns);
  if (static_cast<int64_t>(parts.scales.size()) != blocks) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: {} scales; expected {} for blocks of {} x {}", parts.name,
                             parts.scales.size(), blocks, parts.block_rows, parts.block_columns)};
  }
  for (size_t i = 0; i < parts.scales.size(); ++i) {
    if (std::isfinite(parts.scales[i])) continue;
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: scale {} is {}; scales must be finite", parts.name, i, parts.scales[i])};
  }
  const auto* codes = reinterpret_cast<const uint8_t*>(parts.codes.data());
  const auto* nan = std::find_if(codes, codes + parts.codes.size(),
                                 [](uint8_t code) { return (code & kNan) == kNan; });
  if (nan != codes + parts.codes.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: row {}, column {} is NaN; weights must be finite", parts.name,
                             (nan - codes) / columns, (nan - codes) % columns)};
  }
  return Float8Weight{.rows = rows,
                      .columns = columns,
                      .block_rows = parts.block_rows,
                      .block_columns = parts.block_columns,
                      .codes = codes,
                      .scales = std::move(parts.scales)};
}

std::optional<int> float8_group_size(int64_t columns, int64_t block_columns) {
  for (const int size : kGroupSizes) {
    if (groups_fit(size, columns, block_columns)) return size;
  }
  return std::nullopt;
}

GroupedWeight integers_of(const Float8Weight& weight, int group_size, ThreadPool& pool) {
  QUERN_CHECK(groups_fit(group_size, weight.columns, weight.block_columns));
  GroupedWeight out = empty_bytes(weight.rows, weight.columns, group_size);
  pool.for_each_chunk(out.rows, kRowsPerChunk, [&](int64_t begin, int64_t end, int) {
    std::vector<float> values(static_cast<size_t>(group_size));
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < out.groups(); ++g) {
        const int64_t at = row * out.columns + g * group_size;
        for (int i = 0; i < group_size; ++i)
          values[static_cast<size_t>(i)] = e4m3_to_f32(weight.codes[at + i]);
        const float step = round_group(values.data(), group_size, out.codes.data() + at);
        out.scales[static_cast<size_t>(row * out.groups() + g)] =
            weight.scale(row, g * group_size) * step;
      }
    }
  });
  return out;
}

}  // namespace quern
