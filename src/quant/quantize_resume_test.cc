#include <csignal>
#include <cstdlib>
#include <stdexcept>

#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "quant/quantize.h"
#include "quant/test_quantize.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using namespace test;

// Thrown by a progress callback in place of a kill.
struct Killed : std::runtime_error {
  Killed() : std::runtime_error("killed") {}
};

// Runs until the given share is reached and dies there.
void run_and_die(const fs::path& model, const QuantizeOptions& options, double at, int threads) {
  const auto checkpoint = open(model);
  const auto b = backend(threads);
  const CalibrationWindows calibration = windows(8, 40);
  auto die = [&](int64_t done, int64_t total, std::string_view) {
    if (static_cast<double>(done) >= at * static_cast<double>(total)) throw Killed();
  };
  QuantizeProgress progress(die);
  EXPECT_THROW((void)quantize({.checkpoint = checkpoint.get(),
                               .backend = b.get(),
                               .calibration = &calibration,
                               .progress = &progress},
                              options),
               Killed);
}

TEST(QuantizeResume, AResumedRunWritesTheSameBytesAsAnUninterruptedOne) {
  for (const char* method : {"rtn", "awq", "best"}) {
    const Scratch scratch;
    QuantizeOptions options = options_for(method, scratch / "whole");
    ASSERT_TRUE(run(golden("qwen3"), options).has_value());
    options.output = scratch / "resumed";
    for (const double at : {0.3, 0.7}) {
      run_and_die(golden("qwen3"), options, at, 1);
      EXPECT_FALSE(fs::exists(options.output));
      EXPECT_TRUE(fs::exists(scratch / "resumed.work"));
    }
    const auto report = run(golden("qwen3"), options);
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_TRUE(report->layers[0].resumed);
    EXPECT_FALSE(report->layers.back().resumed);
    EXPECT_EQ(contents(scratch / "whole"), contents(scratch / "resumed")) << method;
    EXPECT_FALSE(fs::exists(scratch / "resumed.work"));
    EXPECT_FALSE(fs::exists(scratch / "resumed.part"));
  }
}

TEST(QuantizeResume, WorkOfOtherOptionsIsNotTakenUp) {
  const Scratch scratch;
  QuantizeOptions options = options_for("awq", scratch / "out");
  run_and_die(golden("qwen3"), options, 0.7, 2);
  options.held_out_every = 2;
  const auto report = run(golden("qwen3"), options);
  ASSERT_TRUE(report.has_value());
  for (const BlockReport& block : report->layers) EXPECT_FALSE(block.resumed);
}

TEST(QuantizeResume, ABrokenPieceOfWorkIsDoneAgain) {
  const Scratch scratch;
  const QuantizeOptions options = options_for("best", scratch / "out");
  run_and_die(golden("qwen3"), options, 0.6, 2);
  const fs::path piece = scratch / "out.work" / "block-00001" / "model.safetensors";
  ASSERT_TRUE(fs::exists(piece));
  fs::resize_file(piece, fs::file_size(piece) / 2);
  const auto report = run(golden("qwen3"), options);
  ASSERT_TRUE(report.has_value());
  EXPECT_TRUE(report->layers[0].resumed);
  EXPECT_FALSE(report->layers[1].resumed);
}

// A run can be killed before its job file has its name, or while it removes older work.
TEST(QuantizeResume, HalfMadeWorkIsMadeAnew) {
  const Scratch scratch;
  const QuantizeOptions options = options_for("rtn", scratch / "out");
  fs::create_directories(scratch / "out.work" / "block-00001");
  write_file(scratch / "out.work" / "job.json.part", "{");
  const auto report = run(golden("qwen3"), options);
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_FALSE(fs::exists(scratch / "out.work"));
}

TEST(QuantizeDeathTest, AnInterruptKeepsFinishedBlocksAndSaysWhere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        std::raise(SIGINT);
        const Scratch scratch;
        const std::string message = failure(golden("llama"), options_for("awq", scratch / "o"));
        const bool right = message.find("interrupted; 0 of 4 blocks are kept in") == 0 &&
                           fs::exists(scratch / "o.work") && !fs::exists(scratch / "o");
        std::exit(right ? 7 : 0);
      },
      ::testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace quern
