#include <algorithm>
#include <memory>
#include <numeric>

#include <fmt/format.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/session.h"

namespace quern {
namespace {

constexpr int64_t kChunkRows = 512;
constexpr int kShownTop = 10;

struct LogitsOptions {
  ConsoleOptions console;
  RunOptions run{.precision = "float32"};
  std::string model;
  std::vector<int32_t> token_ids;
  bool all = false;
};

using Rows = std::vector<std::vector<float>>;

// Runs the tokens as one sequence, in chunks of at most kChunkRows.
Rows run_sequence(Model& model, const LogitsOptions& options) {
  const auto count = std::ssize(options.token_ids);
  std::vector<int32_t> table(static_cast<size_t>(kv_blocks_for(1, count)));
  std::iota(table.begin(), table.end(), 0);
  std::vector<int32_t> positions(options.token_ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  Rows rows;
  for (int64_t begin = 0; begin < count; begin += kChunkRows) {
    const int64_t chunk = std::min(kChunkRows, count - begin);
    std::vector<int32_t> wanted;
    for (int64_t row = 0; row < chunk; ++row) {
      if (options.all || begin + row == count - 1) wanted.push_back(static_cast<int32_t>(row));
    }
    const SequenceSpan span{.row_count = chunk, .position_begin = begin, .block_table = table};
    FloatMatrix logits(std::max<int64_t>(1, std::ssize(wanted)), model.spec().vocabulary);
    const auto at = static_cast<size_t>(begin);
    const auto length = static_cast<size_t>(chunk);
    model.forward({.tokens = std::span(options.token_ids).subspan(at, length),
                   .positions = std::span(positions).subspan(at, length),
                   .sequences = std::span(&span, 1),
                   .logit_rows = wanted},
                  logits.tensor().slice_rows(0, std::ssize(wanted)));
    for (int64_t i = 0; i < std::ssize(wanted); ++i) {
      rows.emplace_back(logits.row(i), logits.row(i) + logits.columns());
    }
  }
  return rows;
}

void print_top(const std::vector<float>& row) {
  std::vector<int32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  const size_t count = std::min<size_t>(kShownTop, row.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(count), order.end(),
                    [&](int32_t a, int32_t b) {
                      return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
                    });
  Table table({{"token", Align::kRight}, {"logit", Align::kRight}});
  for (size_t i = 0; i < count; ++i) {
    table.add(
        {std::to_string(order[i]), fmt::format("{:.6f}", row[static_cast<size_t>(order[i])])});
  }
  fmt::print("{}", table.text());
}

Result<Unit> check_tokens(const ModelSpec& spec, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    if (id >= 0 && id < spec.vocabulary) continue;
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("--token-ids: {} is not in the vocabulary (0 to {})", id, spec.vocabulary - 1)};
  }
  if (std::ssize(ids) <= spec.max_context) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("--token-ids: {} tokens; the model's context is {}", ids.size(),
                           spec.max_context)};
}

Result<Unit> run_logits(const LogitsOptions& options) {
  const auto backend = QUERN_TRY(open_backend(options.run));
  const auto count = std::ssize(options.token_ids);
  const LoadOptions load{.precision = precision_by_name(options.run.precision),
                         .head = head_format(options.run),
                         .limits = {.max_batch_tokens = std::min(kChunkRows, count),
                                    .max_logit_rows = options.all ? std::min(kChunkRows, count) : 1,
                                    .kv_blocks = kv_blocks_for(1, count),
                                    .kv_dtype = kv_dtype(options.run)}};
  const Session session = QUERN_TRY(load_session(options.model, *backend, load, options.console));
  QUERN_TRY(check_tokens(session.model->spec(), options.token_ids));
  const Rows rows = run_sequence(*session.model, options);
  if (!options.console.json) {
    print_top(rows.back());
  } else if (options.all) {
    print_json({{"logits", rows}});
  } else {
    print_json({{"logits", rows.back()}});
  }
  return Unit{};
}

}  // namespace

Action declare_logits(CLI::App& app) {
  auto options = std::make_shared<LogitsOptions>();
  app.add_option("model", options->model, "Directory, GGUF file or fetched name")->required();
  app.add_option("--token-ids", options->token_ids, "Comma-separated ids")
      ->required()
      ->delimiter(',');
  app.add_flag("--all", options->all, "One row for each position, not the last alone");
  add_run_options(app, &options->run);
  add_console_options(app, &options->console);
  return [options] { return run_logits(*options); };
}

}  // namespace quern
