#include "tensor/safetensors_writer.h"

#include <csignal>
#include <cstring>
#include <fstream>
#include <system_error>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tensor/safetensors.h"

namespace quern {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class Writer : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  SafetensorsWriter create(std::vector<SafetensorsPlan> plan, uint64_t max_shard_bytes) const {
    auto writer =
        SafetensorsWriter::create(folder_, std::move(plan), {.max_shard_bytes = max_shard_bytes});
    EXPECT_TRUE(writer.has_value()) << writer.error().message;
    return std::move(*writer);
  }

  std::string error_of(std::vector<SafetensorsPlan> plan, uint64_t max_shard_bytes = 1000) const {
    const auto writer =
        SafetensorsWriter::create(folder_, std::move(plan), {.max_shard_bytes = max_shard_bytes});
    EXPECT_FALSE(writer.has_value());
    EXPECT_EQ(writer.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(files(), IsEmpty());
    return writer.error().message;
  }

  std::filesystem::path folder_;
};

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(const SafetensorsEntry& entry) {
  return {reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size()};
}

const std::vector<SafetensorsPlan> kPlan = {
    {"odd", DType::kU8, {3}}, {"half", DType::kBF16, {1, 3}}, {"long", DType::kI64, {2}}};

void write_plan(SafetensorsWriter* writer) {
  writer->write("long", bytes_of("0123456789abcdef"));
  writer->write("odd", bytes_of("x"));
  writer->write("half", bytes_of("ABCDEF"));
  writer->write("odd", bytes_of("yz"));
}

TEST_F(Writer, WritesTensorsInAnyOrderAndPiecesAligned) {
  SafetensorsWriter writer = create(kPlan, 1000);
  const uint64_t total = writer.total_bytes();
  write_plan(&writer);
  EXPECT_THAT(files(), UnorderedElementsAre("model.safetensors.part"));
  writer.finish();
  EXPECT_THAT(files(), UnorderedElementsAre("model.safetensors"));
  EXPECT_EQ(std::filesystem::file_size(folder_ / "model.safetensors"), total);
  const auto file = SafetensorsFile::open(folder_ / "model.safetensors");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(text_of(*file->find("odd")), "xyz");
  EXPECT_EQ(text_of(*file->find("half")), "ABCDEF");
  EXPECT_EQ(text_of(*file->find("long")), "0123456789abcdef");
  EXPECT_EQ(file->metadata().at("format"), "pt");
  for (const SafetensorsEntry& entry : file->entries()) {
    const auto address = reinterpret_cast<uintptr_t>(entry.bytes.data());
    EXPECT_EQ(address % static_cast<uintptr_t>(dtype_bytes(entry.dtype)), 0u) << entry.name;
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file->entries()[0].bytes.data()) % 8, 0u);
}

TEST_F(Writer, SplitsIntoShardsWithAnIndex) {
  SafetensorsWriter writer = create(kPlan, 9);
  write_plan(&writer);
  writer.finish();
  EXPECT_THAT(files(), UnorderedElementsAre("model-00001-of-00002.safetensors",
                                            "model-00002-of-00002.safetensors",
                                            "model.safetensors.index.json"));
  const auto set = SafetensorsSet::open(folder_);
  ASSERT_TRUE(set.has_value()) << set.error().message;
  EXPECT_EQ(text_of(*set->find("odd")), "xyz");
  EXPECT_EQ(text_of(*set->find("long")), "0123456789abcdef");  // larger than a shard may be
  const auto index = read_file(folder_ / "model.safetensors.index.json", 1000);
  EXPECT_THAT(*index, HasSubstr("\"total_size\": 25"));
}

TEST_F(Writer, ReplacesACheckpointOfTheOtherKind) {
  for (const uint64_t max_bytes : {9u, 1000u, 9u}) {
    SafetensorsWriter writer = create(kPlan, max_bytes);
    write_plan(&writer);
    writer.finish();
    EXPECT_EQ(std::filesystem::exists(folder_ / "model.safetensors"), max_bytes == 1000);
    EXPECT_EQ(std::filesystem::exists(folder_ / "model.safetensors.index.json"), max_bytes == 9);
    EXPECT_TRUE(SafetensorsSet::open(folder_).has_value());
  }
}

TEST_F(Writer, LeavesNothingBehindWhenItIsNotFinished) {
  {
    SafetensorsWriter writer = create(kPlan, 9);
    write_plan(&writer);
  }
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(Writer, WritesACheckpointWithoutTensors) {
  create({}, 9).finish();
  const auto set = SafetensorsSet::open(folder_);
  ASSERT_TRUE(set.has_value());
  EXPECT_TRUE(set->entries().empty());
}

TEST_F(Writer, RefusesPlansThatCannotBeWritten) {
  const DType u8 = DType::kU8;
  EXPECT_THAT(error_of({{"a", u8, {1}}, {"a", u8, {1}}}), HasSubstr("\"a\" is planned twice"));
  EXPECT_THAT(error_of({{"", u8, {1}}}), HasSubstr("cannot name a tensor"));
  EXPECT_THAT(error_of({{"__metadata__", u8, {1}}}), HasSubstr("cannot name a tensor"));
  EXPECT_THAT(error_of({{"\xff", u8, {1}}}), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(error_of({{"a", u8, {-1}}}), HasSubstr("a dimension of -1"));
  EXPECT_THAT(error_of({{"a", u8, {int64_t{1} << 32, int64_t{1} << 32}}}), HasSubstr("overflow"));
  EXPECT_THAT(error_of({{"a", u8, {INT64_MAX}}, {"b", u8, {1}}}), HasSubstr("overflow"));
  EXPECT_THAT(error_of({{std::string(100'000'001, 'n'), u8, {1}}}), HasSubstr("the header has"));
  std::vector<SafetensorsPlan> many;
  for (int i = 0; i < 513; ++i) many.push_back({fmt::format("t{}", i), u8, {2}});
  EXPECT_THAT(error_of(many, 2), HasSubstr("513 files; at most 512"));
}

// A limit on the size of files stands in for a full disk: the write fails in the same place.
TEST_F(Writer, LeavesNothingBehindWhenTheDiskIsFull) {
  struct rlimit former {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &former), 0);
  auto* const former_handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = former;
  small.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    SafetensorsWriter writer = create({{"a", DType::kU8, {8192}}}, 100'000);
    EXPECT_THROW(writer.write("a", bytes_of(std::string(8192, 'x'))), std::system_error);
  }
  ::setrlimit(RLIMIT_FSIZE, &former);
  std::signal(SIGXFSZ, former_handler);
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(Writer, ThrowsWhenTheDirectoryCannotBeWritten) {
  EXPECT_THROW((void)SafetensorsWriter::create(folder_ / "absent", kPlan), std::system_error);
}

// A directory under the index's name makes the last rename fail: the shards must go again.
TEST_F(Writer, TakesShardsBackWhenTheIndexCannotBeWritten) {
  std::filesystem::create_directories(folder_ / "model.safetensors.index.json" / "x");
  SafetensorsWriter writer = create(kPlan, 9);
  write_plan(&writer);
  EXPECT_THROW(writer.finish(), std::system_error);
  for (const std::string& name : files()) EXPECT_THAT(name, HasSubstr("index.json"));
}

TEST_F(Writer, DiesOnBytesThatTheCallerDidNotPlan) {
  SafetensorsWriter writer = create(kPlan, 1000);
  EXPECT_DEATH(writer.write("absent", bytes_of("x")), "check failed");
  EXPECT_DEATH(writer.write("odd", bytes_of("wxyz")), "check failed");
  EXPECT_DEATH(writer.finish(), "check failed");
}

}  // namespace
}  // namespace quern
