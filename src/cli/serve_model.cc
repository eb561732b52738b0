#include "cli/serve_model.h"

#include <algorithm>
#include <ctime>
#include <fstream>

#include <fmt/format.h>

#include "base/random.h"
#include "cli/store.h"
#include "model/footprint.h"

namespace quern {
namespace {

constexpr int64_t kDefaultContext = 8192;  // cache for more is asked for

Result<int64_t> choose_context(const ServeModelOptions& options, const ModelSpec& spec) {
  if (options.context == 0) return std::min(kDefaultContext, spec.max_context);
  if (options.context <= spec.max_context) return options.context;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("--context is {}; the model has at most {} positions", options.context,
                           spec.max_context)};
}

// Tells answers of different arithmetic apart.
std::string fingerprint(const ServingModel& model, const RunOptions& run) {
  const std::string text = fmt::format(
      "{} {} {} {} {} {}", QUERN_VERSION, model.session.model->spec().architecture,
      model.session.report.weight_bytes, run.precision, run.head, kv_dtype_name(kv_dtype(run)));
  uint64_t hash = 0;
  for (const char c : text) hash = mix64(hash ^ static_cast<unsigned char>(c));
  return fmt::format("fp_{:012x}", hash >> 16);
}

Result<std::optional<ChatTemplate>> read_template(const std::filesystem::path& path,
                                                  std::string* source) {
  Result<std::string> text = open_chat_template(path);
  if (!text && text.error().code == ErrorCode::kNotFound) return std::optional<ChatTemplate>();
  *source = QUERN_TRY(std::move(text));
  Result<ChatTemplate> parsed = ChatTemplate::parse(*source);
  if (!parsed) {
    return Error{parsed.error().code,
                 fmt::format("{}: the chat template: {}", path.string(), parsed.error().message)};
  }
  return std::optional<ChatTemplate>(std::move(*parsed));
}

// Tokens must mean the same to both, for one's are the other's.
Result<Unit> check_same_tokens(const std::string& name,
                               const Tokenizer& tokenizer,
                               const std::string& draft_name,
                               const Tokenizer& draft) {
  const auto wrong = [&](const std::string& why) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("--draft-model {} cannot guess for {}: {}; give a smaller model of the "
                    "same family",
                    draft_name, name, why)};
  };
  if (tokenizer.vocabulary_size() != draft.vocabulary_size()) {
    return wrong(fmt::format("it knows {} tokens, not {}", draft.vocabulary_size(),
                             tokenizer.vocabulary_size()));
  }
  for (int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    if (tokenizer.token_bytes(id) != draft.token_bytes(id)) {
      return wrong(fmt::format("token {} is another", id));
    }
  }
  return Unit{};
}

// Guesses may be wrong, so a draft model runs as fast as it can.
RunOptions draft_run(RunOptions run) {
  run.precision = "fast";
  run.kv = "int8";
  return run;
}

// Adds what the draft model takes to the plan of a model of `vocabulary` tokens. It caches as many
// positions as the model.
Result<Unit> plan_draft(const ServeModelOptions& options, int64_t vocabulary, ServePlan* plan) {
  ModelSize& size = plan->size;
  const auto path = QUERN_TRY(resolve_model(options.draft_model));
  const auto checkpoint = QUERN_TRY(Checkpoint::open(path));
  const ModelSpec spec = QUERN_TRY(read_spec(*checkpoint));
  if (spec.vocabulary != vocabulary || spec.max_context < size.context) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--draft-model {}: it has {} tokens and {} positions; guessing for {} "
                             "takes {} and {}",
                             options.draft_model, spec.vocabulary, spec.max_context, plan->id,
                             vocabulary, size.context)};
  }
  const KvDType dtype = kv_dtype(draft_run(options.run));
  const MemoryPlan memory = QUERN_TRY(plan_memory(spec, *checkpoint,
                                                  {.context = size.context,
                                                   .precision = Precision::kFast,
                                                   .kv_dtype = dtype,
                                                   .max_batch_tokens = options.max_batch_tokens}));
  size.weights_bytes += memory.weights_bytes;
  size.kv_cache_bytes +=
      static_cast<uint64_t>(size.kv_cache_tokens) * kv_bytes_per_token(spec, dtype);
  size.scratch_bytes +=
      memory.scratch_bytes +
      static_cast<uint64_t>(options.max_sequences * spec.vocabulary) * sizeof(float);
  return Unit{};
}

Result<Session> load_draft(const std::string& name,
                           const ServePlan& plan,
                           const ServeModelOptions& options,
                           const Tokenizer& tokenizer,
                           Backend& backend,
                           const ConsoleOptions& console) {
  const RunOptions run = draft_run(options.run);
  Session session = QUERN_TRY(load_session(options.draft_model, backend,
                                           {.precision = Precision::kFast,
                                            .head = head_format(run),
                                            .limits = {.max_batch_tokens = options.max_batch_tokens,
                                                       .max_logit_rows = options.max_sequences,
                                                       .kv_blocks = plan.kv_blocks,
                                                       .kv_dtype = kv_dtype(run)}},
                                           console));
  const auto own = QUERN_TRY(open_tokenizer(session.path));
  QUERN_TRY(check_same_tokens(name, tokenizer, options.draft_model, *own));
  return session;
}

}  // namespace

std::optional<uint64_t> available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  uint64_t kib = 0;
  while (file >> key >> kib >> unit) {
    if (key == "MemAvailable:") return kib << 10;
  }
  return std::nullopt;
}

Result<ServePlan> plan_model(const std::string& name,
                             const std::string& id,
                             const ServeModelOptions& options,
                             uint64_t available_bytes) {
  const std::filesystem::path path = QUERN_TRY(resolve_model(name));
  const auto checkpoint = QUERN_TRY(Checkpoint::open(path));
  const ModelSpec spec = QUERN_TRY(read_spec(*checkpoint));
  ServePlan plan{.id = id};
  ModelSize& size = plan.size;
  size.context = QUERN_TRY(choose_context(options, spec));
  size.max_sequences = options.max_sequences;
  const MemoryPlan memory =
      QUERN_TRY(plan_memory(spec, *checkpoint,
                            {.context = size.context,
                             .precision = precision_by_name(options.run.precision),
                             .kv_dtype = kv_dtype(options.run),
                             .max_batch_tokens = options.max_batch_tokens}));
  size.weights_bytes = memory.weights_bytes;
  const int64_t results =
      logit_rows(options) * spec.vocabulary + options.max_batch_tokens * spec.hidden;
  size.scratch_bytes = memory.scratch_bytes + static_cast<uint64_t>(results) * sizeof(float);
  const uint64_t block_bytes =
      static_cast<uint64_t>(kKvBlockTokens) * kv_bytes_per_token(spec, kv_dtype(options.run));
  const int64_t least = kv_blocks_for(1, size.context);
  if (options.kv_cache_bytes > 0) {
    plan.kv_blocks = static_cast<int64_t>(options.kv_cache_bytes / block_bytes);
  } else {
    const auto quarter = static_cast<int64_t>(available_bytes / 4 / block_bytes);
    plan.kv_blocks =
        std::max(least, std::min(kv_blocks_for(options.max_sequences, size.context), quarter));
  }
  size.kv_cache_tokens = plan.kv_blocks * kKvBlockTokens;
  size.kv_cache_bytes = static_cast<uint64_t>(plan.kv_blocks) * block_bytes;
  if (plan.kv_blocks < least) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--kv-cache holds {} tokens; one request of {} may have {}: give {} "
                             "or a smaller --context",
                             plan.kv_blocks * kKvBlockTokens, id, size.context,
                             static_cast<uint64_t>(least) * block_bytes)};
  }
  if (!options.draft_model.empty()) QUERN_TRY(plan_draft(options, spec.vocabulary, &plan));
  if (size.total_bytes() > available_bytes) {
    return Error{ErrorCode::kExhausted,
                 fmt::format("{} needs {} bytes, {} are available: try a smaller --kv-cache, "
                             "--context or model",
                             id, size.total_bytes(), available_bytes)};
  }
  return plan;
}

Result<std::unique_ptr<ServingModel>> load_serving_model(const std::string& name,
                                                         const ServePlan& plan,
                                                         const ServeModelOptions& options,
                                                         Backend& backend,
                                                         const Clock& clock,
                                                         const ConsoleOptions& console) {
  auto model = std::make_unique<ServingModel>();
  model->plan = plan;
  const LoadOptions load{.precision = precision_by_name(options.run.precision),
                         .head = head_format(options.run),
                         .limits = {.max_batch_tokens = options.max_batch_tokens,
                                    .max_logit_rows = logit_rows(options),
                                    .kv_blocks = plan.kv_blocks,
                                    .kv_dtype = kv_dtype(options.run)}};
  model->session = QUERN_TRY(load_session(name, backend, load, console));
  const std::filesystem::path& path = model->session.path;
  model->tokenizer = QUERN_TRY(open_tokenizer(path));
  ServedModel& served = model->served;
  served.id = plan.id;
  served.created_unix_s = std::time(nullptr);
  served.tokenizer = model->tokenizer.get();
  model->chat_template = QUERN_TRY(read_template(path, &served.chat_template_source));
  if (model->chat_template) served.chat_template = &*model->chat_template;
  set_template_tokens(served);
  served.eos_ids = stop_tokens(model->session.model->spec(), *model->tokenizer);
  served.defaults = QUERN_TRY(read_generation_defaults(path));
  served.fingerprint = fingerprint(*model, options.run);
  if (!options.draft_model.empty()) {
    model->draft = QUERN_TRY(load_draft(name, plan, options, *model->tokenizer, backend, console));
  }
  model->engine =
      std::make_unique<Engine>(*model->session.model, model->tokenizer.get(),
                               EngineOptions{.max_sequences = options.max_sequences,
                                             .max_waiting = options.max_queued,
                                             .speculation = {.max_draft = options.max_draft}},
                               clock, model->draft ? model->draft->model.get() : nullptr);
  served.hidden = model->session.model->spec().hidden;
  served.pooling = options.pooling;
  served.limits = {.vocabulary = model->session.model->spec().vocabulary,
                   .context_tokens = plan.size.context,
                   .cache_tokens = plan.size.kv_cache_tokens};
  return model;
}

ServingModels::ServingModels(const ServeModelOptions& options, Backend& backend, const Clock& clock)
    : options_(options),
      backend_(backend),
      clock_(clock),
      budget_bytes_(available_memory_bytes().value_or(UINT64_MAX)) {}

Result<std::vector<ServePlan>> ServingModels::plan(const std::vector<std::string>& models,
                                                   const std::vector<std::string>& ids) {
  uint64_t available = budget_bytes_;
  std::vector<ServePlan> plans;
  for (size_t i = 0; i < models.size(); ++i) {
    plans.push_back(QUERN_TRY(plan_model(models[i], ids[i], options_, available)));
    available -= plans.back().size.total_bytes();
  }
  return plans;
}

Result<ServedEngine> ServingModels::start(const std::string& model,
                                          const ServePlan& plan,
                                          const ConsoleOptions& console) {
  return keep(QUERN_TRY(load_serving_model(model, plan, options_, backend_, clock_, console)))
      .served;
}

Result<HostedModel> ServingModels::load(const ModelLoad& load) {
  ServeModelOptions options = options_;
  options.draft_model.clear();  // it belongs to the model of the start
  options.context = load.context.value_or(options.context);
  options.max_sequences = load.max_sequences.value_or(options.max_sequences);
  options.max_batch_tokens = std::max(options.max_batch_tokens, options.max_sequences);
  options.kv_cache_bytes = load.kv_cache_bytes.value_or(options.kv_cache_bytes);
  const ServePlan plan = QUERN_TRY(plan_model(load.model, load.id, options, available_bytes()));
  auto backend = QUERN_TRY(open_backend(options.run));
  auto model =
      QUERN_TRY(load_serving_model(load.model, plan, options, *backend, clock_, {.quiet = true}));
  model->backend = std::move(backend);
  return keep(std::move(model));
}

HostedModel ServingModels::keep(std::unique_ptr<ServingModel> model) {
  models_.push_back(std::move(model));
  const ServingModel& kept = *models_.back();
  return {.served = {&kept.served, kept.engine.get(), kept.plan.size.max_sequences},
          .size = kept.plan.size};
}

void ServingModels::unload(const ServedModel& model) {
  std::erase_if(models_, [&](const auto& kept) { return &kept->served == &model; });
}

uint64_t ServingModels::available_bytes() const {
  uint64_t planned = 0;
  for (const auto& model : models_) planned += model->plan.size.total_bytes();
  const uint64_t left = planned < budget_bytes_ ? budget_bytes_ - planned : 0;
  return std::min(left, available_memory_bytes().value_or(UINT64_MAX));
}

}  // namespace quern
