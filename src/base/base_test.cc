#include <cmath>
#include <filesystem>
#include <limits>
#include <system_error>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/checked.h"
#include "base/exp.h"
#include "base/file.h"
#include "base/float16.h"
#include "base/json.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

TEST(ExpNegative, StaysWithinItsBound) {
  for (int i = 0; i <= 87 * 64; ++i) {
    const float x = static_cast<float>(-i) / 64.0f;
    const double exact = std::exp(static_cast<double>(x));
    ASSERT_NEAR(exp_negative(x), exact, exact * 0x1p-22) << x;
  }
  EXPECT_EQ(exp_negative(-1000.0f), exp_negative(-87.0f));
}

TEST(CheckedSize, OverflowSticks) {
  const CheckedSize big = CheckedSize(1) * (uint64_t{1} << 40);
  EXPECT_TRUE(big.fits(uint64_t{1} << 40));
  EXPECT_FALSE(big.fits((uint64_t{1} << 40) - 1));
  const CheckedSize over = big * (uint64_t{1} << 30);
  EXPECT_FALSE(over.valid());
  EXPECT_FALSE((over + 0).valid());
  EXPECT_FALSE(over.align(32).valid());
  EXPECT_FALSE(CheckedSize(UINT64_MAX).align(32).valid());
  EXPECT_EQ(CheckedSize(33).align(32).value(), 64u);
}

TEST(Float16, RoundTripsEveryHalf) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f))));
    } else {
      ASSERT_EQ(f32_to_f16(f), h);
    }
  }
}

TEST(Float16, AgreesWithTheCompilersConversion) {
  uint32_t state = 1;
  for (int i = 0; i < 1000000; ++i) {
    state = state * 1664525u + 1013904223u;
    const float f = std::bit_cast<float>((state & 0x8fffffffu) + 0x30000000u);
    if (std::isnan(f)) continue;
#if defined(__FLT16_MANT_DIG__)
    ASSERT_EQ(f32_to_f16(f), std::bit_cast<uint16_t>(static_cast<_Float16>(f))) << f;
#endif
    const float back = bf16_to_f32(f32_to_bf16(f));
    if (std::isfinite(back)) ASSERT_LE(std::fabs(back - f), std::fabs(f) * 0x1p-8f);
  }
}

TEST(Json, NamesTheSourceTheFieldAndTheValue) {
  const Json json = *parse_json(R"({"layers": "two", "heads": -3, "eps": 1e-5})", "config.json");
  const JsonObject object(json, "config.json");
  EXPECT_EQ(object.integer("layers").error().message,
            "config.json: \"layers\" is \"two\"; expected an integer from 0 to 1099511627776");
  EXPECT_EQ(object.integer("heads").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(object.integer("absent").error().message, "config.json: \"absent\" is missing");
  EXPECT_EQ(*object.integer("absent", 7), 7);
  EXPECT_EQ(*object.number("eps"), 1e-5);
}

TEST(Json, RefusesWhatIsBrokenOrDeep) {
  EXPECT_FALSE(parse_json("{\"a\": ", "x").has_value());
  EXPECT_FALSE(parse_json("{} trailing", "x").has_value());
  EXPECT_FALSE(parse_json(std::string(100000, '['), "x").has_value());
  EXPECT_TRUE(parse_json(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']'), "x"));
}

TEST(Json, MessagesAreValidUtf8WhateverTheInput) {
  for (const std::string& text :
       {std::string("{\"\xff\xfe"), std::string("{\"k\": \"\xe2\x82"), std::string("\xc3")}) {
    EXPECT_NO_THROW((void)Json(parse_json(text, "x").error().message).dump());
  }
  std::string euros;
  for (int i = 0; i < 60; ++i) euros += "\xe2\x82\xac";
  const Json json = {{"k", euros}};
  EXPECT_NO_THROW((void)Json(JsonObject(json, "x").integer("k").error().message).dump());
}

class FileTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_ = fs::temp_directory_path() / ("quern_file_test_" + std::to_string(::getpid()));
};

TEST_F(FileTest, AppearsOnlyWhenCommitted) {
  const fs::path path = folder_ / "x";
  { AtomicFile(path).write("half"); }
  EXPECT_TRUE(fs::is_empty(folder_));
  write_file(path, "whole");
  EXPECT_EQ(*read_file(path, 5), "whole");
  EXPECT_EQ(read_file(path, 4).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(FileTest, AFullDiskThrowsAndNamesThePath) {
  if (!fs::exists("/dev/full")) GTEST_SKIP();
  fs::create_symlink("/dev/full", folder_ / "x.part");
  try {
    write_file(folder_ / "x", "data");
    FAIL() << "writing to a full device succeeded";
  } catch (const std::system_error& e) {
    EXPECT_NE(std::string(e.what()).find("x.part"), std::string::npos);
    EXPECT_EQ(e.code().value(), ENOSPC);
  }
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

TEST_F(FileTest, MissingAndWrongKindsAreToldApart) {
  EXPECT_EQ(MappedFile::open(folder_ / "absent").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(MappedFile::open(folder_).error().code, ErrorCode::kInvalidArgument);
  write_file(folder_ / "empty", "");
  EXPECT_TRUE(MappedFile::open(folder_ / "empty")->bytes().empty());
}

}  // namespace
}  // namespace quern
