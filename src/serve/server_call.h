// A call on its way through the server.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "serve/exchange.h"
#include "serve/http_reader.h"
#include "serve/served_model.h"
#include "serve/server_keys.h"

namespace quern {

class Connection;

// What is known of a request besides its body.
struct RequestInfo {
  std::string id;  // x-request-id
  std::string method;
  std::string path;
  std::string cors_origin;  // allowed to read the answer; empty: none
  std::string peer;
  std::string key_name = {};
  KeyRole role = KeyRole::kCaller;
  int64_t arrival_ns = 0;
};

// One of the requests that a call runs.
struct AnswerState {
  int64_t max_tokens = 0;
  int64_t last_token_ns = 0;
};

// Outlives its connection until its requests have ended, so that what they used is known.
struct Call {
  enum class Stage : uint8_t { kOpening, kRunning, kChanging };  // the last: models of the server

  uint64_t id = 0;
  Stage stage = Stage::kOpening;
  RequestInfo info;
  std::string body;                  // until it is opened
  ServedModels models;               // that it may name, until it is opened
  Connection* connection = nullptr;  // nullptr once the client is gone or has its answer
  std::unique_ptr<Exchange> exchange;
  uint64_t slot = 0;              // of the engine that runs it
  std::vector<Request> requests;  // moved out of here as they are handed to the engine
  size_t handed_over = 0;         // the first so many
  size_t remaining = 0;           // requests that have not ended

  // Requests that the engine has and that have not ended.
  size_t running() const { return remaining - (requests.size() - handed_over); }

  std::vector<AnswerState> answers;
  bool head_sent = false;
  int status = 0;  // of the answer; 0: none yet
  int64_t last_write_ns = 0;
  int64_t first_token_ns = 0;
  uint64_t answer_bytes = 0;
  Usage usage;  // of all requests that have ended
  std::string error;
};

}  // namespace quern
