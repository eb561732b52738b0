#include "load/report.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace quern {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr size_t kMaxMessages = 8;  // distinct ones that are shown

using MessageCounts = std::map<std::string, int64_t>;

std::vector<std::pair<std::string, int64_t>> most_frequent(const MessageCounts& counts) {
  std::vector<std::pair<std::string, int64_t>> list(counts.begin(), counts.end());
  std::stable_sort(list.begin(), list.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  if (list.size() > kMaxMessages) list.resize(kMaxMessages);
  return list;
}

// A token of a chunk weighs what makes the chunks of a request come to its tokens.
void add_tokens(const LoadRecord& record, std::vector<double>* seconds) {
  if (record.chunks == 0) return;
  const double weight = std::max(
      1.0, static_cast<double>(record.output_tokens()) / static_cast<double>(record.chunks));
  double at_seconds = static_cast<double>(record.first_ns) * 1e-9;
  const auto add = [&] {
    const auto second = static_cast<size_t>(std::max(at_seconds, 0.0));
    if (second >= seconds->size()) seconds->resize(second + 1, 0);
    (*seconds)[second] += weight;
  };
  add();
  for (const float gap_ms : record.gaps_ms) {
    at_seconds += static_cast<double>(gap_ms) * 1e-3;
    add();
  }
}

bool within(const LoadRecord& record, const Objective& objective) {
  return record.ttft_ms() <= objective.ttft_ms.value_or(record.ttft_ms()) &&
         record.tpot_ms() <= objective.tpot_ms.value_or(record.tpot_ms()) &&
         record.e2e_ms() <= objective.e2e_ms.value_or(record.e2e_ms());
}

struct Samples {
  std::vector<double> input, output, ttft, tpot, itl, e2e, refusal, lag;
  MessageCounts errors, usage_problems;
};

void add_ok(const LoadRecord& record,
            const ReportOptions& options,
            RunReport* report,
            Samples* samples) {
  const int64_t output = record.output_tokens();
  const int64_t input = record.usage ? record.usage->prompt_tokens : 0;
  report->input_tokens += input;
  report->output_tokens += output;
  report->cached_tokens += record.usage ? record.usage->cached_tokens : 0;
  report->chunks += record.chunks;
  report->good += within(record, options.objective) ? 1 : 0;
  samples->input.push_back(static_cast<double>(input));
  samples->output.push_back(static_cast<double>(output));
  samples->ttft.push_back(record.ttft_ms());
  samples->e2e.push_back(record.e2e_ms());
  if (output > 1) samples->tpot.push_back(record.tpot_ms());
  samples->itl.insert(samples->itl.end(), record.gaps_ms.begin(), record.gaps_ms.end());
  ++report->usage_checked;
  const std::string problem = usage_problem(record, options);
  if (!problem.empty()) ++samples->usage_problems[problem];
}

void add_record(const LoadRecord& record,
                const ReportOptions& options,
                RunReport* report,
                Samples* samples) {
  ++report->outcomes[record.outcome];
  if (record.due_ns >= 0) {
    samples->lag.push_back(static_cast<double>(record.sent_ns - record.due_ns) * 1e-6);
  }
  add_tokens(record, &report->tokens_in_second);
  switch (record.outcome) {
    case Outcome::kOk:
      return add_ok(record, options, report, samples);
    case Outcome::kRefused:
      ++report->refused_by_status[record.status];
      samples->refusal.push_back(static_cast<double>(record.end_ns - record.sent_ns) * 1e-6);
      return;
    case Outcome::kFailed:
      ++report->failed_by_status[record.status];
      ++samples->errors[record.error];
      return;
    case Outcome::kDisconnected:
    case Outcome::kRebuffed:
    case Outcome::kInterrupted:
      return;
  }
}

OrderedJson summary_json(const Summary& summary) {
  if (summary.count == 0) return nullptr;
  return {{"mean", summary.mean}, {"median", summary.median}, {"p90", summary.p90},
          {"p95", summary.p95},   {"p99", summary.p99},       {"max", summary.max}};
}

OrderedJson by_status_json(const std::map<int, int64_t>& counts) {
  OrderedJson out = OrderedJson::object();
  for (const auto& [status, count] : counts) {
    out[status == 0 ? "no_answer" : std::to_string(status)] = count;
  }
  return out;
}

OrderedJson messages_json(const std::vector<std::pair<std::string, int64_t>>& messages) {
  OrderedJson out = OrderedJson::array();
  for (const auto& [message, count] : messages) {
    out.push_back({{"message", message}, {"count", count}});
  }
  return out;
}

OrderedJson requests_json(const RunReport& report) {
  return {{"sent", report.sent},
          {"ok", report.count(Outcome::kOk)},
          {"failed", report.count(Outcome::kFailed)},
          {"refused", report.count(Outcome::kRefused)},
          {"disconnected", report.count(Outcome::kDisconnected)},
          {"hostile_rebuffed", report.count(Outcome::kRebuffed)},
          {"interrupted", report.count(Outcome::kInterrupted)},
          {"refused_by_status", by_status_json(report.refused_by_status)},
          {"failed_by_status", by_status_json(report.failed_by_status)}};
}

OrderedJson goodput_json(const RunReport& report, const Objective& objective) {
  if (objective.empty()) return nullptr;
  OrderedJson out = OrderedJson::object();
  if (objective.ttft_ms) out["ttft_ms"] = *objective.ttft_ms;
  if (objective.tpot_ms) out["tpot_ms"] = *objective.tpot_ms;
  if (objective.e2e_ms) out["e2e_ms"] = *objective.e2e_ms;
  return {
      {"objective", out},
      {"good_requests", report.good},
      {"requests_per_second", report.per_second(report.good)},
      {"share",
       report.sent == 0 ? 0 : static_cast<double>(report.good) / static_cast<double>(report.sent)}};
}

const char* end_name(RunEnd end) {
  switch (end) {
    case RunEnd::kComplete:
      return "complete";
    case RunEnd::kInterrupted:
      return "interrupted";
    case RunEnd::kUnreachable:
      return "unreachable";
  }
  return "";
}

}  // namespace

int64_t RunReport::count(Outcome outcome) const {
  const auto it = outcomes.find(outcome);
  return it == outcomes.end() ? 0 : it->second;
}

double RunReport::per_second(int64_t amount) const {
  return seconds > 0 ? static_cast<double>(amount) / seconds : 0;
}

double RunReport::peak_tokens_per_second() const {
  if (tokens_in_second.empty()) return 0;
  if (seconds < 1) return per_second(output_tokens);
  return *std::max_element(tokens_in_second.begin(), tokens_in_second.end());
}

RunReport make_report(const RunResult& result, const ReportOptions& options) {
  RunReport report{.end = result.end,
                   .seconds = result.seconds,
                   .sent = std::ssize(result.records),
                   .concurrency_max = result.concurrency_max,
                   .connections = result.connections};
  Samples samples;
  for (const LoadRecord& record : result.records) {
    add_record(record, options, &report, &samples);
  }
  report.input = summarize(std::move(samples.input));
  report.output = summarize(std::move(samples.output));
  report.ttft_ms = summarize(std::move(samples.ttft));
  report.tpot_ms = summarize(std::move(samples.tpot));
  report.itl_ms = summarize(std::move(samples.itl));
  report.e2e_ms = summarize(std::move(samples.e2e));
  report.refusal_ms = summarize(std::move(samples.refusal));
  report.lag_ms = summarize(std::move(samples.lag));
  report.errors = most_frequent(samples.errors);
  report.usage_problems = most_frequent(samples.usage_problems);
  return report;
}

std::string usage_problem(const LoadRecord& record, const ReportOptions& options) {
  if (!record.usage) return "the stream has no usage";
  const StreamUsage& usage = *record.usage;
  if (usage.prompt_tokens + usage.completion_tokens != usage.total_tokens) {
    return "total_tokens is not prompt_tokens and completion_tokens together";
  }
  if (usage.completion_tokens < record.chunks) {
    return "completion_tokens is less than the chunks with output";
  }
  if (record.counted_tokens && *record.counted_tokens != usage.completion_tokens) {
    return "completion_tokens is not what the stream counted on its way";
  }
  if (options.ignore_eos && usage.completion_tokens != record.max_tokens) {
    return "completion_tokens is not max_tokens despite ignore_eos";
  }
  return {};
}

OrderedJson report_json(const RunReport& report, const Objective& objective) {
  const int64_t tokens = report.input_tokens + report.output_tokens;
  OrderedJson usage = {{"checked", report.usage_checked},
                       {"problems", messages_json(report.usage_problems)}};
  return {{"end", end_name(report.end)},
          {"duration_seconds", report.seconds},
          {"requests", requests_json(report)},
          {"requests_per_second", report.per_second(report.count(Outcome::kOk))},
          {"input_tokens", report.input_tokens},
          {"cached_input_tokens", report.cached_tokens},
          {"output_tokens", report.output_tokens},
          {"output_chunks", report.chunks},
          {"input_tokens_per_second", report.per_second(report.input_tokens)},
          {"output_tokens_per_second", report.per_second(report.output_tokens)},
          {"total_tokens_per_second", report.per_second(tokens)},
          {"peak_output_tokens_per_second", report.peak_tokens_per_second()},
          {"concurrency_max", report.concurrency_max},
          {"connections", report.connections},
          {"input_tokens_per_request", summary_json(report.input)},
          {"output_tokens_per_request", summary_json(report.output)},
          {"ttft_ms", summary_json(report.ttft_ms)},
          {"tpot_ms", summary_json(report.tpot_ms)},
          {"itl_ms", summary_json(report.itl_ms)},
          {"e2e_ms", summary_json(report.e2e_ms)},
          {"refusal_ms", summary_json(report.refusal_ms)},
          {"send_lag_ms", summary_json(report.lag_ms)},
          {"goodput", goodput_json(report, objective)},
          {"usage", std::move(usage)},
          {"errors", messages_json(report.errors)}};
}

OrderedJson record_json(const LoadRecord& record) {
  OrderedJson out = {{"index", record.index},
                     {"outcome", outcome_name(record.outcome)},
                     {"status", record.status},
                     {"sent_seconds", static_cast<double>(record.sent_ns) * 1e-9},
                     {"end_seconds", static_cast<double>(record.end_ns) * 1e-9},
                     {"max_tokens", record.max_tokens},
                     {"chunks", record.chunks}};
  if (record.first_ns >= 0) out["ttft_ms"] = record.ttft_ms();
  if (record.outcome == Outcome::kOk) {
    out["tpot_ms"] = record.tpot_ms();
    out["e2e_ms"] = record.e2e_ms();
  }
  if (record.usage) {
    out["prompt_tokens"] = record.usage->prompt_tokens;
    out["completion_tokens"] = record.usage->completion_tokens;
    out["cached_tokens"] = record.usage->cached_tokens;
  }
  if (!record.finish_reason.empty()) out["finish_reason"] = record.finish_reason;
  if (!record.error.empty()) out["error"] = record.error;
  return out;
}

}  // namespace quern
