// What is asked of a server before a run: whether it is there, its model, and how many tokens it
// makes of words.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "load/http_connection.h"
#include "load/url.h"
#include "load/words.h"
#include "load/workload.h"

namespace quern {

enum class TlsCheck : uint8_t { kVerify, kAcceptAny };

struct ProbeOptions {
  ServerUrl url{};
  std::string api_key{};  // empty: none is sent
  std::string ca_file{};  // empty: the system's certificates
  TlsCheck check = TlsCheck::kVerify;
  double timeout_seconds = 30;  // of each question
};

struct HttpReply {
  int status = 0;
  std::string body{};
};

// A server that has answered, and how to talk with it. One thread.
class ServerProbe {
 public:
  // Finds the address that answers. Errors: kInvalidArgument for a key or a file of certificates
  // that cannot be used. Throws std::runtime_error naming the address and what to do when nothing
  // answers there.
  static Result<std::unique_ptr<ServerProbe>> open(ProbeOptions options, const Clock& clock);

  const HttpTarget& target() const { return target_; }

  // The head of a POST to `path`, but for its length.
  std::string post_head(const std::string& path) const;

  // The first model of /v1/models. Errors: kUnauthenticated or kForbidden without a key that is
  // right, kNotFound where the list is empty, kConflict for any other answer.
  Result<std::string> first_model();

  // The tokens of the prompt words by the server's /tokenize, counted as vLLM's, Quern's or
  // llama.cpp's answers; nothing where it has none, and after Ctrl-C.
  std::optional<WordTokens> count_words(const std::string& model, LoadEndpoint endpoint);

 private:
  ServerProbe(ProbeOptions options, const Clock& clock);

  std::string head(const char* method, const std::string& path) const;
  HttpEnd ask(std::string request);
  std::optional<int64_t> count(const nlohmann::ordered_json& body);
  std::optional<int64_t> count_text(const std::string& model, const std::string& text);
  int64_t count_template(const std::string& model);

  ProbeOptions options_;
  const Clock& clock_;
  std::optional<boost::asio::ssl::context> tls_;
  HttpTarget target_;
  boost::asio::io_context io_;
  std::unique_ptr<HttpConnection> connection_;
  HttpReply reply_;    // of the last question
  std::string error_;  // of the last question
  HttpReply models_;   // of /v1/models
};

}  // namespace quern
