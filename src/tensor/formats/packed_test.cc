// The packed INT4 and INT8 layouts against layers that other programs packed.
#include <cstring>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/formats/awq.h"
#include "tensor/formats/compressed_tensors.h"
#include "tensor/safetensors.h"

namespace quern {
namespace {

using testing::HasSubstr;

const std::string kGolden = QUERN_SOURCE_DIR "/tests/golden/tensor/";

SafetensorsFile golden(const std::string& name) {
  auto file = SafetensorsFile::open(kGolden + name);
  EXPECT_TRUE(file.has_value()) << file.error().message;
  return std::move(*file);
}

void expect_same_floats(const GroupedWeight& weight, const SafetensorsEntry& expected) {
  ASSERT_EQ(weight.rows, expected.shape[0]);
  ASSERT_EQ(weight.columns, expected.shape[1]);
  const FloatMatrix wide = widen(weight);
  const std::vector<float> floats = *read_floats(expected);
  for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(wide.data()[i], floats[i]) << i;
}

template <typename T>
void expect_same_bytes(const std::vector<T>& packed, std::span<const std::byte> expected) {
  ASSERT_EQ(packed.size() * sizeof(T), expected.size());
  if (packed.empty()) return;
  EXPECT_EQ(std::memcmp(packed.data(), expected.data(), expected.size()), 0);
}

AwqTensors awq_layer(const SafetensorsFile& file) {
  return {.name = "layer",
          .qweight = file.find("qweight")->bytes,
          .qzeros = file.find("qzeros")->bytes,
          .scales = file.find("scales")->bytes,
          .inputs = 64,
          .outputs = 24,
          .group_size = 32};
}

void expect_awq_error(const AwqTensors& tensors, std::string_view message) {
  const auto weight = unpack_awq(tensors);
  ASSERT_FALSE(weight.has_value()) << message;
  EXPECT_EQ(weight.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(weight.error().message, HasSubstr("layer: "));
  EXPECT_THAT(weight.error().message, HasSubstr(message));
}

void expect_awq_pack_error(const GroupedWeight& weight, std::string_view message) {
  const auto packed = pack_awq(weight, "layer");
  ASSERT_FALSE(packed.has_value()) << message;
  EXPECT_EQ(packed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(packed.error().message, HasSubstr("layer: "));
  EXPECT_THAT(packed.error().message, HasSubstr(message));
}

TEST(Awq, UnpacksToTheGoldenFloatsAndPacksToTheSameBytes) {
  const SafetensorsFile file = golden("awq.safetensors");
  const auto weight = unpack_awq(awq_layer(file));
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  EXPECT_EQ(weight->bits, 4);
  expect_same_floats(*weight, *file.find("weight"));
  const auto packed = pack_awq(*weight, "layer");
  ASSERT_TRUE(packed.has_value()) << packed.error().message;
  expect_same_bytes(packed->qweight, file.find("qweight")->bytes);
  expect_same_bytes(packed->qzeros, file.find("qzeros")->bytes);
  expect_same_bytes(packed->scales, file.find("scales")->bytes);
}

TEST(Awq, LaysOutEightChannelsInTheOrderOfTheFormat) {
  GroupedWeight weight;
  weight.rows = 8;
  weight.columns = 1;
  weight.group_size = 1;
  weight.codes = {0, 1, 2, 3, 4, 5, 6, 7};
  weight.zeros = {7, 6, 5, 4, 3, 2, 1, 0};
  weight.scales.assign(8, 1.0f);
  const auto packed = pack_awq(weight, "layer");
  ASSERT_TRUE(packed.has_value());
  EXPECT_EQ(packed->qweight[0], 0x75316420u);
  EXPECT_EQ(packed->qzeros[0], 0x02461357u);
}

TEST(Awq, ReadsOneGroupForAllInputs) {
  const SafetensorsFile file = golden("awq.safetensors");
  AwqTensors tensors = awq_layer(file);
  tensors.group_size = -1;
  tensors.qzeros = tensors.qzeros.first(tensors.qzeros.size() / 2);
  tensors.scales = tensors.scales.first(tensors.scales.size() / 2);
  const auto weight = unpack_awq(tensors);
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  EXPECT_EQ(weight->group_size, 64);
  EXPECT_EQ(weight->groups(), 1);
}

TEST(Awq, RefusesTensorsThatDoNotAgree) {
  const SafetensorsFile file = golden("awq.safetensors");
  AwqTensors tensors = awq_layer(file);
  tensors.qweight = tensors.qweight.first(8);
  expect_awq_error(tensors, "qweight has 8 bytes; expected I32 [64, 3]");
  tensors = awq_layer(file);
  tensors.qzeros = {};
  expect_awq_error(tensors, "qzeros has 0 bytes; expected I32 [2, 3]");
  tensors = awq_layer(file);
  tensors.scales = tensors.scales.first(2);
  expect_awq_error(tensors, "scales have 2 bytes; expected 48 numbers of F16");
  tensors = awq_layer(file);
  tensors.scales_dtype = DType::kI16;
  expect_awq_error(tensors, "scales are I16; expected F16, BF16 or F32");
  for (const int64_t group_size : {int64_t{0}, int64_t{-2}, int64_t{48}, int64_t{1} << 40}) {
    tensors = awq_layer(file);
    tensors.group_size = group_size;
    expect_awq_error(tensors, "does not divide 64 inputs");
  }
  tensors = awq_layer(file);
  tensors.outputs = 20;
  expect_awq_error(tensors, "expected outputs in multiples of 8");
  tensors.outputs = -8;
  expect_awq_error(tensors, "expected outputs in multiples of 8");
  tensors.outputs = int64_t{1} << 62;
  expect_awq_error(tensors, "qweight has");
}

TEST(Awq, RefusesScalesThatAreNotFinite) {
  const SafetensorsFile file = golden("awq.safetensors");
  AwqTensors tensors = awq_layer(file);
  std::vector<std::byte> scales(tensors.scales.begin(), tensors.scales.end());
  scales[7] = std::byte{0x7c};
  scales[6] = std::byte{0};
  tensors.scales = scales;
  expect_awq_error(tensors, "scale 3 is NaN or infinite");
}

TEST(Awq, RefusesToPackWhatTheFormatCannotHold) {
  const SafetensorsFile file = golden("awq.safetensors");
  const GroupedWeight good = *unpack_awq(awq_layer(file));
  GroupedWeight weight = good;
  weight.bits = 8;
  expect_awq_pack_error(weight, "8 bits with zero points");
  weight = good;
  weight.offset = GroupOffset::kMinimum;
  expect_awq_pack_error(weight, "4 bits with minima");
  weight = good;
  weight.rows = 20;
  expect_awq_pack_error(weight, "20 outputs");
  weight = good;
  weight.zeros[0] = 16;
  expect_awq_pack_error(weight, "a zero is 16");
  for (const float scale : {0.1f, 1e6f, std::numeric_limits<float>::quiet_NaN()}) {
    weight = good;
    weight.scales[0] = scale;
    expect_awq_pack_error(weight, "no finite number of F16");
  }
}

struct Layer {
  const char* name;
  int bits;
  int64_t group_size;
  ZeroPoints zero_points;
};

class CompressedTensorsLayers : public testing::TestWithParam<Layer> {};

CompressedTensors ct_layer(const SafetensorsFile& file, const Layer& layer) {
  const std::string name = layer.name;
  const std::vector<int64_t> shape = *read_integers(*file.find(name + ".weight_shape"));
  CompressedTensors tensors{.name = "layer",
                            .weight_packed = file.find(name + ".weight_packed")->bytes,
                            .weight_scale = file.find(name + ".weight_scale")->bytes,
                            .scale_dtype = file.find(name + ".weight_scale")->dtype,
                            .outputs = shape[0],
                            .inputs = shape[1],
                            .group_size = layer.group_size,
                            .bits = layer.bits};
  const SafetensorsEntry* zeros = file.find(name + ".weight_zero_point");
  if (zeros != nullptr) tensors.weight_zero_point = zeros->bytes;
  return tensors;
}

TEST_P(CompressedTensorsLayers, UnpackToTheGoldenFloatsAndPackToTheSameBytes) {
  const SafetensorsFile file = golden("ct.safetensors");
  const CompressedTensors tensors = ct_layer(file, GetParam());
  EXPECT_EQ(tensors.weight_zero_point.empty(), GetParam().zero_points == ZeroPoints::kSymmetric);
  const auto weight = unpack_compressed_tensors(tensors);
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  EXPECT_EQ(weight->bits, GetParam().bits);
  expect_same_floats(*weight, *file.find(std::string(GetParam().name) + ".weight"));
  const auto packed = pack_compressed_tensors(
      *weight, "layer",
      {.scale_dtype = tensors.scale_dtype, .zero_points = GetParam().zero_points});
  ASSERT_TRUE(packed.has_value()) << packed.error().message;
  expect_same_bytes(packed->weight_packed, tensors.weight_packed);
  expect_same_bytes(packed->weight_scale, tensors.weight_scale);
  expect_same_bytes(packed->weight_zero_point, tensors.weight_zero_point);
  EXPECT_EQ(packed->weight_shape[0], tensors.outputs);
  EXPECT_EQ(packed->weight_shape[1], tensors.inputs);
}

constexpr Layer kSym4 = {"sym4", 4, 32, ZeroPoints::kSymmetric};
constexpr Layer kAsym4 = {"asym4", 4, 32, ZeroPoints::kAsymmetric};

INSTANTIATE_TEST_SUITE_P(All,
                         CompressedTensorsLayers,
                         testing::Values(kSym4,
                                         kAsym4,
                                         Layer{"channel4", 4, -1, ZeroPoints::kSymmetric},
                                         Layer{"asymchannel4", 4, -1, ZeroPoints::kAsymmetric},
                                         Layer{"asym8", 8, 64, ZeroPoints::kAsymmetric},
                                         Layer{"channel8", 8, -1, ZeroPoints::kSymmetric}),
                         [](const auto& param) { return std::string(param.param.name); });

void expect_ct_error(const CompressedTensors& tensors,
                     std::string_view message,
                     ErrorCode code = ErrorCode::kInvalidArgument) {
  const auto weight = unpack_compressed_tensors(tensors);
  ASSERT_FALSE(weight.has_value()) << message;
  EXPECT_EQ(weight.error().code, code);
  EXPECT_THAT(weight.error().message, HasSubstr("layer: "));
  EXPECT_THAT(weight.error().message, HasSubstr(message));
}

void expect_ct_pack_error(const GroupedWeight& weight,
                          const CompressedTensorsOptions& options,
                          std::string_view message,
                          ErrorCode code = ErrorCode::kInvalidArgument) {
  const auto packed = pack_compressed_tensors(weight, "layer", options);
  ASSERT_FALSE(packed.has_value()) << message;
  EXPECT_EQ(packed.error().code, code);
  EXPECT_THAT(packed.error().message, HasSubstr("layer: "));
  EXPECT_THAT(packed.error().message, HasSubstr(message));
}

TEST(CompressedTensorsPacking, LaysOutCodesAndZerosInOrder) {
  GroupedWeight weight;
  weight.rows = weight.columns = weight.group_size = 8;
  for (int row = 0; row < 8; ++row) {
    for (uint8_t i = 0; i < 8; ++i) weight.codes.push_back(i);
  }
  weight.zeros = {0, 1, 2, 3, 4, 5, 6, 7};
  weight.scales.assign(8, 1.0f);
  const auto packed = pack_compressed_tensors(weight, "layer");
  ASSERT_TRUE(packed.has_value());
  EXPECT_EQ(packed->weight_packed[3], 0x76543210u);
  EXPECT_THAT(packed->weight_zero_point, testing::ElementsAre(0x76543210u));
}

TEST(CompressedTensorsPacking, RefusesTensorsThatDoNotAgree) {
  const SafetensorsFile file = golden("ct.safetensors");
  const CompressedTensors good = ct_layer(file, kAsym4);
  CompressedTensors tensors = good;
  tensors.weight_packed = tensors.weight_packed.first(4);
  expect_ct_error(tensors, "weight_packed has 4 bytes; expected I32 [10, 8]");
  tensors = good;
  tensors.weight_zero_point = tensors.weight_zero_point.first(4);
  expect_ct_error(tensors, "weight_zero_point has 4 bytes; expected I32 [2, 2]");
  tensors = good;
  tensors.weight_scale = {};
  expect_ct_error(tensors, "scales have 0 bytes; expected 20 numbers of F16");
  tensors = good;
  tensors.scale_dtype = DType::kF64;
  expect_ct_error(tensors, "scales are F64");
  for (const int64_t group_size : {int64_t{0}, int64_t{-2}, int64_t{48}, int64_t{1} << 40}) {
    tensors = good;
    tensors.group_size = group_size;
    expect_ct_error(tensors, "does not divide 64 inputs");
  }
  tensors = good;
  tensors.outputs = 0;
  expect_ct_error(tensors, "weight_shape is [0, 64]");
  tensors.outputs = int64_t{1} << 62;
  expect_ct_error(tensors, "weight_packed has");
  tensors = good;
  tensors.bits = 3;
  expect_ct_error(tensors, "codes of 3 bits", ErrorCode::kUnsupported);
  const std::vector<std::byte> ones(good.weight_scale.size(), std::byte{0xff});
  tensors = good;
  tensors.weight_scale = ones;
  expect_ct_error(tensors, "scale 0 is NaN or infinite");
}

TEST(CompressedTensorsPacking, RefusesToPackWhatTheFormatCannotHold) {
  const SafetensorsFile file = golden("ct.safetensors");
  const GroupedWeight good = *unpack_compressed_tensors(ct_layer(file, kAsym4));
  const CompressedTensorsOptions half{.scale_dtype = DType::kF16};
  GroupedWeight weight = good;
  weight.bits = 5;
  expect_ct_pack_error(weight, half, "codes of 5 bits", ErrorCode::kUnsupported);
  weight = good;
  weight.offset = GroupOffset::kMinimum;
  expect_ct_pack_error(weight, half, "groups with minima");
  weight = good;
  weight.zeros[3] = 16;
  expect_ct_pack_error(weight, half, "a zero is 16; 4 bits hold 0 to 15");
  weight = good;
  weight.zeros[3] = 7;
  std::fill(weight.zeros.begin(), weight.zeros.begin() + 3, uint8_t{8});
  expect_ct_pack_error(weight, {.scale_dtype = DType::kF16, .zero_points = ZeroPoints::kSymmetric},
                       "a zero is 7; symmetric weights have 8");
  weight = good;
  weight.scales[0] = 0.1f;
  expect_ct_pack_error(weight, half, "no finite number of F16");
  expect_ct_pack_error(weight, {.scale_dtype = DType::kU8}, "scales are U8");
}

}  // namespace
}  // namespace quern
