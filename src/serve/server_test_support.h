// What the tests of the server share: an engine that can be held in its step, calls in a small
// language of their own, and a client on a plain socket.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/simulated_model.h"
#include "serve/server.h"

namespace quern {

class AtomicClock final : public Clock {
 public:
  int64_t now_ns() const override { return now_ns_; }

  void advance_ms(int64_t ms) { now_ns_ += ms * 1'000'000; }

 private:
  std::atomic<int64_t> now_ns_{1'000'000'000};
};

inline SimulatedModelOptions test_model_options() {
  SimulatedModelOptions options;
  options.seed = 7;
  options.vocabulary = 64;
  options.max_context = 4096;
  options.limits = {.max_batch_tokens = 64, .max_logit_rows = 8, .kv_blocks = 1024};
  return options;
}

// What passes waits while it is held.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    inside_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_; });
    inside_ = false;
  }

  void hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }

  void release() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }

  // Returns when something has come to the gate.
  void wait_inside() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return inside_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  bool inside_ = false;
};

// A simulated model whose steps pass a gate.
class GatedModel final : public Model, public Gate {
 public:
  explicit GatedModel(SimulatedModelOptions options) : model_(std::move(options), nullptr) {}

  const ModelSpec& spec() const override { return model_.spec(); }

  const ModelLimits& limits() const override { return model_.limits(); }

  void forward(const Batch& batch, Tensor logits) override {
    pass();
    if (breaks) throw 42;  // what nobody expects: it ends the engine
    model_.forward(batch, logits);
  }

  std::atomic<bool> breaks{false};

 private:
  SimulatedModel model_;
};

// Bodies are words: "stream", "n=2", "max=5", "prompt=3", "first=9" (the first token of the
// prompt), "fat" (64 KiB for each token), "nothing" (no request), "bad", "throw", "throw_late",
// "other" (the second model), "model=3" (the one loaded as 3), "load=3", "unload=3", "drain=9"
// (ms). Anything else is text.
class TestExchange final : public Exchange {
 public:
  TestExchange(const ServedModel* model, const std::string& body) : model_(model) {
    stream_ = has(body, "stream");
    fat_ = has(body, "fat");
    throw_late_ = has(body, "throw_late");
    if (!word(body, "load=").empty()) {
      change_ = ModelLoad{.model = word(body, "load="), .id = word(body, "load=")};
      return;
    }
    if (!word(body, "unload=").empty()) {
      change_ =
          ModelUnload{.id = word(body, "unload="), .drain_ms = number(body, "drain=", 10'000)};
      return;
    }
    if (has(body, "nothing")) return;
    const int64_t count = number(body, "n=", 1);
    for (int64_t i = 0; i < count; ++i) {
      Request request;
      request.prompt.assign(static_cast<size_t>(number(body, "prompt=", 3)), 5);
      request.prompt[0] = static_cast<int32_t>(number(body, "first=", 5));
      request.max_tokens = number(body, "max=", 3);
      request.sampling.stream = static_cast<uint64_t>(i);
      requests_.push_back(std::move(request));
    }
  }

  static bool has(const std::string& body, const std::string& word) {
    return (" " + body + " ").find(" " + word + " ") != std::string::npos;
  }

  static int64_t number(const std::string& body, const std::string& key, int64_t fallback) {
    const size_t at = (" " + body).find(" " + key);
    return at == std::string::npos ? fallback : std::stoll(body.substr(at + key.size()));
  }

  // What follows the key; empty when it is not there.
  static std::string word(const std::string& body, const std::string& key) {
    const size_t at = (" " + body).find(" " + key);
    if (at == std::string::npos) return {};
    const size_t begin = at + key.size();
    return body.substr(begin, body.find(' ', begin) - begin);
  }

  const ServedModel* model() const override { return model_; }

  ModelChange take_change() override { return std::move(change_); }

  void on_loaded(const ModelSize& size) override { text_ = fmt::format("loaded {}", size.context); }

  void on_unloaded(int64_t cancelled) override { text_ = fmt::format("unloaded {}", cancelled); }

  std::vector<Request> take_requests() override { return std::move(requests_); }

  bool streams() const override { return stream_; }

  void on_event(size_t index, const Event& event, std::string& out) override {
    const auto* token = std::get_if<TokenEvent>(&event);
    if (token == nullptr) return;
    if (throw_late_) throw std::runtime_error("no more words");
    const std::string text = fmt::format("{}:{}", index, token->token);
    if (!stream_) {
      text_ += text + " ";
      return;
    }
    out += "data: " + text + (fat_ ? std::string(64 << 10, ' ') : "") + "\n\n";
  }

  void end(std::string& out) override { out += stream_ ? "data: [DONE]\n\n" : "tokens " + text_; }

  std::string error(const ApiError& error) const override {
    return "data: error " + error.message + "\n\n";
  }

  int status() const override { return 200; }

 private:
  const ServedModel* model_;
  std::vector<Request> requests_;
  ModelChange change_;
  std::string text_;
  bool stream_ = false;
  bool fat_ = false;
  bool throw_late_ = false;
};

// Loads simulated models by name: "missing", "huge" and "broken" fail, others wait while it is
// held.
class TestHost final : public ModelHost, public Gate {
 public:
  TestHost(SimulatedModelOptions options, const Clock& clock)
      : options_(std::move(options)), clock_(clock) {}

  Result<HostedModel> load(const ModelLoad& load) override {
    pass();
    if (load.model == "missing") return Error{ErrorCode::kNotFound, "no such model"};
    if (load.model == "huge") return Error{ErrorCode::kExhausted, "it needs more than there is"};
    if (load.model == "broken") throw std::runtime_error("the disk is gone");
    auto loaded = std::make_unique<Loaded>(options_, clock_);
    loaded->served.id = load.id;
    const HostedModel hosted{{&loaded->served, &loaded->engine, options_.limits.max_logit_rows},
                             {.context = options_.max_context}};
    const std::lock_guard lock(mutex_);
    models_.push_back(std::move(loaded));
    return hosted;
  }

  void unload(const ServedModel& model) override {
    const std::lock_guard lock(mutex_);
    std::erase_if(models_, [&](const auto& loaded) { return &loaded->served == &model; });
    ++unloads_;
  }

  int unloads() {
    const std::lock_guard lock(mutex_);
    return unloads_;
  }

 private:
  struct Loaded {
    Loaded(const SimulatedModelOptions& options, const Clock& clock)
        : model(options), engine(model, nullptr, {}, clock) {}

    GatedModel model;
    Engine engine;
    ServedModel served;
  };

  const SimulatedModelOptions options_;
  const Clock& clock_;
  std::mutex mutex_;
  int unloads_ = 0;
  std::vector<std::unique_ptr<Loaded>> models_;
};

// A response as a client reads it.
struct HttpAnswer {
  int status = 0;
  std::string head;
  std::string body;

  bool has(const std::string& text) const { return head.find(text) != std::string::npos; }
};

// A blocking socket; reading gives up after a while, so that a test fails rather than hangs.
class TestClient {
 public:
  explicit TestClient(uint16_t port, int receive_buffer = 0) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    const timeval patience{.tv_sec = 30, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }

  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  ~TestClient() { close(); }

  bool connected() const { return connected_; }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }

  // More bytes; false at the end of the stream or after too long.
  bool receive() {
    char buffer[16 << 10];
    const ssize_t count = recv(fd_, buffer, sizeof(buffer), 0);
    if (count > 0) buffered_.append(buffer, static_cast<size_t>(count));
    return count > 0;
  }

  // Everything up to and including `end`; what there was if it never came.
  std::string read_until(const std::string& end) {
    size_t at = 0;
    while ((at = buffered_.find(end)) == std::string::npos) {
      if (!receive()) return std::exchange(buffered_, "");
    }
    std::string out = buffered_.substr(0, at + end.size());
    buffered_.erase(0, at + end.size());
    return out;
  }

  std::string read_bytes(size_t count) {
    while (buffered_.size() < count && receive()) {
    }
    std::string out = buffered_.substr(0, count);
    buffered_.erase(0, std::min(count, buffered_.size()));
    return out;
  }

  HttpAnswer read_head() {
    HttpAnswer answer;
    answer.head = read_until("\r\n\r\n");
    if (answer.head.starts_with("HTTP/1.1 ")) answer.status = std::stoi(answer.head.substr(9));
    return answer;
  }

  HttpAnswer read_answer() {
    HttpAnswer answer = read_head();
    if (const size_t at = answer.head.find("Content-Length: "); at != std::string::npos) {
      answer.body = read_bytes(std::stoul(answer.head.substr(at + 16)));
    } else if (answer.has("chunked")) {
      while (true) {
        const std::string line = read_until("\r\n");
        if (line.empty()) break;  // the connection broke
        const size_t size = std::stoul(line, nullptr, 16);
        answer.body += read_bytes(size);
        read_until("\r\n");
        if (size == 0) break;
      }
    } else {
      while (receive()) {
      }
      answer.body = std::exchange(buffered_, "");
    }
    return answer;
  }

  // Whether the server has closed and sent nothing more.
  bool at_end() { return buffered_.empty() && !receive(); }

  HttpAnswer get(const std::string& path, const std::string& fields = "") {
    send("GET " + path + " HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n");
    return read_answer();
  }

  void send_post(const std::string& body,
                 const std::string& fields = "",
                 const std::string& path = "/v1/run") {
    send(fmt::format("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{}\r\n{}", path,
                     body.size(), fields, body));
  }

  void send_admin(const std::string& body, const std::string& fields = "") {
    send_post(body, fields, "/admin/run");
  }

  HttpAnswer admin(const std::string& body, const std::string& fields = "") {
    send_admin(body, fields);
    return read_answer();
  }

  HttpAnswer post(const std::string& body, const std::string& fields = "") {
    send_post(body, fields);
    return read_answer();
  }

 private:
  int fd_ = -1;
  bool connected_ = false;
  std::string buffered_;
};

// A server on a free port, with its network thread, on one or two simulated models.
class TestServer {
 public:
  explicit TestServer(ServerOptions options = {},
                      SimulatedModelOptions model_options = test_model_options(),
                      EngineOptions engine_options = {})
      : model(model_options),
        other_model(model_options),
        host(model_options, clock),
        engine(model, nullptr, engine_options, clock),
        other_engine(other_model, nullptr, engine_options, clock) {
    served.id = "simulated";
    other.id = "other";
    options.port = 0;
    options.tick_ms = 5;
    options.models = &host;
    const int64_t sequences = model_options.limits.max_logit_rows;
    Result<std::unique_ptr<Server>> opened = Server::open(
        options, {{&served, &engine, sequences}, {&other, &other_engine, sequences}}, api(), clock);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    server = std::move(*opened);
    thread = std::thread([this] { server->run(); });
  }

  ~TestServer() {
    model.release();
    other_model.release();
    host.release();
    server->stop();
    thread.join();
  }

  uint16_t port() const { return server->port(); }

  // A line of /metrics, from behind the labels.
  std::string metric(const std::string& name_and_labels) {
    TestClient client(port());
    const std::string page = client.get("/metrics").body;
    const size_t at = page.find("\n" + name_and_labels);
    if (at == std::string::npos) return "absent";
    const size_t end = page.find('\n', at + 1);
    const std::string line = page.substr(at + 1, end - at - 1);
    return line.substr(line.rfind(' ') + 1);
  }

  // Asks until the metric has that value.
  void wait_for_metric(const std::string& name_and_labels, const std::string& value) {
    std::string found;
    for (int i = 0; i < 20000 && found != value; ++i) found = metric(name_and_labels);
    EXPECT_EQ(found, value) << name_and_labels;
  }

  ServerApi api() {
    return {
        .open = [](const ServedModels& models, std::string_view method, std::string_view path,
                   const ApiCall& call) -> OpenedExchange {
          const std::string body(call.body);
          if (TestExchange::has(body, "throw")) throw std::runtime_error("a secret place");
          if (path != "/v1/run" && path != "/admin/run") {
            return ApiError{.status = 404, .message = "no such path"};
          }
          if (method != "POST") return ApiError{.status = 405, .message = "not that method"};
          if (TestExchange::has(body, "bad")) return ApiError{.message = "a bad body"};
          std::string id = TestExchange::word(body, "model=");
          if (id.empty()) id = TestExchange::has(body, "other") ? "other" : "simulated";
          const bool change = path == "/admin/run";
          const ServedModel* found = change ? nullptr : models.find(id);
          if (found == nullptr && !change) {
            return ApiError{.status = 404, .message = "no such model"};
          }
          return std::make_unique<TestExchange>(found, body);
        },
        .error_body =
            [](std::string_view, const ApiError& error, std::string_view id) {
              return fmt::format("error {} {} {}", error.code, error.message, id);
            },
        .allowed_methods = [](std::string_view path) { return path == "/v1/run" ? "POST" : ""; }};
  }

  AtomicClock clock;
  GatedModel model, other_model;
  TestHost host;
  Engine engine, other_engine;
  ServedModel served, other;
  std::unique_ptr<Server> server;
  std::thread thread;
};

}  // namespace quern
