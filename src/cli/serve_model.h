// A model made ready to be served: sized, loaded, with its tokenizer, template and engine.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "cli/console.h"
#include "cli/session.h"
#include "engine/engine.h"
#include "serve/model_host.h"
#include "text/chat_template.h"

namespace quern {

struct ServeModelOptions {
  RunOptions run;
  int64_t max_sequences = 32;      // running at once
  int64_t max_batch_tokens = 512;  // rows of one step
  int64_t max_queued = 256;
  Pooling pooling = Pooling::kMean;  // of embeddings
  int64_t max_draft = 0;             // tokens guessed for each sequence and step
  std::string draft_model;           // guesses them; empty: they come from the text
  int64_t context = 0;               // of one request; 0: the model's, at most 8192
  uint64_t kv_cache_bytes = 0;  // 0: what the requests could need, at most a quarter of the memory
};

// What a model will take, decided before it is loaded and never exceeded afterwards.
struct ServePlan {
  std::string id;
  int64_t kv_blocks = 0;  // of the draft model too
  ModelSize size = {};
};

// Rows of one step whose logits are wanted.
inline int64_t logit_rows(const ServeModelOptions& options) {
  return std::min(options.max_batch_tokens, options.max_sequences * (1 + options.max_draft));
}

// Plans the model named `name` with `available_bytes` of memory left. Errors: those of opening it;
// kInvalidArgument for a context beyond the model's, a cache too small for one request or a draft
// model of another vocabulary;
// kExhausted when it needs more memory than there is.
Result<ServePlan> plan_model(const std::string& name,
                             const std::string& id,
                             const ServeModelOptions& options,
                             uint64_t available_bytes);

// All that serving one model takes. Address-stable: its parts refer to one another.
struct ServingModel {
  ServePlan plan;
  std::unique_ptr<Backend> backend;  // of a model that came later: the others may compute meanwhile
  Session session;
  std::optional<Session> draft;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::unique_ptr<Engine> engine;
  ServedModel served;
};

// Loads what was planned. The backend and the clock outlive it.
Result<std::unique_ptr<ServingModel>> load_serving_model(const std::string& name,
                                                         const ServePlan& plan,
                                                         const ServeModelOptions& options,
                                                         Backend& backend,
                                                         const Clock& clock,
                                                         const ConsoleOptions& console);

// The models of a server. They share `backend` but for those that load() brings.
class ServingModels final : public ModelHost {
 public:
  // `options` are those of the start; backend and clock outlive the models.
  ServingModels(const ServeModelOptions& options, Backend& backend, const Clock& clock);

  // Plans the models of the start, of which all must fit together. Errors: those of plan_model().
  Result<std::vector<ServePlan>> plan(const std::vector<std::string>& models,
                                      const std::vector<std::string>& ids);

  // Loads one of them.
  Result<ServedEngine> start(const std::string& model,
                             const ServePlan& plan,
                             const ConsoleOptions& console);

  Result<HostedModel> load(const ModelLoad& load) override;
  void unload(const ServedModel& model) override;

 private:
  HostedModel keep(std::unique_ptr<ServingModel> model);
  // What the models leave. Caches count whole although they are touched bit by bit.
  uint64_t available_bytes() const;

  ServeModelOptions options_;
  Backend& backend_;
  const Clock& clock_;
  uint64_t budget_bytes_;  // at the start
  std::vector<std::unique_ptr<ServingModel>> models_;
};

// Memory that new allocations can have, from /proc/meminfo; nothing where there is no such file.
std::optional<uint64_t> available_memory_bytes();

}  // namespace quern
