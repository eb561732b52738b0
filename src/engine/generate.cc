#include "engine/generate.h"

#include <optional>
#include <utility>
#include <variant>

namespace quern {
namespace {

// One run of generate_all(): which request of the engine is which completion.
struct Run {
  Engine& engine;
  TokenCallback on_token;
  std::vector<Completion> completions;
  RequestId first_id = 0;  // the engine numbers requests in order

  void take(const Event& event) {
    std::visit([this](const auto& e) { take(e); }, event);
  }

  void take(const TokenEvent& event) {
    const auto index = static_cast<size_t>(event.request - first_id);
    Completion& completion = completions[index];
    completion.tokens.push_back(event.token);
    completion.text += event.text;
    if (event.logprobs) completion.logprobs.push_back(*event.logprobs);
    if (on_token(index, event) == GenerateFlow::kCancel) engine.cancel(event.request);
  }

  void take(const PromptLogprobsEvent& event) {
    completions[static_cast<size_t>(event.request - first_id)].prompt_logprobs = event.logprobs;
  }

  void take(const FinishedEvent& event) {
    Completion& completion = completions[static_cast<size_t>(event.request - first_id)];
    completion.reason = event.reason;
    completion.usage = event.usage;
    completion.timing = event.timing;
    completion.error = event.error;
  }

  void drain() {
    while (engine.step([this](const Event& event) { take(event); })) {
    }
  }
};

}  // namespace

Result<std::vector<Completion>> generate_all(Engine& engine,
                                             std::vector<Request> requests,
                                             TokenCallback on_token) {
  QUERN_CHECK(engine.idle());
  Run run{engine, on_token, std::vector<Completion>(requests.size()), 0};
  RequestId last_id = 0;
  for (Request& request : requests) {
    const Result<RequestId> id = engine.submit(std::move(request));
    if (!id) {
      for (RequestId accepted = run.first_id; accepted <= last_id; ++accepted) {
        engine.cancel(accepted);
      }
      run.drain();
      return id.error();
    }
    if (run.first_id == 0) run.first_id = *id;
    last_id = *id;
  }
  run.drain();
  return std::move(run.completions);
}

Result<Completion> generate(Engine& engine, Request request, TokenCallback on_token) {
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  std::vector<Completion> completions =
      QUERN_TRY(generate_all(engine, std::move(requests), on_token));
  return std::move(completions.front());
}

}  // namespace quern
