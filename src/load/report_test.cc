#include "load/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "load/load_plot.h"
#include "load/svg.h"

namespace quern {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

constexpr int64_t kMs = 1'000'000;

// Sent at 100 ms, four tokens at 150, 160, 180 and 210 ms.
LoadRecord good_record() {
  LoadRecord record;
  record.outcome = Outcome::kOk;
  record.status = 200;
  record.due_ns = 99 * kMs;
  record.sent_ns = 100 * kMs;
  record.first_ns = 150 * kMs;
  record.last_ns = 210 * kMs;
  record.end_ns = 211 * kMs;
  record.chunks = 4;
  record.gaps_ms = {10, 20, 30};
  record.max_tokens = 4;
  record.usage = StreamUsage{
      .prompt_tokens = 8, .completion_tokens = 4, .total_tokens = 12, .cached_tokens = 2};
  record.finish_reason = "length";
  return record;
}

LoadRecord record_of(Outcome outcome, int status, const std::string& error = "") {
  LoadRecord record;
  record.outcome = outcome;
  record.status = status;
  record.sent_ns = 10 * kMs;
  record.end_ns = 12 * kMs;
  record.error = error;
  return record;
}

RunResult result_of(std::vector<LoadRecord> records, double seconds = 2) {
  return {.records = std::move(records), .seconds = seconds, .concurrency_max = 3};
}

TEST(Report, HasTheLatenciesOfVllm) {
  const RunReport report = make_report(result_of({good_record()}), {});
  EXPECT_DOUBLE_EQ(report.ttft_ms.mean, 50);
  EXPECT_DOUBLE_EQ(report.tpot_ms.mean, 20);  // (110 - 50) / 3
  EXPECT_DOUBLE_EQ(report.itl_ms.mean, 20);
  EXPECT_DOUBLE_EQ(report.itl_ms.max, 30);
  EXPECT_DOUBLE_EQ(report.e2e_ms.mean, 110);
  EXPECT_DOUBLE_EQ(report.lag_ms.mean, 1);
}

TEST(Report, DividesTokensByTheTimeOfTheRun) {
  const RunReport report = make_report(result_of({good_record(), good_record()}), {});
  EXPECT_EQ(report.input_tokens, 16);
  EXPECT_EQ(report.cached_tokens, 4);
  EXPECT_EQ(report.output_tokens, 8);
  EXPECT_DOUBLE_EQ(report.per_second(report.output_tokens), 4);
  EXPECT_DOUBLE_EQ(report.peak_tokens_per_second(), 8);
}

TEST(Report, LeavesOneTokenOutOfTpotAndCountsItAsGood) {
  LoadRecord single = good_record();
  single.usage->completion_tokens = 1;
  const RunReport report = make_report(result_of({single}), {.objective = {.tpot_ms = 0.001}});
  EXPECT_EQ(report.tpot_ms.count, 0u);
  EXPECT_EQ(report.good, 1);
}

TEST(Report, CountsAsGoodWhatMeetsEveryLimit) {
  const auto good = [](const Objective& objective) {
    return make_report(result_of({good_record()}), {.objective = objective}).good;
  };
  EXPECT_EQ(good({.ttft_ms = 50, .tpot_ms = 20, .e2e_ms = 110}), 1);
  EXPECT_EQ(good({.ttft_ms = 49.9, .tpot_ms = 20, .e2e_ms = 110}), 0);
  EXPECT_EQ(good({.ttft_ms = 50, .tpot_ms = 19.9, .e2e_ms = 110}), 0);
  EXPECT_EQ(good({.ttft_ms = 50, .tpot_ms = 20, .e2e_ms = 109.9}), 0);
}

TEST(Report, SpreadsTheTokensOfAChunkOverTheSecondsOfItsChunks) {
  LoadRecord record = good_record();
  record.sent_ns = 0;
  record.first_ns = 500 * kMs;
  record.gaps_ms = {400, 200, 1900};  // at 0.5, 0.9, 1.1 and 3.0 s
  record.usage->completion_tokens = 8;
  const RunReport report = make_report(result_of({record}), {});
  EXPECT_THAT(report.tokens_in_second, ElementsAre(4, 2, 0, 2));
}

TEST(Report, CountsOutcomesApart) {
  const RunReport report = make_report(
      result_of({good_record(), record_of(Outcome::kRefused, 503, "full"),
                 record_of(Outcome::kRefused, 429), record_of(Outcome::kFailed, 500, "a"),
                 record_of(Outcome::kFailed, 0, "b"), record_of(Outcome::kFailed, 0, "b"),
                 record_of(Outcome::kDisconnected, 200), record_of(Outcome::kRebuffed, 400),
                 record_of(Outcome::kInterrupted, 200)}),
      {});
  EXPECT_EQ(report.sent, 9);
  EXPECT_EQ(report.count(Outcome::kOk), 1);
  EXPECT_THAT(report.refused_by_status, ElementsAre(Pair(429, 1), Pair(503, 1)));
  EXPECT_THAT(report.failed_by_status, ElementsAre(Pair(0, 2), Pair(500, 1)));
  EXPECT_THAT(report.errors, ElementsAre(Pair("b", 2), Pair("a", 1)));
  EXPECT_DOUBLE_EQ(report.refusal_ms.mean, 2);
  EXPECT_EQ(report.usage_checked, 1);
  EXPECT_THAT(report.usage_problems, IsEmpty());
}

TEST(Report, ShowsAFewErrorsAlone) {
  std::vector<LoadRecord> records;
  for (int i = 0; i < 100; ++i) {
    records.push_back(record_of(Outcome::kFailed, 500, std::to_string(i)));
  }
  EXPECT_EQ(make_report(result_of(records), {}).errors.size(), 8u);
}

TEST(Report, OfNoRequestIsZero) {
  const RunReport report = make_report(result_of({}, 0), {});
  EXPECT_EQ(report.per_second(5), 0);
  EXPECT_EQ(report.peak_tokens_per_second(), 0);
  EXPECT_EQ(report_json(report, {})["ttft_ms"], nullptr);
}

TEST(Usage, IsCheckedAgainstWhatWasSeen) {
  const ReportOptions exact{.ignore_eos = true};
  EXPECT_EQ(usage_problem(good_record(), exact), "");
  LoadRecord record = good_record();
  record.usage.reset();
  EXPECT_THAT(usage_problem(record, {}), HasSubstr("no usage"));
  record = good_record();
  record.usage->total_tokens = 13;
  EXPECT_THAT(usage_problem(record, {}), HasSubstr("total_tokens"));
  record = good_record();
  record.chunks = 5;
  EXPECT_THAT(usage_problem(record, {}), HasSubstr("less than the chunks"));
  record = good_record();
  record.counted_tokens = 3;
  EXPECT_THAT(usage_problem(record, {}), HasSubstr("counted on its way"));
  record.counted_tokens = 4;
  EXPECT_EQ(usage_problem(record, {}), "");
  record.max_tokens = 5;
  EXPECT_EQ(usage_problem(record, {}), "");
  EXPECT_THAT(usage_problem(record, exact), HasSubstr("despite ignore_eos"));
}

TEST(ReportJson, HasTheKeysOfTheDocument) {
  const Objective objective{.ttft_ms = 60};
  const RunReport report = make_report(
      result_of({good_record(), record_of(Outcome::kFailed, 0, "b")}), {.objective = objective});
  const auto out = report_json(report, objective);
  EXPECT_EQ(out["end"], "complete");
  EXPECT_EQ(out["duration_seconds"], 2);
  EXPECT_EQ(out["requests"]["sent"], 2);
  EXPECT_EQ(out["requests"]["failed_by_status"]["no_answer"], 1);
  EXPECT_EQ(out["output_tokens_per_second"], 2);
  EXPECT_EQ(out["total_tokens_per_second"], 6);
  EXPECT_EQ(out["ttft_ms"]["p99"], 50);
  EXPECT_EQ(out["goodput"]["good_requests"], 1);
  EXPECT_EQ(out["goodput"]["share"], 0.5);
  EXPECT_EQ(out["goodput"]["objective"]["ttft_ms"], 60);
  EXPECT_EQ(out["errors"][0]["message"], "b");
  EXPECT_EQ(report_json(report, {})["goodput"], nullptr);
}

TEST(RecordJson, HasNoTextOfTheAnswer) {
  const auto out = record_json(good_record());
  EXPECT_EQ(out["outcome"], "ok");
  EXPECT_EQ(out["ttft_ms"], 50);
  EXPECT_EQ(out["e2e_ms"], 110);
  EXPECT_EQ(out["completion_tokens"], 4);
  EXPECT_EQ(out["finish_reason"], "length");
  EXPECT_FALSE(out.contains("error"));
  const auto failed = record_json(record_of(Outcome::kFailed, 500, "a"));
  EXPECT_EQ(failed["error"], "a");
  EXPECT_FALSE(failed.contains("ttft_ms"));
}

// Whether every element is closed in order and no text holds what would be markup.
bool well_formed(const std::string& text) {
  std::vector<std::string> open;
  for (size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    const size_t end = text.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = text.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos) return false;
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return false;
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(tag.substr(0, tag.find_first_of(" \n")));
    }
  }
  for (size_t at = text.find('&'); at != std::string::npos; at = text.find('&', at + 1)) {
    if (text.find(';', at) > at + 5) return false;
  }
  return open.empty();
}

TEST(Svg, IsWellFormedWhateverTheText) {
  const std::string page = svg_page("a < b & \"c\" > d\n", {"note &amp;", "<script>"},
                                    {{"<t>", "x&", "y>", {{"<l>", {{0, 0}, {1, 2}}}}, 0}});
  EXPECT_TRUE(well_formed(page)) << page;
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_FALSE(well_formed("<a><b></a></b>"));
  EXPECT_FALSE(well_formed("<a>&</a>"));
}

TEST(Svg, TicksAreRoundAndReachTheMost) {
  EXPECT_THAT(axis_ticks(100), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(axis_ticks(0.7), testing::SizeIs(5));
  for (double most = 1e-4; most < 1e9; most *= 1.37) {
    const std::vector<double> ticks = axis_ticks(most);
    EXPECT_GE(ticks.back(), most * (1 - 1e-9));
    EXPECT_LE(ticks[ticks.size() - 2], most);
    EXPECT_GE(ticks.size(), 4u) << most;
    EXPECT_LE(ticks.size(), 9u) << most;
  }
}

TEST(LoadPlot, DrawsAnyRun) {
  const RunResult some = result_of(
      {good_record(), record_of(Outcome::kFailed, 0, "b"), record_of(Outcome::kRefused, 503)});
  for (const RunResult& result : {some, result_of({}, 0)}) {
    const std::string page = load_plot(result, make_report(result, {}), {"http://a"});
    EXPECT_TRUE(well_formed(page)) << page;
    EXPECT_THAT(page, HasSubstr("TTFT"));
    EXPECT_THAT(page, testing::Not(HasSubstr("nan")));
    EXPECT_THAT(page, testing::Not(HasSubstr("http://a\"")));
  }
}

}  // namespace
}  // namespace quern
