#include "quant/quantize.h"

#include <map>

#include <gtest/gtest.h>

#include "quant/rounding.h"
#include "quant/test_quantize.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using namespace test;

class Families : public ::testing::TestWithParam<const char*> {};

TEST_P(Families, EveryMethodGivesACheckpointThatRunsAndBetterOnesAreCloser) {
  const Scratch scratch;
  std::map<std::string, double> kl;
  for (const Quantizer& method : quantizers()) {
    const fs::path output = scratch / std::string(method.name);
    const auto report =
        run(golden(GetParam()), options_for(std::string(method.name), output), windows(32, 40));
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_GT(report->verified_tensors, 0);
    kl[std::string(method.name)] = divergence_from(golden(GetParam()), output);
  }
  // Random weights leave little to win; what is won must show nevertheless.
  EXPECT_LT(kl["best"], kl["rtn"]);
  EXPECT_LT(kl["awq"], 1.1 * kl["rtn"]);
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         Families,
                         ::testing::Values("llama", "llama_bias", "qwen2", "qwen3", "mistral"));

TEST(Quantize, RoundToNearestIsTheLawAppliedToEachMatrix) {
  const Scratch scratch;
  ASSERT_TRUE(run(golden("llama"), options_for("rtn", scratch / "out")).has_value());
  const auto source = open(golden("llama"));
  const auto result = open(scratch / "out");
  const FloatMatrix w = widen(*source->weight("model.layers.0.mlp.up_proj"));
  ThreadPool pool(1);
  const GroupedWeight meant = round_to_nearest(pool, w.tensor(), 32);
  const auto found = std::get<GroupedWeight>(*result->weight("model.layers.0.mlp.up_proj"));
  EXPECT_EQ(found.codes, meant.codes);
  EXPECT_EQ(found.scales, meant.scales);
  EXPECT_EQ(found.zeros, meant.zeros);
}

TEST(Quantize, DoesNotDependOnThreads) {
  const Scratch scratch;
  for (const int threads : {1, 3}) {
    const auto options = options_for("best", scratch / std::to_string(threads));
    ASSERT_TRUE(run(golden("llama_bias"), options, windows(8, 40), threads).has_value());
  }
  EXPECT_EQ(contents(scratch / "1"), contents(scratch / "3"));
}

TEST(Quantize, InnerActivationsComputedTwiceChangeNothing) {
  const Scratch scratch;
  const auto checkpoint = open(golden("qwen2"));
  QuantizeOptions options = options_for("best", scratch / "stored");
  const CalibrationWindows calibration = windows(256, 64);
  ASSERT_TRUE(run(golden("qwen2"), options, calibration).has_value());
  // Lowered until the plan says that they no longer fit.
  options.output = scratch / "recomputed";
  const auto recomputed = [&] {
    const auto plan = plan_quantize(*checkpoint, calibration, options);
    QUERN_CHECK(plan.has_value());
    return !plan->notes.empty() && plan->windows == plan->windows_given;
  };
  options.memory_budget_bytes = plan_quantize(*checkpoint, calibration, options)->memory_bytes;
  while (!recomputed()) options.memory_budget_bytes -= 64 * 1024;
  ASSERT_TRUE(run(golden("qwen2"), options, calibration).has_value());
  EXPECT_EQ(contents(scratch / "stored"), contents(scratch / "recomputed"));
}

TEST(Quantize, ASmallBudgetTakesFewerWindowsAndSaysSo) {
  const Scratch scratch;
  const auto checkpoint = open(golden("llama"));
  QuantizeOptions options = options_for("best", scratch / "out");
  const CalibrationWindows calibration = windows(512, 64);
  const uint64_t whole = plan_quantize(*checkpoint, calibration, options)->memory_bytes;
  options.memory_budget_bytes = whole - (uint64_t{24} << 20);
  const auto plan = plan_quantize(*checkpoint, calibration, options);
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_LT(plan->windows, 512);
  EXPECT_GE(plan->windows, 2);
  EXPECT_LE(plan->memory_bytes, options.memory_budget_bytes);
  ASSERT_FALSE(plan->notes.empty());
  EXPECT_NE(plan->notes[0].find("of 512 calibration windows"), std::string::npos);
  options.memory_budget_bytes = uint64_t{1} << 20;
  const auto refused = plan_quantize(*checkpoint, calibration, options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("memory budget of 1 MiB is too small"), std::string::npos);
}

TEST(Quantize, ReportTellsWhatWasDone) {
  const Scratch scratch;
  const auto report = run(golden("llama_bias"), options_for("best", scratch / "out"));
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->layers.size(), 4u);
  EXPECT_EQ(report->plan.linears, 14);
  EXPECT_EQ(report->plan.held_out_windows, 2);
  EXPECT_GT(report->weight_bytes, 0u);
  EXPECT_GE(report->file_bytes, report->weight_bytes);
  EXPECT_GT(report->peak_rss_bytes, 0u);
  double loss = 0;
  double rtn_loss = 0;
  for (const BlockReport& block : report->layers) {
    EXPECT_TRUE(block.fold == "folded" || block.fold == "none") << block.fold;
    EXPECT_LT(block.fold_error, 1e-3);
    EXPECT_GT(block.output_error, 0);
    for (const LinearReport& linear : block.linears) {
      EXPECT_GT(linear.rtn_loss, 0) << linear.name;
      loss += linear.loss / linear.signal;
      rtn_loss += linear.rtn_loss / linear.signal;
      EXPECT_GT(linear.signal, linear.loss) << linear.name;
    }
  }
  EXPECT_LT(loss, rtn_loss);
  const auto json =
      parse_json(*read_file(scratch / "out" / "quern-report.json", 1u << 24), "report");
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ((*json)["method"], "best");
  EXPECT_EQ((*json)["layers"].size(), 4u);
  EXPECT_EQ((*json)["weight_bytes"], report->weight_bytes);
}

TEST(Quantize, ReadsGguf) {
  const Scratch scratch;
  fs::path model;
  for (const auto& entry : fs::recursive_directory_iterator(golden("gguf_llama"))) {
    if (entry.path().extension() == ".gguf") model = entry.path();
  }
  ASSERT_FALSE(model.empty());
  const auto report = run(model, options_for("best", scratch / "out"));
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_LT(divergence_from(model, scratch / "out"), 0.5);
  ASSERT_EQ(report->notes.size(), 1u);
  EXPECT_NE(report->notes[0].find("rounded to F16"), std::string::npos);
}

TEST(Quantize, ReadsFp8) {
  for (const char* name : {"fp8", "fp8_compressed"}) {
    const Scratch scratch;
    const auto report = run(golden(name), options_for("best", scratch / "out"));
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_LT(divergence_from(golden(name), scratch / "out"), 0.5);
    const auto written = open(scratch / "out");
    for (const StoredTensor& tensor : written->tensors()) {
      EXPECT_EQ(tensor.format.find("F8"), std::string::npos) << tensor.name;
      EXPECT_EQ(tensor.name.find("weight_scale"), std::string::npos) << tensor.name;
    }
  }
}

}  // namespace
}  // namespace quern
