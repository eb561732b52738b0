#include "serve/metrics.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/server_metrics.h"

namespace quern {
namespace {

using testing::HasSubstr;

TEST(Histogram, CountsByUpperBound) {
  static constexpr double kBounds[] = {1, 2, 5};
  Histogram histogram(kBounds);
  for (const double value : {0.5, 1.0, 1.5, 5.0, 6.0}) histogram.observe(value);
  EXPECT_EQ(histogram.cumulative(0), 2);
  EXPECT_EQ(histogram.cumulative(1), 3);
  EXPECT_EQ(histogram.cumulative(2), 4);
  EXPECT_EQ(histogram.cumulative(3), 5);
  EXPECT_EQ(histogram.sum(), 14);
}

TEST(MetricsText, WritesTheExpositionFormat) {
  static constexpr double kBounds[] = {0.5, 10};
  Histogram histogram(kBounds);
  histogram.observe(0.25);
  MetricsText text;
  text.family("a", "gauge", "Some help.");
  text.sample("a", {}, 1.5);
  text.sample("a", {{"x", "quo\"te\\ and\nline"}}, 12345678);
  text.family("h", "histogram", "More.");
  text.histogram("h", {{"m", "n"}}, histogram);
  text.sample("odd", {}, std::nan(""));
  text.sample("odd", {}, -INFINITY);
  EXPECT_EQ(text.text(),
            "# HELP a Some help.\n# TYPE a gauge\na 1.5\n"
            "a{x=\"quo\\\"te\\\\ and\\nline\"} 12345678\n"
            "# HELP h More.\n# TYPE h histogram\n"
            "h_bucket{m=\"n\",le=\"0.5\"} 1\nh_bucket{m=\"n\",le=\"10\"} 1\n"
            "h_bucket{m=\"n\",le=\"+Inf\"} 1\nh_sum{m=\"n\"} 0.25\nh_count{m=\"n\"} 1\n"
            "odd NaN\nodd -Inf\n");
}

TEST(ModelMetrics, PartTheTimeOfARequest) {
  ModelMetrics metrics;
  constexpr int64_t kSecond = 1'000'000'000;
  metrics.finished({.reason = FinishReason::kLength,
                    .usage = {.prompt_tokens = 100, .completion_tokens = 5, .cached_tokens = 64},
                    .timing = {.submitted_ns = 2 * kSecond,
                               .scheduled_ns = 3 * kSecond,
                               .first_token_ns = 5 * kSecond,
                               .finished_ns = 9 * kSecond},
                    .arrival_ns = kSecond,
                    .max_tokens = 5});
  static constexpr double kBounds[] = {1};
  const Histogram rows(kBounds);
  const std::map<int, int64_t> answers = {{200, 3}};
  ModelPage page{.name = "m", .rows_per_step = &rows, .metrics = &metrics};
  page.engine.stats.prefix_queries = 100;
  page.engine.stats.prefix_hits = 64;
  const std::string text = metrics_page({&page, 1}, {.answers = &answers});
  const std::string labels = "{model_name=\"m\",engine=\"0\"} ";
  EXPECT_THAT(text, HasSubstr("vllm:e2e_request_latency_seconds_sum" + labels + "8\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_queue_time_seconds_sum" + labels + "1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_prefill_time_seconds_sum" + labels + "2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_decode_time_seconds_sum" + labels + "4\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_inference_time_seconds_sum" + labels + "6\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_time_per_output_token_seconds_sum" + labels + "1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_prefill_kv_computed_tokens_sum" + labels + "36\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prefix_cache_hits_total" + labels + "64\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prefix_cache_queries_total" + labels + "100\n"));
  EXPECT_THAT(text, HasSubstr("engine=\"0\",source=\"local_compute\"} 36\n"));
  EXPECT_THAT(text, HasSubstr("quern:http_answers_total{code=\"200\"} 3\n"));
}

// Every sample belongs to the family whose head came last, and every family has one type.
TEST(MetricsPage, IsWellFormed) {
  ModelMetrics metrics;
  static constexpr double kBounds[] = {1};
  const Histogram rows(kBounds);
  const std::map<int, int64_t> answers;
  const ModelPage page{.name = "m", .rows_per_step = &rows, .metrics = &metrics};
  const std::string text = metrics_page({&page, 1}, {.answers = &answers});
  std::istringstream lines(text);
  std::string line, family;
  std::set<std::string> families;
  while (std::getline(lines, line)) {
    if (line.starts_with("# TYPE ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(families.insert(family).second) << family;
    } else if (!line.starts_with("#")) {
      EXPECT_TRUE(line.starts_with(family)) << line;
    }
  }
  for (const char* name :
       {"vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc",
        "vllm:cache_config_info", "vllm:lora_requests_info"}) {
    EXPECT_TRUE(families.contains(name)) << name;
  }
}

}  // namespace
}  // namespace quern
