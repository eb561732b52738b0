#include <memory>

#include <fmt/format.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/session.h"
#include "cli/store.h"
#include "model/footprint.h"

namespace quern {
namespace {

struct InspectOptions {
  ConsoleOptions console;
  RunOptions run;
  std::string model;
  bool tensors = false;
  PlanRequest plan;
};

// What is known of a model without loading it.
struct Inspection {
  std::unique_ptr<Checkpoint> checkpoint;
  ModelSpec spec;
  ParameterCount parameters;
  WeightFootprint weights;
  MemoryPlan plan;
};

Result<Inspection> inspect(const InspectOptions& options) {
  Inspection found;
  const auto path = QUERN_TRY(resolve_model(options.model));
  found.checkpoint = QUERN_TRY(Checkpoint::open(path));
  found.spec = QUERN_TRY(read_spec(*found.checkpoint));
  found.parameters = count_parameters(found.spec);
  found.weights =
      QUERN_TRY(weight_footprint(found.spec, *found.checkpoint, options.plan.precision));
  found.plan = QUERN_TRY(plan_memory(found.spec, *found.checkpoint, options.plan));
  return found;
}

nlohmann::ordered_json to_json(const InspectOptions& options, const Inspection& found) {
  const ModelSpec& spec = found.spec;
  nlohmann::ordered_json by_type;
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16, KvDType::kF32}) {
    by_type[kv_dtype_name(dtype)] = kv_bytes_per_token(spec, dtype);
  }
  nlohmann::ordered_json json = {
      {"architecture", spec.architecture},
      {"parameters", found.parameters.total()},
      {"parameters_embedding", found.parameters.embedding},
      {"parameters_head", found.parameters.head},
      {"blocks", spec.blocks.size()},
      {"hidden", spec.hidden},
      {"vocabulary", spec.vocabulary},
      {"max_context", spec.max_context},
      {"format", found.checkpoint->format()},
      {"formats", found.weights.stored_by_format},
      {"weight_bytes", found.weights.stored_bytes},
      {"kv_bytes_per_token", kv_bytes_per_token(spec, options.plan.kv_dtype)},
      {"kv_bytes_per_token_by_type", by_type},
      {"plan",
       {{"batch", options.plan.batch},
        {"context", options.plan.context},
        {"precision", options.run.precision},
        {"kv_cache", kv_dtype_name(options.plan.kv_dtype)},
        {"weights_bytes", found.plan.weights_bytes},
        {"kv_cache_bytes", found.plan.kv_cache_bytes},
        {"scratch_bytes", found.plan.scratch_bytes},
        {"total_bytes", found.plan.total_bytes()}}}};
  if (options.tensors) {
    nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
    for (const StoredTensor& tensor : found.checkpoint->tensors()) {
      tensors.push_back({{"name", tensor.name},
                         {"format", tensor.format},
                         {"shape", tensor.shape},
                         {"bytes", tensor.bytes}});
    }
    json["tensors"] = tensors;
  }
  return json;
}

std::string bytes_text(uint64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

void print_tensors(const Checkpoint& checkpoint) {
  Table table({{"tensor", Align::kLeft},
               {"format", Align::kLeft},
               {"shape", Align::kLeft},
               {"size", Align::kRight}});
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    std::string shape;
    for (const int64_t dim : tensor.shape)
      shape += fmt::format("{}{}", shape.empty() ? "" : " x ", dim);
    table.add({tensor.name, tensor.format, shape, bytes_text(tensor.bytes)});
  }
  fmt::print("\n{}", table.text());
}

void print_inspection(const InspectOptions& options, const Inspection& found) {
  const ModelSpec& spec = found.spec;
  Table table({{"", Align::kLeft}, {"", Align::kLeft}});
  table.add({"architecture", spec.architecture});
  table.add({"parameters",
             fmt::format("{} ({} in the embedding{})", format_count(found.parameters.total()),
                         format_count(found.parameters.embedding),
                         spec.tied_head() ? ", which is the head too" : "")});
  table.add({"blocks", fmt::format("{}, hidden {}", spec.blocks.size(), spec.hidden)});
  table.add({"vocabulary", format_count(spec.vocabulary)});
  table.add({"context", format_count(spec.max_context)});
  table.add({"format", std::string(found.checkpoint->format())});
  for (const auto& [format, bytes] : found.weights.stored_by_format) {
    table.add({"  " + format, bytes_text(bytes)});
  }
  table.add({"weights in the files", bytes_text(found.weights.stored_bytes)});
  for (const KvDType dtype : {KvDType::kInt8, KvDType::kBF16, KvDType::kF32}) {
    table.add({fmt::format("cache per token, {}", kv_dtype_name(dtype)),
               bytes_text(kv_bytes_per_token(spec, dtype))});
  }
  const MemoryPlan& plan = found.plan;
  table.add(
      {fmt::format("memory at batch {}, context {}", options.plan.batch, options.plan.context),
       bytes_text(plan.total_bytes())});
  table.add({fmt::format("  weights, {}", options.run.precision), bytes_text(plan.weights_bytes)});
  table.add({fmt::format("  cache, {}", kv_dtype_name(options.plan.kv_dtype)),
             bytes_text(plan.kv_cache_bytes)});
  table.add({"  scratch", bytes_text(plan.scratch_bytes)});
  const std::string text = table.text();
  fmt::print("{}", text.substr(text.find('\n') + 1));
  if (options.tensors) print_tensors(*found.checkpoint);
}

Result<Unit> run_inspect(InspectOptions& options) {
  QUERN_TRY(open_backend({.threads = 1, .isa = options.run.isa}));
  options.plan.precision = precision_by_name(options.run.precision);
  options.plan.kv_dtype = kv_dtype(options.run);
  const Inspection found = QUERN_TRY(inspect(options));
  if (options.console.json) {
    print_json(to_json(options, found));
  } else {
    print_inspection(options, found);
  }
  return Unit{};
}

}  // namespace

Action declare_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  app.add_option("model", options->model, "Directory, GGUF file or fetched name")->required();
  app.add_option("--batch", options->plan.batch, "Sequences to plan memory for")
      ->capture_default_str();
  app.add_option("--context", options->plan.context, "Positions of each")->capture_default_str();
  app.add_flag("--tensors", options->tensors, "List every stored tensor");
  add_run_options(app, &options->run);
  add_console_options(app, &options->console);
  return [options] { return run_inspect(*options); };
}

}  // namespace quern
