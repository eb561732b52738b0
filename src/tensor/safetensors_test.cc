#include "tensor/safetensors.h"

#include <cmath>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string kGolden = QUERN_SOURCE_DIR "/tests/golden/tensor/";

std::string with_length(const std::string& header, const std::string& data, uint64_t length) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + data;
}

std::string make_file(const std::string& header, const std::string& data) {
  return with_length(header, data, header.size());
}

Result<SafetensorsFile> parse(const std::string& file) {
  return SafetensorsFile::parse(std::as_bytes(std::span(file.data(), file.size())),
                                "t.safetensors");
}

void expect_error(const std::string& file,
                  std::string_view message,
                  ErrorCode code = ErrorCode::kInvalidArgument) {
  const auto parsed = parse(file);
  ASSERT_FALSE(parsed.has_value()) << message;
  EXPECT_EQ(parsed.error().code, code);
  EXPECT_THAT(parsed.error().message, HasSubstr(message));
  EXPECT_THAT(parsed.error().message, HasSubstr("t.safetensors: "));
}

// One tensor "a" with these fields and eight bytes of data.
void expect_entry_error(std::string_view dtype,
                        std::string_view shape,
                        std::string_view offsets,
                        std::string_view message) {
  const std::string header =
      fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  expect_error(make_file(header, std::string(8, '\0')), message);
}

const char kTwo[] =
    R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},)"
    R"("a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}})";

TEST(Safetensors, ReadsWhatTheReferenceWrote) {
  const auto file = SafetensorsFile::open(kGolden + "types.safetensors");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->entries().size(), 17u);
  for (const char* name :
       {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}) {
    const SafetensorsEntry* entry = file->find(name);
    ASSERT_NE(entry, nullptr) << name;
    EXPECT_THAT(entry->shape, ElementsAre(2, 3));
    EXPECT_THAT(*read_integers(*entry), ElementsAre(1, 2, 3, 4, 5, 6)) << name;
  }
  for (const char* name : {"float32", "float16", "bfloat16"}) {
    const auto values = read_floats(*file->find(name));
    ASSERT_TRUE(values.has_value()) << name;
    EXPECT_THAT(*values, ElementsAre(-1.0f, -0.5f, 0.0f, 0.5f, 1.0f, 1.5f)) << name;
  }
  EXPECT_EQ(file->find("float64")->dtype, DType::kF64);
  EXPECT_EQ(file->find("float8_e4m3fn")->dtype, DType::kF8E4M3);
  EXPECT_EQ(file->find("float8_e5m2")->dtype, DType::kF8E5M2);
  EXPECT_EQ(file->find("bool")->dtype, DType::kBool);
  EXPECT_TRUE(file->find("scalar")->shape.empty());
  EXPECT_THAT(*read_floats(*file->find("scalar")), ElementsAre(2.5f));
  EXPECT_THAT(file->find("empty")->shape, ElementsAre(0, 4));
  EXPECT_EQ(read_floats(*file->find("empty"))->size(), 0u);
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->find("absent"), nullptr);
}

TEST(Safetensors, OrdersEntriesByTheirData) {
  const std::string bytes = make_file(kTwo, std::string(12, '\0'));
  const auto file = parse(bytes);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->entries()[0].name, "a");
  EXPECT_EQ(file->entries()[1].name, "b");
  EXPECT_EQ(file->find("b")->bytes.size(), 8u);
}

TEST(Safetensors, AcceptsPaddingUnknownFieldsAndNoTensors) {
  EXPECT_TRUE(parse(make_file("{}", "")).has_value());
  EXPECT_TRUE(parse(make_file("{}   \n ", "")).has_value());
  const std::string file = make_file(
      R"({"a":{"x":[{"y":[1.5,null]},-1,true],"dtype":"U8","z":"s","shape":[],"data_offsets":[0,1]}})",
      "x");
  EXPECT_TRUE(parse(file).has_value()) << parse(file).error().message;
}

TEST(Safetensors, RefusesAFileCutAtAnyByteAndBytesBehindIt) {
  const std::string whole = make_file(kTwo, std::string(12, '\0'));
  for (size_t size = 0; size < whole.size(); ++size) {
    expect_error(whole.substr(0, size), "truncated");
  }
  expect_error(whole + "x", "1 bytes follow the last tensor");
}

TEST(Safetensors, RefusesHostileHeaderLengths) {
  expect_error(with_length("{}", "", UINT64_MAX), "the header length is 18446744073709551615");
  expect_error(with_length("{}", "", 100'000'001), "at most 100000000");
  expect_error(with_length("{}", "", 3), "truncated: the header has 3 bytes, but 2 are left");
  expect_error(with_length("", "", 0), "does not begin with '{'");
}

TEST(Safetensors, RefusesHeadersThatAreNoObjectOfTensors) {
  expect_error(make_file(" {}", ""), "does not begin with '{'");
  expect_error(make_file("[]", ""), "does not begin with '{'");
  expect_error(make_file("{", ""), "not valid JSON");
  expect_error(make_file("{}{}", ""), "not valid JSON");
  expect_error(make_file("{\"\xff\":1}", ""), "not valid JSON");
  expect_error(make_file(R"({"a":1})", ""), "\"a\" is a number; expected an object");
  expect_error(make_file(R"({"a":-1})", ""), "\"a\" is a negative number");
  expect_error(make_file(R"({"a":1.5})", ""), "\"a\" is a number with a fraction");
  expect_error(make_file(R"({"a":null})", ""), "\"a\" is null");
  expect_error(make_file(R"({"a":true})", ""), "\"a\" is a boolean");
  expect_error(make_file(R"({"a":"x"})", ""), "\"a\" is a string");
  expect_error(make_file(R"({"a":[]})", ""), "\"a\" is an array");
  expect_error(make_file(R"({"__metadata__":{"a":1}})", ""), "__metadata__ holds a number");
  expect_error(make_file(R"({"__metadata__":{"a":{}}})", ""), "__metadata__ holds an object");
  expect_error(make_file(R"({"__metadata__":[]})", ""), "\"__metadata__\" is an array");
  std::string deep = R"({"a":{"x":)";
  for (int i = 0; i < 70; ++i) deep += '[';
  expect_error(make_file(deep, ""), "nested deeper than 64");
}

TEST(Safetensors, RefusesWhatComesTwice) {
  const std::string a = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  expect_error(make_file("{" + a + "," + a + "}", ""), "the name \"a\" comes twice");
  expect_error(make_file(R"({"__metadata__":{},"__metadata__":{}})", ""), "comes twice");
  expect_error(make_file(R"({"__metadata__":{"k":"1","k":"2"}})", ""), "the key \"k\" twice");
  expect_error(make_file(R"({"a":{"dtype":"U8","dtype":"U8"}})", ""), "has \"dtype\" twice");
}

TEST(Safetensors, RefusesMissingAndWrongFields) {
  expect_error(make_file(R"({"a":{"shape":[0],"data_offsets":[0,0]}})", ""), "no \"dtype\"");
  expect_error(make_file(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})", ""), "no \"shape\"");
  expect_error(make_file(R"({"a":{"dtype":"U8","shape":[0]}})", ""), "no \"data_offsets\"");
  expect_entry_error("8", "[8]", "[0,8]", "\"dtype\" is a number; expected a string");
  expect_entry_error("\"U8\"", "8", "[0,8]", "\"shape\" has a number");
  expect_entry_error("\"U8\"", "[8]", "8", "\"data_offsets\" has a number");
  expect_entry_error("\"U8\"", "null", "[0,8]", "\"shape\" has null");
  expect_entry_error("\"U8\"", "[-8]", "[0,8]", "\"shape\" has a negative number");
  expect_entry_error("\"U8\"", "[8.0]", "[0,8]", "\"shape\" has a number with a fraction");
  expect_entry_error("\"U8\"", "[1e400]", "[0,8]", "not valid JSON");
  expect_entry_error("\"U8\"", "[18446744073709551616]", "[0,8]", "with a fraction");
  expect_entry_error("\"U8\"", "[\"8\"]", "[0,8]", "\"shape\" has a string");
  expect_entry_error("\"U8\"", "[[8]]", "[0,8]", "\"shape\" has an array");
  expect_entry_error("\"U8\"", "{}", "[0,8]", "\"shape\" has an object");
  expect_entry_error("\"U8\"", "[8]", "[0]", "\"data_offsets\" has fewer than 2 numbers");
  expect_entry_error("\"U8\"", "[8]", "[0,8,8]", "\"data_offsets\" has more than 2 numbers");
  expect_entry_error("\"U8\"", "[8]", "[true,8]", "\"data_offsets\" has a boolean");
  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  expect_entry_error("\"U8\"", ones + "]", "[0,8]", "more than 64 numbers");
}

TEST(Safetensors, NamesAnUnknownTypeAndTheKnownOnes) {
  const std::string header = R"({"a":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}})";
  expect_error(make_file(header, std::string(8, '\0')),
               "tensor \"a\" has the unknown dtype \"F4\"; known are F32, F16, BF16",
               ErrorCode::kUnsupported);
}

TEST(Safetensors, RefusesSizesThatDoNotAgree) {
  expect_entry_error("\"U8\"", "[7]", "[0,8]",
                     "8 bytes by its data_offsets; its shape and U8 need 7");
  expect_entry_error("\"U8\"", "[8]", "[8,0]", "the end lies before the begin");
  expect_entry_error("\"U8\"", "[9]", "[0,9]", "truncated: tensor \"a\" ends at 9");
  expect_entry_error("\"F32\"", "[4294967296,4294967296]", "[0,8]", "overflows");
  expect_entry_error("\"F32\"", "[4611686018427387904]", "[0,8]", "more than 64 bits can say");
  expect_entry_error("\"F32\"", "[18446744073709551615]", "[0,8]", "overflows");
}

TEST(Safetensors, RefusesHolesAndOverlaps) {
  const auto two = [](int begin, int end) {
    const std::string header =
        fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},)"
                    R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                    end - begin, begin, end);
    return make_file(header, std::string(8, '\0'));
  };
  EXPECT_TRUE(parse(two(4, 8)).has_value());
  expect_error(two(5, 8), "\"b\" begins at 5, the one before ends at 4: a hole");
  expect_error(two(3, 8), "\"b\" begins at 3, the one before ends at 4: an overlap");
  expect_error(two(0, 8), "an overlap");
  expect_entry_error("\"U8\"", "[7]", "[1,8]", "a hole");
}

TEST(Safetensors, ViewsAlignedWeightsAndCopiesOthers) {
  const float values[2] = {1.5f, -2.5f};
  const std::string data(reinterpret_cast<const char*>(values), sizeof values);
  for (size_t pad = 0; pad < 4; ++pad) {
    const std::string header =
        R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}})" + std::string(pad, ' ');
    const std::string bytes = make_file(header, data);
    const auto file = parse(bytes);
    ASSERT_TRUE(file.has_value());
    const auto weight = dense_weight(*file->find("a"));
    ASSERT_TRUE(weight.has_value());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(weight->values.data) % alignof(float), 0u);
    const auto begin = reinterpret_cast<uintptr_t>(file->find("a")->bytes.data());
    EXPECT_EQ(weight->owned.bytes(), begin % alignof(float) == 0 ? 0u : 8u);
    EXPECT_EQ(weight->values.rows(), 2);
    EXPECT_EQ(weight->values.f32()[1], -2.5f);
  }
}

TEST(Safetensors, RefusesWeightsThatAreNoFiniteMatrix) {
  const auto file = SafetensorsFile::open(kGolden + "types.safetensors");
  ASSERT_TRUE(file.has_value());
  EXPECT_THAT(dense_weight(*file->find("int8")).error().message, HasSubstr("\"int8\" is I8"));
  EXPECT_THAT(dense_weight(*file->find("scalar")).error().message, HasSubstr("rank 0"));
  EXPECT_THAT(dense_weight(*file->find("empty")).error().message, HasSubstr("0 elements"));
  EXPECT_THAT(read_floats(*file->find("int8")).error().message, HasSubstr("expected F32"));
  EXPECT_THAT(read_integers(*file->find("float32")).error().message,
              HasSubstr("expected integers"));
  const std::string header = R"({"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}})";
  std::string data(8, '\0');
  data[6] = '\x80';
  data[7] = '\x7f';  // infinity
  const std::string bytes = make_file(header, data);
  const auto infinite = parse(bytes);
  EXPECT_EQ(dense_weight(*infinite->find("a")).error().message,
            "t.safetensors: tensor \"a\": row 1, column 1 is inf; weights must be finite");
}

TEST(Safetensors, RefusesIntegersBeyond63Bits) {
  const std::string header = R"({"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}})";
  const std::string bytes = make_file(header, std::string(8, '\xff'));
  EXPECT_THAT(read_integers(*parse(bytes)->find("a")).error().message, HasSubstr("beyond"));
}

class Shards : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  void put(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }

  void put_shard(const std::string& name, const std::string& tensor) const {
    put(name, make_file(fmt::format(R"({{"{}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}})",
                                    tensor),
                        "x"));
  }

  void put_index(const std::string& map) const {
    put("model.safetensors.index.json", R"({"metadata":{},"weight_map":)" + map + "}");
  }

  void expect_open_error(std::string_view message,
                         ErrorCode code = ErrorCode::kInvalidArgument) const {
    const auto set = SafetensorsSet::open(folder_);
    ASSERT_FALSE(set.has_value()) << message;
    EXPECT_EQ(set.error().code, code);
    EXPECT_THAT(set.error().message, HasSubstr(message));
  }

  std::filesystem::path folder_;
};

TEST_F(Shards, OpenAsOneCheckpoint) {
  put_shard("one.safetensors", "a");
  put_shard("two.safetensors", "b");
  put_index(R"({"b":"two.safetensors","a":"one.safetensors"})");
  auto opened = SafetensorsSet::open(folder_);
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  const SafetensorsSet set = std::move(*opened);
  EXPECT_EQ(set.entries().size(), 2u);
  EXPECT_EQ(set.find("b")->bytes.size(), 1u);
  EXPECT_EQ((*set.get("a"))->name, "a");
  EXPECT_EQ(set.find("c"), nullptr);
  EXPECT_EQ(set.get("c").error().code, ErrorCode::kNotFound);
  EXPECT_THAT(set.get("c").error().message, HasSubstr("no tensor \"c\""));
}

TEST_F(Shards, PreferASingleFile) {
  put_shard("model.safetensors", "a");
  put_index("17");
  const auto set = SafetensorsSet::open(folder_);
  ASSERT_TRUE(set.has_value()) << set.error().message;
  EXPECT_NE(set->find("a"), nullptr);
}

TEST_F(Shards, RefuseIndexesThatDisagreeWithThem) {
  expect_open_error("holds neither", ErrorCode::kNotFound);
  put_shard("one.safetensors", "a");
  put_shard("two.safetensors", "b");
  put_index(R"({"a":"one.safetensors","b":"one.safetensors"})");
  expect_open_error("tensor \"b\" is in one.safetensors, which lacks it");
  put_index(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})");
  expect_open_error("tensor \"c\" is in two.safetensors, which lacks it");
  put_index(R"({"a":"two.safetensors","b":"two.safetensors"})");
  expect_open_error("\"a\" is in two.safetensors, which lacks it");
  put_shard("two.safetensors", "a");
  put_index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  expect_open_error("tensor \"a\" is in one.safetensors, but two.safetensors holds it");
  put_shard("two.safetensors", "x");
  expect_open_error("tensor \"x\" is nowhere, but two.safetensors holds it");
  put_index(R"({"a":"three.safetensors"})");
  expect_open_error("three.safetensors", ErrorCode::kNotFound);
}

TEST_F(Shards, RefuseNamesThatLeadElsewhere) {
  for (const char* name :
       {"../one", "/etc/passwd", "a/b", "..", ".", "", R"(a\\b)", R"(a\u0000b)"}) {
    put_index(fmt::format(R"({{"a":"{}"}})", name));
    expect_open_error("expected a plain file name");
  }
  put_index(R"({"a":1})");
  expect_open_error("is no string");
  put_index("[]");
  expect_open_error("\"weight_map\" is missing or no object");
  put("model.safetensors.index.json", "[]");
  expect_open_error("expected an object");
  put("model.safetensors.index.json", "{");
  expect_open_error("index.json");
}

}  // namespace
}  // namespace quern
