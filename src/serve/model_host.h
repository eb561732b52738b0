// Who loads and frees the models that a server serves.
#pragma once

#include "base/result.h"
#include "engine/engine.h"
#include "serve/exchange.h"
#include "serve/served_model.h"

namespace quern {

// A model and the engine that runs it. Borrowed by the server, which hands the engine to a thread.
struct ServedEngine {
  const ServedModel* model = nullptr;
  Engine* engine = nullptr;
  int64_t max_sequences = 1;  // that it runs at once
};

struct HostedModel {
  ServedEngine served;
  ModelSize size;
};

// Owns the models. One thread at a time calls it, which is neither the network's nor an engine's.
class ModelHost {
 public:
  ModelHost() = default;
  ModelHost(const ModelHost&) = delete;
  ModelHost& operator=(const ModelHost&) = delete;
  virtual ~ModelHost() = default;

  // Loads a model, however long that takes. Errors: those of opening it; kExhausted when it needs
  // more memory than there is.
  virtual Result<HostedModel> load(const ModelLoad& load) = 0;

  // Frees a model of load() or of the start; nothing refers to it any more.
  virtual void unload(const ServedModel& model) = 0;
};

}  // namespace quern
