#include "load/runner.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "load/scripted_server.h"
#include "load/server_probe.h"

namespace quern {
namespace {

using testing::HasSubstr;
using Then = ScriptedAnswer::Then;

std::string answer(int status, const std::string& body) {
  return fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n\r\n{}", status, body.size(), body);
}

std::string event(const std::string& data) {
  const std::string text = "data: " + data + "\n\n";
  return fmt::format("{:x}\r\n{}\r\n", text.size(), text);
}

std::string token_event() { return event(R"({"choices":[{"delta":{"content":"a"}}]})"); }

const std::string kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string stream(int tokens) {
  std::string text = kStreamHead + event(R"({"choices":[{"delta":{"role":"assistant"}}]})");
  for (int i = 0; i < tokens; ++i) text += token_event();
  text += event(R"({"choices":[{"delta":{},"finish_reason":"length"}]})");
  text += event(fmt::format(
      R"({{"choices":[],"usage":{{"prompt_tokens":5,"completion_tokens":{},"total_tokens":{}}}}})",
      tokens, tokens + 5));
  return text + event("[DONE]") + "0\r\n\r\n";
}

WorkloadOptions small_workload() {
  WorkloadOptions options;
  options.model = "m";
  options.input_tokens = LengthDistribution::fixed(4);
  options.output_tokens = LengthDistribution::fixed(3);
  return options;
}

LoadRunOptions closed_loop(size_t requests, int64_t concurrency) {
  return {.due_seconds = std::vector<double>(requests, 0.0),
          .concurrency = concurrency,
          .timeout_seconds = 60,
          .head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"};
}

RunResult run(
    uint16_t port,
    const LoadRunOptions& options,
    WorkloadOptions workload_options,
    const std::function<bool()>& interrupted = [] { return false; }) {
  const Workload workload = *Workload::make(std::move(workload_options), WordTokens::estimate(1));
  const HttpTarget target{.endpoint = {boost::asio::ip::address_v4::loopback(), port},
                          .host = "127.0.0.1"};
  const SteadyClock clock;
  return run_load(workload, target, options, clock, {.interrupted = interrupted});
}

LoadRecord run_one(const ScriptedServer::Script& script,
                   WorkloadOptions workload = small_workload(),
                   double timeout_seconds = 60) {
  const ScriptedServer server(script);
  LoadRunOptions options = closed_loop(1, 1);
  options.timeout_seconds = timeout_seconds;
  const RunResult result = run(server.port(), options, std::move(workload));
  EXPECT_EQ(result.records.size(), 1u);
  return result.records.at(0);
}

ScriptedServer::Script always(std::string bytes, Then then = Then::kKeepOpen) {
  return [bytes, then](const std::string&, const std::string&) {
    return ScriptedAnswer{bytes, then};
  };
}

TEST(Runner, ReadsAStreamToItsEnd) {
  const LoadRecord record = run_one(always(stream(3)));
  EXPECT_EQ(record.outcome, Outcome::kOk) << record.error;
  EXPECT_EQ(record.status, 200);
  EXPECT_EQ(record.chunks, 3);
  EXPECT_EQ(record.gaps_ms.size(), 2u);
  EXPECT_EQ(record.output_tokens(), 3);
  EXPECT_EQ(record.finish_reason, "length");
  EXPECT_LE(record.sent_ns, record.first_ns);
  EXPECT_LE(record.first_ns, record.last_ns);
  EXPECT_LE(record.last_ns, record.end_ns);
}

TEST(Runner, SendsTheBodiesOfTheWorkload) {
  std::mutex mutex;
  std::vector<std::string> bodies;
  const ScriptedServer server([&](const std::string& head, const std::string& body) {
    const std::lock_guard lock(mutex);
    EXPECT_THAT(head, HasSubstr("POST /v1/chat/completions HTTP/1.1"));
    bodies.push_back(body);
    return ScriptedAnswer{stream(1)};
  });
  run(server.port(), closed_loop(3, 1), small_workload());
  const Workload workload = *Workload::make(small_workload(), WordTokens::estimate(1));
  ASSERT_EQ(bodies.size(), 3u);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(bodies[i], workload.request(i).body);
}

TEST(Runner, KeepsConnectionsOpenAndSendsNoMoreAtOnceThanAllowed) {
  const ScriptedServer server(always(stream(2)));
  const RunResult result = run(server.port(), closed_loop(200, 4), small_workload());
  EXPECT_EQ(result.records.size(), 200u);
  EXPECT_EQ(result.concurrency_max, 4);
  EXPECT_EQ(result.connections, 4);
  EXPECT_EQ(server.connections(), 4);
  for (const LoadRecord& record : result.records) EXPECT_EQ(record.outcome, Outcome::kOk);
}

TEST(Runner, OpensAsManyConnectionsAsAnOpenLoopNeeds) {
  const ScriptedServer server(always(stream(1)));
  const RunResult result = run(server.port(), closed_loop(50, 0), small_workload());
  EXPECT_EQ(result.concurrency_max, 50);
  EXPECT_EQ(server.connections(), 50);
}

TEST(Runner, ConnectsAgainWhenAKeptConnectionWasClosed) {
  const ScriptedServer server(always(stream(1), Then::kClose));
  const RunResult result = run(server.port(), closed_loop(20, 1), small_workload());
  EXPECT_EQ(result.connections, 20);
  for (const LoadRecord& record : result.records) {
    EXPECT_EQ(record.outcome, Outcome::kOk) << record.error;
  }
}

TEST(Runner, SendsRequestsWhenTheyAreDue) {
  const ScriptedServer server(always(stream(1)));
  LoadRunOptions options = closed_loop(0, 0);
  options.due_seconds = {0.0, 0.02, 0.04};
  const RunResult result = run(server.port(), options, small_workload());
  ASSERT_EQ(result.records.size(), 3u);
  for (const LoadRecord& record : result.records) EXPECT_GE(record.sent_ns, record.due_ns);
}

TEST(Runner, BeginsNothingWhenTheTimeIsOver) {
  const ScriptedServer server(always(stream(1)));
  LoadRunOptions options = closed_loop(0, 2);
  options.endless = true;
  options.duration_seconds = 0.1;
  const RunResult result = run(server.port(), options, small_workload());
  EXPECT_GT(result.records.size(), 0u);
  for (const LoadRecord& record : result.records) EXPECT_LE(record.sent_ns, 110'000'000);
}

TEST(Runner, CountsRefusalsApart) {
  for (const int status : {429, 503, 529}) {
    const LoadRecord record = run_one(always(answer(status, R"({"error":{"message":"full"}})")));
    EXPECT_EQ(record.outcome, Outcome::kRefused);
    EXPECT_EQ(record.status, status);
    EXPECT_EQ(record.error, "full");
  }
}

TEST(Runner, SaysWhyARequestFailed) {
  const auto error_of = [](const std::string& bytes, Then then = Then::kKeepOpen) {
    const LoadRecord record = run_one(always(bytes, then));
    EXPECT_EQ(record.outcome, Outcome::kFailed);
    return record.error;
  };
  EXPECT_EQ(error_of(answer(500, R"({"error":{"message":"broken"}})")), "500: broken");
  EXPECT_THAT(error_of(kStreamHead + token_event(), Then::kClose), HasSubstr("in mid-answer"));
  EXPECT_THAT(error_of("", Then::kClose), HasSubstr("without an answer"));
  EXPECT_THAT(error_of("SSH-2.0-x\r\n\r\n"), HasSubstr("not HTTP/1.1"));
  EXPECT_THAT(error_of(kStreamHead + event("{") + "0\r\n\r\n"), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of(kStreamHead + event(R"({"error":"gone"})") + "0\r\n\r\n"),
              HasSubstr("in the stream: gone"));
  EXPECT_THAT(error_of(kStreamHead + token_event() + "0\r\n\r\n"), HasSubstr("finish_reason"));
  EXPECT_THAT(error_of(answer(200, "{}")), HasSubstr("no event"));
}

TEST(Runner, SkipsInterimAnswers) {
  EXPECT_EQ(run_one(always("HTTP/1.1 100 Continue\r\n\r\n" + stream(1))).outcome, Outcome::kOk);
}

TEST(Runner, ReadsAStreamThatTheEndOfTheConnectionEnds) {
  const std::string text =
      "HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n";
  EXPECT_EQ(run_one(always(text, Then::kClose)).outcome, Outcome::kOk);
}

TEST(Runner, GivesUpOnAServerThatHangs) {
  const LoadRecord record =
      run_one(always(kStreamHead + token_event(), Then::kHang), small_workload(), 0.1);
  EXPECT_EQ(record.outcome, Outcome::kFailed);
  EXPECT_THAT(record.error, HasSubstr("within 0.1 s"));
}

TEST(Runner, ClosesInMidAnswerWhereAsked) {
  WorkloadOptions workload = small_workload();
  workload.disconnect_fraction = 1;
  const ScriptedServer server(always(kStreamHead + token_event() + token_event(), Then::kHang));
  const RunResult result = run(server.port(), closed_loop(20, 2), workload);
  for (const LoadRecord& record : result.records) {
    EXPECT_EQ(record.outcome, Outcome::kDisconnected);
    EXPECT_LE(record.chunks, 2);
  }
}

TEST(Runner, WantsHostileBodiesRefused) {
  WorkloadOptions workload = small_workload();
  workload.hostile_fraction = 1;
  EXPECT_EQ(run_one(always(answer(400, "{}")), workload).outcome, Outcome::kRebuffed);
  EXPECT_EQ(run_one(always(answer(413, "{}")), workload).outcome, Outcome::kRebuffed);
  EXPECT_EQ(run_one(always(answer(503, "{}")), workload).outcome, Outcome::kRefused);
  for (const std::string& wrong : {answer(500, "{}"), stream(1)}) {
    const LoadRecord record = run_one(always(wrong), workload);
    EXPECT_EQ(record.outcome, Outcome::kFailed);
    EXPECT_THAT(record.error, HasSubstr("not 4xx"));
  }
  EXPECT_EQ(run_one(always("", Then::kClose), workload).outcome, Outcome::kFailed);
}

TEST(Runner, StopsWhenInterruptedAndKeepsWhatIsDone) {
  std::atomic<int> answered{0};
  const ScriptedServer server([&](const std::string&, const std::string&) {
    if (answered.fetch_add(1) < 5) return ScriptedAnswer{stream(1)};
    return ScriptedAnswer{kStreamHead + token_event(), Then::kHang};
  });
  const RunResult result =
      run(server.port(), closed_loop(100, 2), small_workload(), [&] { return answered >= 7; });
  EXPECT_EQ(result.end, RunEnd::kInterrupted);
  ASSERT_EQ(result.records.size(), 7u);
  EXPECT_EQ(std::count_if(result.records.begin(), result.records.end(),
                          [](const LoadRecord& r) { return r.outcome == Outcome::kOk; }),
            5);
  EXPECT_EQ(result.records.back().outcome, Outcome::kInterrupted);
}

TEST(Runner, EndsWhenNobodyListens) {
  uint16_t port = 0;
  { port = ScriptedServer(always("")).port(); }
  const RunResult result = run(port, closed_loop(5000, 4), small_workload());
  EXPECT_EQ(result.end, RunEnd::kUnreachable);
  EXPECT_LT(result.records.size(), 2u * kMaxUnreachable);
  EXPECT_THAT(result.records.front().error, HasSubstr("cannot connect"));
}

class Probe : public testing::Test {
 protected:
  static std::unique_ptr<ServerProbe> open(uint16_t port, std::string key = "") {
    static const SteadyClock clock;  // outlives every probe
    const ProbeOptions options{.url = {.host = "127.0.0.1", .port = std::to_string(port)},
                               .api_key = std::move(key)};
    Result<std::unique_ptr<ServerProbe>> probe = ServerProbe::open(options, clock);
    if (!probe) throw std::invalid_argument(probe.error().message);
    return *std::move(probe);
  }

  static Result<std::string> model_of(const std::string& bytes) {
    const ScriptedServer server(always(bytes));
    return open(server.port())->first_model();
  }
};

TEST_F(Probe, TakesTheFirstModel) {
  const auto model = model_of(answer(200, R"({"data":[{"id":"a"},{"id":"b"}]})"));
  ASSERT_TRUE(model);
  EXPECT_EQ(*model, "a");
}

TEST_F(Probe, SaysWhatIsWrongWithTheListOfModels) {
  const auto code_of = [](const std::string& bytes) { return model_of(bytes).error().code; };
  EXPECT_EQ(code_of(answer(401, "{}")), ErrorCode::kUnauthenticated);
  EXPECT_EQ(code_of(answer(403, "{}")), ErrorCode::kForbidden);
  EXPECT_EQ(code_of(answer(404, "{}")), ErrorCode::kConflict);
  EXPECT_EQ(code_of(answer(200, "hello")), ErrorCode::kConflict);
  EXPECT_EQ(code_of(answer(200, R"({"data":[]})")), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(answer(200, R"({"data":[{}]})")), ErrorCode::kConflict);
  EXPECT_THAT(model_of(answer(401, "{}")).error().message, HasSubstr("--api-key"));
}

TEST_F(Probe, SaysThatNobodyListens) {
  uint16_t port = 0;
  { port = ScriptedServer(always("")).port(); }
  try {
    open(port);
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("http://127.0.0.1:" + std::to_string(port)));
    EXPECT_THAT(error.what(), HasSubstr("is `quern serve` running there?"));
  }
}

TEST_F(Probe, SendsTheKeyAndRefusesOneThatNoHeaderMayHold) {
  std::string head;
  const ScriptedServer server([&](const std::string& got, const std::string&) {
    head = got;
    return ScriptedAnswer{answer(200, "{}")};
  });
  const auto probe = open(server.port(), "secret");
  EXPECT_THAT(head, HasSubstr("Authorization: Bearer secret\r\n"));
  EXPECT_THAT(probe->post_head("/x"), HasSubstr("POST /x HTTP/1.1\r\n"));
  EXPECT_THROW(open(server.port(), "a\r\nb"), std::invalid_argument);
}

// Tokenizers that give a token for each byte of the text, asked as each kind of server wants.
ScriptedServer::Script tokenizer(const char* key, bool conversations) {
  return [key, conversations](const std::string& head, const std::string& body) {
    if (head.starts_with("GET")) return ScriptedAnswer{answer(200, "{}")};
    const auto json = nlohmann::json::parse(body);
    if (json.contains("messages") && conversations) {
      const std::string text = json["messages"][0]["content"];
      return ScriptedAnswer{answer(200, fmt::format("{{\"count\":{}}}", text.size() + 17))};
    }
    if (!json.contains(key)) return ScriptedAnswer{answer(400, "{}")};
    const std::string text = json[key];
    return ScriptedAnswer{
        answer(200, nlohmann::json{{"tokens", std::vector<int>(text.size(), 7)}}.dump())};
  };
}

TEST_F(Probe, CountsTheTokensOfWordsAndOfTheTemplate) {
  const ScriptedServer server(tokenizer("prompt", true));
  const auto words = open(server.port())->count_words("m", LoadEndpoint::kChat);
  ASSERT_TRUE(words);
  EXPECT_TRUE(words->counted);
  EXPECT_EQ(words->template_tokens, 17);
  ASSERT_EQ(words->tokens.size(), prompt_words().size());
  EXPECT_EQ(words->tokens[1], static_cast<double>(prompt_words()[1].size() + 1));
}

TEST_F(Probe, CountsAsLlamaServerDoes) {
  const ScriptedServer server(tokenizer("content", false));
  const auto words = open(server.port())->count_words("m", LoadEndpoint::kChat);
  ASSERT_TRUE(words);
  EXPECT_EQ(words->template_tokens, 0);
}

TEST_F(Probe, CountsNothingWithoutATokenizer) {
  const ScriptedServer server(always(answer(404, "{}")));
  EXPECT_FALSE(open(server.port())->count_words("m", LoadEndpoint::kChat));
}

}  // namespace
}  // namespace quern
