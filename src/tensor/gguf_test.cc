#include "tensor/gguf.h"

#include <cmath>
#include <cstring>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "tensor/gguf_builder.h"

namespace quern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint32_t kF32Type = 0;
constexpr uint32_t kQ4_1Type = 3;
constexpr uint32_t kIQ2XsType = 17;
const std::string kGolden = QUERN_SOURCE_DIR "/tests/golden/tensor/";

std::string raw32(uint32_t value) { return GgufBuilder::raw(value); }

std::string array(uint32_t type, uint64_t count, const std::string& elements) {
  return raw32(type) + GgufBuilder::raw(count) + elements;
}

void expect_error(const GgufBuilder& builder,
                  std::string_view message,
                  ErrorCode code = ErrorCode::kInvalidArgument) {
  const std::string file = builder.build();
  const auto parsed = parse_gguf(file);
  ASSERT_FALSE(parsed.has_value()) << message;
  EXPECT_EQ(parsed.error().code, code);
  EXPECT_THAT(parsed.error().message, HasSubstr(message));
  EXPECT_THAT(parsed.error().message, HasSubstr("test.gguf"));
}

TEST(Gguf, ReadsMetadataOfEveryTypeAsTheReferenceWroteIt) {
  const auto file = GgufFile::open(kGolden + "formats.gguf");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(*file->string("general.architecture"), "test");
  const auto whole = [&](const char* key) {
    return *file->integer(key, std::nullopt, INT64_MIN, INT64_MAX);
  };
  EXPECT_EQ(whole("test.u8"), 200);
  EXPECT_EQ(whole("test.i8"), -100);
  EXPECT_EQ(whole("test.u16"), 60000);
  EXPECT_EQ(whole("test.i16"), -30000);
  EXPECT_EQ(whole("test.u32"), 4000000000);
  EXPECT_EQ(whole("test.i32"), -2000000000);
  EXPECT_EQ(whole("test.u64"), int64_t{1} << 62);
  EXPECT_EQ(whole("test.i64"), -(int64_t{1} << 62));
  EXPECT_EQ(*file->number("test.f32"), double{0.1f});
  EXPECT_EQ(*file->number("test.f64"), 0.1);
  EXPECT_EQ(*file->number("test.u8"), 200.0);
  EXPECT_TRUE(*file->boolean("test.bool"));
  EXPECT_EQ(*file->string("test.string"), "gr\u00fc\u00df dich");
  EXPECT_THAT(*file->integers("test.integers"), ElementsAre(1, -2, 3));
  EXPECT_THAT(*file->numbers("test.floats"), ElementsAre(0.5, -1.5));
  EXPECT_THAT(*file->strings("test.strings"), ElementsAre("a", "", "\u4f60\u597d"));
  EXPECT_EQ(std::get<std::vector<bool>>(file->find("test.bools")->value),
            (std::vector<bool>{true, false}));
  const auto& nested = std::get<GgufValue::Nested>(file->find("test.nested")->value);
  ASSERT_EQ(nested.size(), 2u);
  EXPECT_THAT(std::get<std::vector<int64_t>>(nested[0].value), ElementsAre(1, 2));
}

TEST(Gguf, ListsTensorsWithRowsFirst) {
  const auto file = GgufFile::open(kGolden + "formats.gguf");
  ASSERT_TRUE(file.has_value());
  const GgufTensor* tensor = file->tensor("Q4_K.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_THAT(tensor->shape, ElementsAre(3, 512));
  EXPECT_EQ(tensor->format, &kFormatQ4_K);
  EXPECT_EQ(tensor->bytes.size(), 3u * 2 * 144);
  EXPECT_EQ(file->tensors().size(), kFormats.size());
  EXPECT_EQ(file->tensor("absent"), nullptr);
}

TEST(Gguf, ViewsSurviveAMove) {
  auto file = GgufFile::open(kGolden + "formats.gguf");
  const GgufFile moved = std::move(*file);
  EXPECT_EQ(*moved.string("general.architecture"), "test");
  EXPECT_TRUE(read_floats(*moved.tensor("F16.weight")).has_value());
}

TEST(Gguf, GettersNameFileKeyAndWhatWouldBeRight) {
  const std::string file = GgufBuilder()
                               .pair("count", 4, raw32(7))
                               .pair("name", 8, GgufBuilder::text("x"))
                               .pair("nan", 6, GgufBuilder::raw(std::nanf("")))
                               .build();
  const auto parsed = parse_gguf(file);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->integer("count", std::nullopt, 8).error().message,
            "test.gguf: metadata \"count\" has another type or value; expected an integer from 8 "
            "to 1099511627776");
  EXPECT_EQ(parsed->integer("absent").error().message, "test.gguf: metadata \"absent\" is missing");
  EXPECT_EQ(*parsed->integer("absent", 5), 5);
  EXPECT_EQ(*parsed->number("absent", 0.5), 0.5);
  EXPECT_EQ(*parsed->boolean("absent", true), true);
  EXPECT_EQ(*parsed->string("absent", "y"), "y");
  for (const Error& error : {parsed->integer("name").error(), parsed->number("name").error(),
                             parsed->number("nan").error(), parsed->boolean("name").error(),
                             parsed->string("count").error(), parsed->integers("name").error(),
                             parsed->numbers("name").error(), parsed->strings("name").error(),
                             parsed->number("absent").error(), parsed->boolean("absent").error(),
                             parsed->string("absent").error(), parsed->strings("absent").error()}) {
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.message, HasSubstr("test.gguf: metadata \""));
  }
}

GgufBuilder small_file() {
  return GgufBuilder()
      .pair("general.alignment", 4, raw32(32))
      .pair("text", 8, GgufBuilder::text("hello"))
      .pair("list", 9, array(9, 1, array(8, 1, GgufBuilder::text("ab"))))
      .tensor("a", {4, 2}, kF32Type, 0)
      .tensor("b", {32}, kQ4_1Type, 32)
      .data(std::string(32 + 20, '\0'));
}

TEST(Gguf, RefusesAFileCutAtAnyByte) {
  const std::string whole = small_file().build();
  ASSERT_TRUE(parse_gguf(whole).has_value());
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string cut = whole.substr(0, size);
    const auto parsed = parse_gguf(cut);
    ASSERT_FALSE(parsed.has_value()) << size;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(parsed.error().message, HasSubstr("truncated")) << size;
  }
}

TEST(Gguf, ReadsVersion2) {
  GgufBuilder builder = small_file();
  builder.version = 2;
  const std::string file = builder.build();
  EXPECT_TRUE(parse_gguf(file).has_value());
}

TEST(Gguf, RefusesOtherFilesVersionsAndByteOrders) {
  GgufBuilder builder = small_file();
  builder.magic = 0x12345678;
  expect_error(builder, "does not begin with \"GGUF\"");
  builder = small_file();
  builder.version = 0x03000000;
  expect_error(builder, "big-endian");
  builder.version = 1;
  expect_error(builder, "version 1; versions 2 and 3", ErrorCode::kUnsupported);
}

TEST(Gguf, RefusesCountsThatTheFileCannotHold) {
  GgufBuilder builder = small_file();
  builder.extra_pairs = int64_t{1} << 60;
  expect_error(builder, "metadata entries do not fit");
  builder = small_file();
  builder.extra_tensors = int64_t{1} << 60;
  expect_error(builder, "tensors do not fit");
  builder = small_file();
  builder.extra_tensors = 4;  // fit what is left at the header, not behind the metadata
  expect_error(builder, "tensors do not fit");
  expect_error(GgufBuilder().pair("k", 8, GgufBuilder::raw(uint64_t{1} << 63)), "k has 9223");
  expect_error(GgufBuilder().pair("k", 9, array(4, uint64_t{1} << 62, "")), "elements, but");
  expect_error(GgufBuilder().pair("k", 9, array(4, UINT64_MAX, "")), "elements, but");
  expect_error(GgufBuilder().pair(std::string(70000, 'k'), 4, raw32(1)), "at most 65535");
}

TEST(Gguf, RefusesMetadataOfUnknownTypesAndValues) {
  expect_error(GgufBuilder().pair("k", 13, raw32(1)), "\"k\" has type 13");
  expect_error(GgufBuilder().pair("k", 9, array(13, 1, raw32(1))), "elements of type 13");
  expect_error(GgufBuilder().pair("k", 7, "\x02"), "boolean of value 2");
  expect_error(GgufBuilder().pair("k", 10, GgufBuilder::raw(UINT64_MAX)), "integers up to");
  expect_error(GgufBuilder().pair("k", 4, raw32(1)).pair("k", 4, raw32(1)), "comes twice");
}

TEST(Gguf, RefusesDeeplyNestedArrays) {
  std::string value = array(4, 1, raw32(1));
  for (int i = 0; i < 3; ++i) value = array(9, 1, value);
  const std::string allowed = GgufBuilder().pair("k", 9, value).build();
  EXPECT_TRUE(parse_gguf(allowed).has_value());
  expect_error(GgufBuilder().pair("k", 9, array(9, 1, value)), "deeper than 4");
}

TEST(Gguf, RefusesAWrongAlignment) {
  expect_error(GgufBuilder().pair("general.alignment", 4, raw32(24)), "power of two");
  expect_error(GgufBuilder().pair("general.alignment", 4, raw32(0)), "general.alignment");
  expect_error(GgufBuilder().pair("general.alignment", 4, raw32(1u << 31)), "general.alignment");
  expect_error(GgufBuilder().pair("general.alignment", 8, GgufBuilder::text("x")), "an integer");
}

TEST(Gguf, RefusesTensorsThatDoNotFit) {
  const std::string data(64, '\0');
  const auto with = [&](std::vector<uint64_t> shape, uint32_t type, uint64_t offset) {
    return GgufBuilder().tensor("a", std::move(shape), type, offset).data(data);
  };
  expect_error(with({}, kF32Type, 0), "0 dimensions");
  expect_error(with({1, 1, 1, 1, 1}, kF32Type, 0), "5 dimensions");
  expect_error(with({4, 0}, kF32Type, 0), "dimension of 0");
  expect_error(with({uint64_t{1} << 32, uint64_t{1} << 32}, kF32Type, 0), "a dimension of");
  expect_error(with({uint64_t{1} << 62}, kF32Type, 0), "beyond 64 bits");
  expect_error(with({uint64_t{1} << 60}, kF32Type, 0), "beyond the file");
  expect_error(with({17}, kF32Type, 0), "beyond the file");
  expect_error(with({4}, kF32Type, 64), "beyond the file");
  expect_error(with({4}, kF32Type, UINT64_MAX - 31), "beyond the file");
  expect_error(with({4}, kF32Type, 4), "multiple of the alignment 32");
  expect_error(with({33}, kQ4_1Type, 0), "multiple of 32");
  expect_error(with({4}, 9999, uint64_t{1} << 40), "beyond the file");
}

TEST(Gguf, RefusesOverlapAndRepeatedNames) {
  const std::string data(96, '\0');
  expect_error(GgufBuilder().tensor("b", {8}, 0, 32).tensor("a", {9}, 0, 0).data(data),
               "\"a\" and \"b\" overlap");
  expect_error(GgufBuilder().tensor("a", {8}, 0, 0).tensor("b", {8}, 0, 0).data(data), "overlap");
  expect_error(GgufBuilder().tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).data(data), "twice");
}

TEST(Gguf, ListsUnreadableTypesAndFailsOnlyWhenTheyAreRead) {
  const std::string file = GgufBuilder()
                               .tensor("known", {256}, kIQ2XsType, 0)
                               .tensor("new", {8}, 12345, 96)
                               .data(std::string(128, '\0'))
                               .build();
  const auto parsed = parse_gguf(file);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed->tensor("known")->bytes.size(), 74u);
  const auto floats = read_floats(*parsed->tensor("known"));
  EXPECT_EQ(floats.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(floats.error().message,
            "test.gguf: tensor \"known\" has type 17 (IQ2_XS), which cannot be read; known types: "
            "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K");
  const auto weight = make_weight(*parsed->tensor("new"));
  EXPECT_EQ(weight.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(weight.error().message, HasSubstr("12345 (unknown)"));
}

TEST(Gguf, RefusesScalesMinimaAndDenseValuesThatAreNotFinite) {
  std::string blocks(2 * 20, '\0');
  blocks[20 + 1] = '\x7e';  // the scale of the second block is an f16 NaN
  std::string dense(8, '\0');
  const float infinity = std::numeric_limits<float>::infinity();
  std::memcpy(dense.data() + 4, &infinity, sizeof infinity);
  std::string minima(20, '\0');
  minima[3] = '\x7c';  // an f16 infinity
  blocks.resize(64);
  minima.resize(32);
  const std::string file = GgufBuilder()
                               .tensor("scale", {64}, kQ4_1Type, 0)
                               .tensor("minimum", {32}, kQ4_1Type, 64)
                               .tensor("dense", {1, 2}, kF32Type, 96)
                               .data(blocks + minima + dense)
                               .build();
  const auto parsed = parse_gguf(file);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const auto message = [&](const char* name) {
    const auto weight = make_weight(*parsed->tensor(name));
    EXPECT_EQ(weight.error().code, ErrorCode::kInvalidArgument);
    return weight.error().message;
  };
  EXPECT_THAT(message("scale"), HasSubstr("\"scale\": the scale of row 0, group 1 is nan"));
  EXPECT_THAT(message("minimum"), HasSubstr("\"minimum\": the minimum of row 0, group 0 is inf"));
  EXPECT_THAT(message("dense"), HasSubstr("\"dense\": row 1, column 0 is inf"));
}

TEST(Gguf, CopiesDenseWeightsThatAreNotAligned) {
  const std::string floats = GgufBuilder::raw(1.5f) + GgufBuilder::raw(-2.0f);
  GgufBuilder builder;
  builder.pair("general.alignment", 4, raw32(1)).pair("pad", 0, "x").tensor("a", {2}, 0, 0);
  builder.alignment = 1;
  const std::string file = builder.data(floats).build();
  for (const size_t shift : {0u, 1u, 2u, 3u}) {
    const std::string shifted = std::string(shift, 'x') + file;
    const auto parsed = GgufFile::parse(
        std::as_bytes(std::span(shifted.data() + shift, shifted.size() - shift)), "x");
    ASSERT_TRUE(parsed.has_value());
    const auto weight = make_weight(*parsed->tensor("a"));
    ASSERT_TRUE(weight.has_value());
    const Tensor& values = std::get<DenseWeight>(*weight).values;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(values.data) % alignof(float), 0u);
    EXPECT_EQ(values.f32()[0], 1.5f);
    EXPECT_EQ(values.f32()[1], -2.0f);
  }
}

TEST(Gguf, NamesAMissingFile) {
  const auto file = GgufFile::open("/nonexistent/model.gguf");
  EXPECT_EQ(file.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace quern
