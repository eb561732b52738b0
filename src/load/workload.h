// What each request of a run asks, drawn from its index and the seed alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "load/length.h"
#include "load/prompts_file.h"
#include "load/words.h"

namespace quern {

enum class LoadEndpoint : uint8_t { kChat, kCompletions };

// "/v1/chat/completions" or "/v1/completions".
const char* endpoint_path(LoadEndpoint endpoint);

// Errors: kInvalidArgument naming the text. "chat" and "completions" will do.
Result<LoadEndpoint> parse_endpoint(const std::string& text);

// How a client behaves: as it should, by closing its connection in mid-answer, or by sending a body
// that no server may accept.
enum class Behaviour : uint8_t { kGood, kDisconnect, kHostile };

struct WorkloadOptions {
  LoadEndpoint endpoint = LoadEndpoint::kChat;
  std::string model{};
  LengthDistribution input_tokens = LengthDistribution::fixed(256);
  LengthDistribution output_tokens = LengthDistribution::fixed(128);
  int64_t prefix_tokens = 0;          // of text that every prompt begins with, beside input_tokens
  std::vector<PromptLine> prompts{};  // in turn, instead of input_tokens
  bool ignore_eos = false;            // ask for exactly output_tokens
  bool continuous_usage = false;      // ask for a token count with every chunk
  double disconnect_fraction = 0;     // of all requests
  double hostile_fraction = 0;        // of all requests
  std::optional<double> temperature{};
  nlohmann::ordered_json extra{};  // an object of further fields, or null
  uint64_t seed = 0;
};

struct PlannedRequest {
  uint64_t index = 0;
  Behaviour behaviour = Behaviour::kGood;
  std::string what{};  // of a hostile body
  std::string body{};
  int64_t output_tokens = 0;     // at most
  int64_t disconnect_after = 0;  // chunks with output; 0: once the request is sent
};

class Workload {
 public:
  // Errors: kInvalidArgument for fractions outside 0 to 1, extra fields that are no object, and
  // conversations for /v1/completions or with a prefix.
  static Result<Workload> make(WorkloadOptions options, WordTokens word_tokens);

  // The same index gives the same request, whatever was asked before.
  PlannedRequest request(uint64_t index) const;

  const WorkloadOptions& options() const { return options_; }

  const WordTokens& word_tokens() const { return word_tokens_; }

 private:
  Workload(WorkloadOptions options, WordTokens word_tokens);

  nlohmann::ordered_json good_body(uint64_t index, int64_t output_tokens) const;
  std::string prompt_text(uint64_t index) const;

  WorkloadOptions options_;
  WordTokens word_tokens_;
  std::string prefix_;
};

}  // namespace quern
