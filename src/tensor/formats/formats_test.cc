#include "tensor/formats/formats.h"

#include <algorithm>
#include <iterator>

#include <gtest/gtest.h>

#include "base/random.h"
#include "base/thread_pool.h"
#include "tensor/gguf.h"
#include "tensor/gguf_types.h"
#include "tensor/safetensors.h"

namespace quern {
namespace {

// Tensors that another implementation wrote, and the float32 values that it reads in them.
class Formats : public testing::TestWithParam<const StorageFormat*> {
 protected:
  void SetUp() override {
    const std::string folder = QUERN_SOURCE_DIR "/tests/golden/tensor/";
    auto file = GgufFile::open(folder + "formats.gguf");
    auto expected = SafetensorsFile::open(folder + "formats.safetensors");
    ASSERT_TRUE(file.has_value()) << file.error().message;
    ASSERT_TRUE(expected.has_value()) << expected.error().message;
    file_ = std::move(*file);
    const std::string name = std::string(GetParam()->name) + ".weight";
    tensor_ = file_.tensor(name);
    ASSERT_NE(tensor_, nullptr);
    ASSERT_EQ(tensor_->format, GetParam());
    expected_ = *read_floats(*expected->find(name));
  }

  GgufFile file_;
  const GgufTensor* tensor_ = nullptr;
  std::vector<float> expected_;
};

class GroupedFormats : public Formats {};
class EncodedFormats : public Formats {};

// Exactly: every step is one float32 operation, the same in both implementations.
TEST_P(Formats, DecodesToTheGoldenFloatsBitForBit) {
  const auto values = read_floats(*tensor_);
  ASSERT_TRUE(values.has_value());
  ASSERT_EQ(values->size(), expected_.size());
  for (size_t i = 0; i < expected_.size(); ++i) ASSERT_EQ((*values)[i], expected_[i]) << i;
}

TEST_P(Formats, BecomesAWeightOfTheSameFloats) {
  ThreadPool pool(2);
  for (ThreadPool* used : {static_cast<ThreadPool*>(nullptr), &pool}) {
    const auto weight = make_weight(*tensor_, used);
    ASSERT_TRUE(weight.has_value()) << weight.error().message;
    const FloatMatrix wide = widen(*weight);
    ASSERT_EQ(wide.rows(), 3);
    ASSERT_EQ(wide.columns(), 512);
    for (size_t i = 0; i < expected_.size(); ++i) ASSERT_EQ(wide.data()[i], expected_[i]) << i;
  }
}

TEST_P(GroupedFormats, SplitsIntoCodesBelowTheLimitOfItsBits) {
  const Weight weight = *make_weight(*tensor_);
  const auto& grouped = std::get<GroupedWeight>(weight);
  EXPECT_EQ(grouped.bits, GetParam()->bits);
  EXPECT_EQ(grouped.group_size, GetParam()->group_size);
  EXPECT_EQ(grouped.zeros.empty(), grouped.offset == GroupOffset::kMinimum);
  EXPECT_EQ(grouped.minima.empty(), grouped.offset == GroupOffset::kZeroPoint);
  int largest = 0;
  for (const uint8_t code : grouped.codes) largest = std::max<int>(largest, code);
  EXPECT_LT(largest, 1 << grouped.bits);
  EXPECT_GE(largest, (1 << grouped.bits) * 3 / 4);  // the tensor uses the range
}

TEST_P(Formats, DecodesAnyRangeOfRows) {
  std::vector<float> rows(2 * 512);
  decode_rows(*tensor_, 1, 2, rows.data());
  for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], expected_[512 + i]);
}

// Rounding to the nearest code is at most half a step off, plus the rounding of the f16 scale
// (2^-11 relative, times the largest code) and minimum.
TEST_P(EncodedFormats, EncodesWithinHalfAStep) {
  const StorageFormat& format = *GetParam();
  std::vector<float> values(4 * 32);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(random_uniform(1, 0, i)) - 0.5f;
  }
  std::fill(values.begin() + 96, values.end(), 0.0f);
  std::vector<std::byte> packed(static_cast<size_t>(4 * format.block_bytes));
  format.encode(values.data(), 4, packed.data());
  std::vector<float> decoded(values.size());
  format.decode(packed.data(), 4, decoded.data());
  // The largest magnitude is below 0.5, the range below 1: steps of 0.5/8, 1/15 or 0.5/127. Q4_0
  // cannot reach +8 steps and so may be a whole step off.
  const float step = format.bits == 8 ? 0.5f / 127 : 1.0f / 15;
  const float share = &format == &kFormatQ4_0 ? 1.0f : 0.5f;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(decoded[i], values[i], share * step + 1e-3f) << i;
  }
  for (size_t i = 96; i < values.size(); ++i) ASSERT_EQ(decoded[i], 0.0f);
}

std::string format_name(const testing::TestParamInfo<const StorageFormat*>& info) {
  return std::string(info.param->name);
}

std::vector<const StorageFormat*> formats_with(bool (*has)(const StorageFormat*)) {
  std::vector<const StorageFormat*> formats;
  std::copy_if(kFormats.begin(), kFormats.end(), std::back_inserter(formats), has);
  return formats;
}

INSTANTIATE_TEST_SUITE_P(All, Formats, testing::ValuesIn(kFormats), format_name);
INSTANTIATE_TEST_SUITE_P(All,
                         GroupedFormats,
                         testing::ValuesIn(formats_with([](const StorageFormat* format) {
                           return format->split != nullptr;
                         })),
                         format_name);
INSTANTIATE_TEST_SUITE_P(All,
                         EncodedFormats,
                         testing::ValuesIn(formats_with([](const StorageFormat* format) {
                           return format->encode != nullptr;
                         })),
                         format_name);

TEST(FormatTable, AgreesWithTheTableOfGgmlTypes) {
  for (const StorageFormat* format : kFormats) {
    const GgmlType* type = find_ggml_type(format->ggml_type);
    ASSERT_NE(type, nullptr);
    EXPECT_EQ(format->name, type->name);
    EXPECT_EQ(format->block_elements, type->block_elements);
    EXPECT_EQ(format->block_bytes, type->block_bytes);
    EXPECT_EQ(find_format(format->name), format);
    EXPECT_EQ(find_format(format->ggml_type), format);
  }
  EXPECT_EQ(find_format("Q3_K"), nullptr);
  EXPECT_EQ(find_format(99u), nullptr);
}

}  // namespace
}  // namespace quern
