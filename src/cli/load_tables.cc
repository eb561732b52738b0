#include <fmt/format.h>

#include "cli/console.h"
#include "cli/load.h"

namespace quern {
namespace {

std::string by_status(const std::map<int, int64_t>& counts) {
  std::string text;
  for (const auto& [status, count] : counts) {
    text += fmt::format("{}{} {}", text.empty() ? " (" : ", ",
                        status == 0 ? "no answer" : std::to_string(status), count);
  }
  return text.empty() ? text : text + ")";
}

std::string request_lines(const RunReport& report) {
  std::string text = fmt::format("requests: {} sent, {} ok", format_count(report.sent),
                                 format_count(report.count(Outcome::kOk)));
  const auto add = [&](Outcome outcome, const char* name, const std::string& details) {
    if (report.count(outcome) == 0) return;
    text += fmt::format(", {} {}{}", format_count(report.count(outcome)), name, details);
  };
  add(Outcome::kFailed, "failed", by_status(report.failed_by_status));
  add(Outcome::kRefused, "refused", by_status(report.refused_by_status));
  add(Outcome::kDisconnected, "disconnected", "");
  add(Outcome::kRebuffed, "hostile rebuffed", "");
  add(Outcome::kInterrupted, "interrupted", "");
  return text + fmt::format("; at most {} at once over {} connections, in {:.2f} s\n",
                            format_count(report.concurrency_max), format_count(report.connections),
                            report.seconds);
}

std::string throughput_lines(const RunReport& report) {
  return fmt::format(
      "throughput: {:.2f} requests/s, {:.1f} output tokens/s (peak {:.0f}), {:.1f} input tokens/s\n"
      "tokens: {} input ({} cached), {} output; a request has {:.1f} and {:.1f} on average\n",
      report.per_second(report.count(Outcome::kOk)), report.per_second(report.output_tokens),
      report.peak_tokens_per_second(), report.per_second(report.input_tokens),
      format_count(report.input_tokens), format_count(report.cached_tokens),
      format_count(report.output_tokens), report.input.mean, report.output.mean);
}

std::string latency_table(const RunReport& report) {
  Table table({{"ms", Align::kLeft},
               {"mean", Align::kRight},
               {"median", Align::kRight},
               {"p90", Align::kRight},
               {"p95", Align::kRight},
               {"p99", Align::kRight},
               {"max", Align::kRight}});
  const auto add = [&](const char* name, const Summary& summary) {
    if (summary.count == 0) return;
    std::vector<std::string> cells{name};
    for (const double value :
         {summary.mean, summary.median, summary.p90, summary.p95, summary.p99, summary.max}) {
      cells.push_back(fmt::format("{:.2f}", value));
    }
    table.add(std::move(cells));
  };
  add("time to first token (TTFT)", report.ttft_ms);
  add("per token after it (TPOT)", report.tpot_ms);
  add("between tokens (ITL)", report.itl_ms);
  add("end to end (E2E)", report.e2e_ms);
  add("until refused", report.refusal_ms);
  add("sent later than due", report.lag_ms);
  return table.text();
}

std::string goodput_line(const RunReport& report, const Objective& objective) {
  if (objective.empty()) return "";
  std::string limits;
  const auto add = [&](const char* name, std::optional<double> limit_ms) {
    if (!limit_ms) return;
    limits += fmt::format("{}{} {:g} ms", limits.empty() ? "" : ", ", name, *limit_ms);
  };
  add("TTFT", objective.ttft_ms);
  add("TPOT", objective.tpot_ms);
  add("E2E", objective.e2e_ms);
  return fmt::format("goodput: {:.2f} requests/s within {}: {} of {}\n",
                     report.per_second(report.good), limits, format_count(report.good),
                     format_count(report.sent));
}

std::string message_lines(const char* title,
                          const std::vector<std::pair<std::string, int64_t>>& messages) {
  std::string text;
  for (const auto& [message, count] : messages) {
    text += fmt::format("{}: {} x {}\n", title, format_count(count), message);
  }
  return text;
}

}  // namespace

std::string load_tables(const RunReport& report, const Objective& objective) {
  std::string text = request_lines(report);
  if (report.count(Outcome::kOk) > 0) text += throughput_lines(report);
  text += "\n" + latency_table(report) + "\n" + goodput_line(report, objective);
  if (report.usage_checked > 0 && report.usage_problems.empty()) {
    text += fmt::format("usage: right in {} of {} answers\n", format_count(report.usage_checked),
                        format_count(report.usage_checked));
  }
  text += message_lines("usage", report.usage_problems);
  return text + message_lines("failed", report.errors);
}

}  // namespace quern
