#include "load/server_probe.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include "base/interrupt.h"
#include "load/stream_chunk.h"

namespace quern {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr size_t kMaxReplyBytes = 16 << 20;
constexpr int kRepeats = 8;  // of a word, so that what opens a text weighs less than half a token

class ReplySink final : public HttpSink {
 public:
  explicit ReplySink(HttpConnection& connection, HttpReply* reply)
      : connection_(connection), reply_(reply) {}

  void on_sent() override {}

  void on_head(int status) override { reply_->status = status; }

  void on_body(std::string_view bytes, int64_t) override {
    reply_->body += bytes;
    if (reply_->body.size() > kMaxReplyBytes) connection_.cancel();
  }

  void on_end(HttpEnd end, const std::string& error, int64_t) override {
    end_ = end;
    error_ = error;
  }

  HttpEnd end() const { return end_; }

  const std::string& error() const { return error_; }

 private:
  HttpConnection& connection_;
  HttpReply* reply_;
  HttpEnd end_ = HttpEnd::kCancelled;
  std::string error_ = "no answer in time";
};

bool is_header_text(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

std::string remedy(const std::string& error, const ServerUrl& url) {
  if (error.find("TLS") != std::string::npos) {
    return "; is it an https server, and its certificate one that --ca-file FILE names? "
           "--insecure-tls takes any";
  }
  if (url.port == "80" || url.port == "443") {
    return "; is the port right? `quern serve` listens on 8080";
  }
  return "; is `quern serve` running there?";
}

ErrorCode code_of(int status) {
  if (status == 401) return ErrorCode::kUnauthenticated;
  if (status == 403) return ErrorCode::kForbidden;
  return ErrorCode::kConflict;
}

}  // namespace

ServerProbe::ServerProbe(ProbeOptions options, const Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

Result<std::unique_ptr<ServerProbe>> ServerProbe::open(ProbeOptions options, const Clock& clock) {
  if (!is_header_text(options.api_key)) {
    return Error{ErrorCode::kInvalidArgument, "the API key has bytes that no header may have"};
  }
  std::unique_ptr<ServerProbe> probe(new ServerProbe(std::move(options), clock));
  const ProbeOptions& own = probe->options_;
  boost::system::error_code error;
  if (own.url.scheme == UrlScheme::kHttps) {
    asio::ssl::context& tls = probe->tls_.emplace(asio::ssl::context::tls_client);
    if (own.check == TlsCheck::kVerify) {
      tls.set_verify_mode(asio::ssl::verify_peer);
      tls.set_verify_callback(asio::ssl::host_name_verification(own.url.host));
      own.ca_file.empty() ? tls.set_default_verify_paths(error)
                          : tls.load_verify_file(own.ca_file, error);
      if (error) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("--ca-file {}: {}", own.ca_file, error.message())};
      }
    }
    probe->target_.tls = &tls;
  }
  probe->target_.host = own.url.host;
  tcp::resolver resolver(probe->io_);
  const auto found = resolver.resolve(own.url.host, own.url.port, error);
  if (error) {
    throw std::runtime_error(
        fmt::format("{}: cannot find the host: {}", own.url.text(), error.message()));
  }
  for (const auto& entry : found) {
    probe->target_.endpoint = entry.endpoint();
    if (probe->ask(probe->head("GET", "/v1/models") + "\r\n") != HttpEnd::kComplete) continue;
    probe->models_ = std::move(probe->reply_);
    return probe;
  }
  throw std::runtime_error(
      fmt::format("{}: {}{}", own.url.text(), probe->error_, remedy(probe->error_, own.url)));
}

std::string ServerProbe::head(const char* method, const std::string& path) const {
  std::string text = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: quern-load\r\n",
                                 method, options_.url.prefix, path, options_.url.authority());
  if (!options_.api_key.empty()) {
    text += fmt::format("Authorization: Bearer {}\r\n", options_.api_key);
  }
  return text;
}

std::string ServerProbe::post_head(const std::string& path) const {
  return head("POST", path) + "Content-Type: application/json\r\nAccept: text/event-stream\r\n";
}

HttpEnd ServerProbe::ask(std::string request) {
  reply_ = HttpReply();
  if (!connection_) connection_ = std::make_unique<HttpConnection>(io_, target_, clock_);
  ReplySink sink(*connection_, &reply_);
  connection_->start(std::move(request), sink);
  io_.restart();
  const auto limit = std::chrono::duration<double>(options_.timeout_seconds);
  io_.run_for(std::chrono::duration_cast<std::chrono::nanoseconds>(limit));
  if (!io_.stopped()) {
    connection_->cancel();
    io_.run();
  }
  error_ = sink.end() == HttpEnd::kCancelled ? "no answer in time" : sink.error();
  return sink.end();
}

Result<std::string> ServerProbe::first_model() {
  const std::string where = options_.url.text() + "/v1/models";
  if (models_.status != 200) {
    return Error{
        code_of(models_.status),
        fmt::format("{} answers {}: {}{}", where, models_.status, error_message(models_.body),
                    models_.status == 401 ? "; give --api-key or OPENAI_API_KEY"
                                          : "; name the model with --model")};
  }
  const Json list = Json::parse(models_.body, nullptr, false);
  const bool has_list = list.is_object() && list.contains("data") && list["data"].is_array();
  if (!has_list) {
    return Error{
        ErrorCode::kConflict,
        fmt::format("{} answers no list of models; is this an OpenAI-compatible server?", where)};
  }
  if (list["data"].empty()) {
    return Error{ErrorCode::kNotFound, where + " lists no model; name one with --model"};
  }
  const Json& first = list["data"].front();
  if (!first.is_object() || !first.contains("id") || !first["id"].is_string()) {
    return Error{ErrorCode::kConflict, where + ": the first model has no \"id\""};
  }
  return first["id"].get<std::string>();
}

std::optional<int64_t> ServerProbe::count(const OrderedJson& body) {
  const std::string text = body.dump();
  if (ask(fmt::format("{}Content-Length: {}\r\n\r\n{}", post_head("/tokenize"), text.size(),
                      text)) != HttpEnd::kComplete ||
      reply_.status != 200) {
    return std::nullopt;
  }
  const Json answer = Json::parse(reply_.body, nullptr, false);
  if (!answer.is_object()) return std::nullopt;
  if (answer.contains("count") && answer["count"].is_number_integer()) {
    return answer["count"].get<int64_t>();
  }
  if (!answer.contains("tokens") || !answer["tokens"].is_array()) return std::nullopt;
  return std::ssize(answer["tokens"]);
}

std::optional<int64_t> ServerProbe::count_text(const std::string& model, const std::string& text) {
  // vLLM's question and Quern's, then llama.cpp's, which answers the first with nothing counted.
  const auto tokens = count({{"model", model}, {"prompt", text}, {"add_special_tokens", false}});
  if (tokens && *tokens > 0) return tokens;
  return count({{"content", text}});
}

// What a chat request has beside the text of its one message.
int64_t ServerProbe::count_template(const std::string& model) {
  constexpr const char* kText = "stone";
  OrderedJson messages = OrderedJson::array();
  messages.push_back({{"role", "user"}, {"content", kText}});
  const auto whole = count({{"model", model}, {"messages", messages}});
  const auto text = count_text(model, kText);
  return whole && text ? std::max<int64_t>(*whole - *text, 0) : 0;
}

std::optional<WordTokens> ServerProbe::count_words(const std::string& model,
                                                   LoadEndpoint endpoint) {
  WordTokens words{.counted = true};
  for (const std::string_view word : prompt_words()) {
    if (interrupted()) return std::nullopt;
    std::string text;
    for (int i = 0; i < kRepeats; ++i) text += fmt::format(" {}", word);
    const std::optional<int64_t> tokens = count_text(model, text);
    if (!tokens || *tokens <= 0) return std::nullopt;
    words.tokens.push_back(std::max(std::round(static_cast<double>(*tokens) / kRepeats), 1.0));
  }
  if (endpoint == LoadEndpoint::kChat) words.template_tokens = count_template(model);
  return words;
}

}  // namespace quern
