#include "load/load_plot.h"

#include <algorithm>
#include <utility>

#include "load/svg.h"

namespace quern {
namespace {

constexpr size_t kMaxPoints = 400;  // of a distribution: more than the picture has columns
constexpr double kShownPercent = 99.5;

// The share of values up to each, up to where a few late ones would squeeze the rest.
PlotLine distribution(std::string name, std::vector<double> values) {
  PlotLine line{std::move(name), {}};
  if (values.empty()) return line;
  std::sort(values.begin(), values.end());
  const size_t points = std::min(values.size(), kMaxPoints);
  for (size_t i = 0; i < points; ++i) {
    const double share =
        points == 1 ? 1.0 : static_cast<double>(i) / static_cast<double>(points - 1);
    const double percent = kShownPercent * share;
    line.points.emplace_back(std::max(percentile(values, percent), 0.0), percent);
  }
  return line;
}

PlotLine by_second(std::string name, const std::vector<double>& amounts) {
  PlotLine line{std::move(name), {}};
  for (size_t second = 0; second < amounts.size(); ++second) {
    line.points.emplace_back(static_cast<double>(second), amounts[second]);
    line.points.emplace_back(static_cast<double>(second + 1), amounts[second]);
  }
  return line;
}

// Requests that ended in each second, by what they came to.
std::vector<PlotLine> ended_by_second(const RunResult& result) {
  const std::pair<const char*, std::vector<Outcome>> kinds[] = {
      {"ok", {Outcome::kOk}},
      {"failed", {Outcome::kFailed}},
      {"refused", {Outcome::kRefused}},
      {"other", {Outcome::kDisconnected, Outcome::kRebuffed, Outcome::kInterrupted}}};
  std::vector<PlotLine> lines;
  for (const auto& [name, outcomes] : kinds) {
    std::vector<double> counts(static_cast<size_t>(result.seconds) + 1, 0);
    bool any = false;
    for (const LoadRecord& record : result.records) {
      if (std::find(outcomes.begin(), outcomes.end(), record.outcome) == outcomes.end()) continue;
      const auto second = static_cast<size_t>(static_cast<double>(record.end_ns) * 1e-9);
      counts[std::min(second, counts.size() - 1)] += 1;
      any = true;
    }
    if (any) lines.push_back(by_second(name, counts));
  }
  return lines;
}

}  // namespace

std::string load_plot(const RunResult& result,
                      const RunReport& report,
                      const std::vector<std::string>& notes) {
  std::vector<double> ttft, tpot, itl;
  for (const LoadRecord& record : result.records) {
    if (record.outcome != Outcome::kOk) continue;
    ttft.push_back(record.ttft_ms());
    if (record.output_tokens() > 1) tpot.push_back(record.tpot_ms());
    itl.insert(itl.end(), record.gaps_ms.begin(), record.gaps_ms.end());
  }
  const std::string share = "% of requests up to";
  return svg_page(
      "quern load", notes,
      {{"Time to first token", "ms", share, {distribution("TTFT", std::move(ttft))}, 100},
       {"Between tokens",
        "ms",
        "% up to",
        {distribution("ITL, each gap", std::move(itl)),
         distribution("TPOT, each request", std::move(tpot))},
        100},
       {"Output",
        "s",
        "tokens in each second",
        {by_second("output tokens", report.tokens_in_second)},
        0},
       {"Requests", "s", "ended in each second", ended_by_second(result), 0}});
}

}  // namespace quern
