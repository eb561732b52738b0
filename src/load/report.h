// The figures of a run, defined as vLLM's `bench serve` defines them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "load/objective.h"
#include "load/runner.h"
#include "load/statistics.h"

namespace quern {

struct RunReport {
  RunEnd end = RunEnd::kComplete;
  double seconds = 0;
  int64_t sent = 0;
  std::map<Outcome, int64_t> outcomes{};
  std::map<int, int64_t> refused_by_status{}, failed_by_status{};  // 0: without an answer
  int64_t concurrency_max = 0;
  int64_t connections = 0;

  // Of requests that ended well.
  int64_t input_tokens = 0, output_tokens = 0, cached_tokens = 0, chunks = 0;
  std::vector<double> tokens_in_second{};  // all output by the second of the run in which it came
  Summary input{}, output{};               // tokens of a request
  Summary ttft_ms{}, tpot_ms{}, itl_ms{}, e2e_ms{};
  int64_t good = 0;  // within the objective

  Summary refusal_ms{};  // from sending to the end of the refusal
  Summary lag_ms{};      // how much later than due requests were sent

  int64_t usage_checked = 0;
  std::vector<std::pair<std::string, int64_t>> usage_problems{};  // by how often
  std::vector<std::pair<std::string, int64_t>> errors{};          // by how often

  int64_t count(Outcome outcome) const;
  double per_second(int64_t amount) const;
  // Of the best second; of a shorter run the mean.
  double peak_tokens_per_second() const;
};

struct ReportOptions {
  Objective objective{};
  bool ignore_eos = false;  // so that usage must be what was asked
};

RunReport make_report(const RunResult& result, const ReportOptions& options);

// What is wrong with the counts of a request that ended well; empty when nothing is.
std::string usage_problem(const LoadRecord& record, const ReportOptions& options);

// The figures of docs/json.md.
nlohmann::ordered_json report_json(const RunReport& report, const Objective& objective);

// One line of the file of requests, without any text of prompt or answer.
nlohmann::ordered_json record_json(const LoadRecord& record);

}  // namespace quern
