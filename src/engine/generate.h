// Runs requests to their end and collects what came of them, for commands.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "base/result.h"
#include "engine/engine.h"

namespace quern {

struct Completion {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<Logprobs> logprobs;         // one for each token when they were asked for
  std::vector<Logprobs> prompt_logprobs;  // of every prompt token but the first, if asked for
  FinishReason reason = FinishReason::kStop;
  Usage usage;
  Timing timing;
  std::string error;  // kError: one sentence
};

enum class GenerateFlow : uint8_t { kContinue, kCancel };

// Sees every token as it comes; kCancel cancels the request.
using TokenCallback = FunctionRef<GenerateFlow(size_t request, const TokenEvent& event)>;

// Submits all requests and steps the engine until they have ended; one completion for each request,
// in order. The engine must be idle. Errors: those of Engine::submit(), whereupon none is run.
Result<std::vector<Completion>> generate_all(Engine& engine,
                                             std::vector<Request> requests,
                                             TokenCallback on_token);

// The same for one request.
Result<Completion> generate(Engine& engine, Request request, TokenCallback on_token);

}  // namespace quern
