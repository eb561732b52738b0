#include "serve/server.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/server_test_support.h"

namespace quern {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kRunning = "vllm:num_requests_running{model_name=\"simulated\",engine=\"0\"}";
constexpr const char* kWaiting = "vllm:num_requests_waiting{model_name=\"simulated\",engine=\"0\"}";
constexpr const char* kUsage = "vllm:kv_cache_usage_perc{model_name=\"simulated\",engine=\"0\"}";

std::string ended(const std::string& reason) {
  return "vllm:request_success_total{model_name=\"simulated\",engine=\"0\",finished_reason=\"" +
         reason + "\"}";
}

TEST(Server, AnswersRequestAfterRequestOnOneConnection) {
  TestServer server;
  TestClient client(server.port());
  for (int i = 0; i < 3; ++i) {
    const HttpAnswer answer = client.get("/live");
    EXPECT_EQ(answer.status, 200);
    EXPECT_TRUE(answer.has("Connection: keep-alive"));
    EXPECT_EQ(client.post("max=4").status, 200);
  }
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  TestClient client(server.port());
  client.send_post("max=2");
  client.send_post("stream max=3");
  client.send("GET /live HTTP/1.1\r\nHost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_answer().body, StartsWith("tokens 0:"));
  EXPECT_THAT(client.read_answer().body, HasSubstr("[DONE]"));
  EXPECT_THAT(client.read_answer().body, HasSubstr("live"));
  EXPECT_EQ(client.read_answer().status, 404);
}

TEST(Server, AnswersARequestThatComesByteByByte) {
  TestServer server;
  TestClient client(server.port());
  const std::string request =
      "POST /v1/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      "4\r\nmax=\r\n1\r\n2\r\n0\r\n\r\n";
  for (const char c : request) client.send({&c, 1});
  EXPECT_EQ(client.read_answer().status, 200);
}

TEST(Server, RefusesWhatItCannotReadAndCloses) {
  struct Case {
    std::string bytes;
    int status;
  };
  const std::vector<Case> cases = {
      {"NONSENSE\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"POST /v1/run HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: "
       "chunked\r\n\r\n",
       400},
      {"POST /v1/run HTTP/1.1\r\nHost: a\r\n\r\n", 411},
      {"POST /v1/run HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413},
      {"GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n", 414},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(33000, 'a') + "\r\n\r\n", 431},
      {"POST /v1/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
      {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
  };
  TestServer server;
  for (const Case& c : cases) {
    TestClient client(server.port());
    client.send(c.bytes + "GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
    const HttpAnswer answer = client.read_answer();
    EXPECT_EQ(answer.status, c.status) << c.bytes.substr(0, 60);
    EXPECT_TRUE(answer.has("Connection: close"));
    EXPECT_TRUE(answer.has("x-request-id: req-"));
    EXPECT_TRUE(client.at_end()) << "it answered what came behind";
  }
}

TEST(Server, StreamsTheTokensThatAWholeAnswerHas) {
  TestServer server;
  TestClient client(server.port());
  const std::string whole = client.post("max=5 n=2").body;
  const HttpAnswer stream = client.post("stream max=5");
  EXPECT_TRUE(stream.has("Content-Type: text/event-stream"));
  EXPECT_TRUE(stream.has("Transfer-Encoding: chunked"));
  std::string tokens = "tokens ";
  for (size_t at = 0; (at = stream.body.find("data: 0:", at)) != std::string::npos; ++at) {
    tokens += stream.body.substr(at + 6, stream.body.find('\n', at) - at - 6) + " ";
  }
  EXPECT_EQ(tokens, client.post("max=5").body);
  EXPECT_THAT(whole, HasSubstr("1:"));
  EXPECT_THAT(stream.body, testing::EndsWith("data: [DONE]\n\n"));
}

TEST(Server, StreamsToTheEndOfTheConnectionForHttp10) {
  TestServer server;
  TestClient client(server.port());
  client.send("POST /v1/run HTTP/1.0\r\nContent-Length: 12\r\n\r\nstream max=2");
  const HttpAnswer answer = client.read_answer();
  EXPECT_FALSE(answer.has("chunked"));
  EXPECT_TRUE(answer.has("Connection: close"));
  EXPECT_THAT(answer.body, testing::EndsWith("data: [DONE]\n\n"));
}

TEST(Server, SendsNoBodyToHead) {
  TestServer server;
  TestClient client(server.port());
  client.send("HEAD /live HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(client.read_head().has("Content-Length: "));
  EXPECT_EQ(client.get("/live").status, 200);
}

TEST(Server, AsksForTheBodyOfAClientThatWaits) {
  TestServer server;
  TestClient client(server.port());
  client.send(
      "POST /v1/run HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("max=2");
  EXPECT_EQ(client.read_answer().status, 200);
}

TEST(Server, AnswersCallsThatNeedNoEngine) {
  TestServer server;
  server.model.hold();
  TestClient client(server.port());
  EXPECT_EQ(client.post("nothing").body, "tokens ");
}

TEST(Server, NamesErrorsAndHidesExceptions) {
  TestServer server;
  TestClient client(server.port());
  EXPECT_EQ(client.post("bad").status, 400);
  const HttpAnswer thrown = client.post("throw");
  EXPECT_EQ(thrown.status, 500);
  EXPECT_THAT(thrown.body, Not(HasSubstr("secret")));
  const HttpAnswer late = client.post("throw_late");
  EXPECT_EQ(late.status, 500);
  EXPECT_THAT(late.body, Not(HasSubstr("words")));
  EXPECT_EQ(client.get("/nowhere").status, 404);
  const HttpAnswer method = client.get("/v1/run");
  EXPECT_EQ(method.status, 405);
  EXPECT_TRUE(method.has("Allow: POST"));
  client.send("DELETE /live HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(client.read_answer().has("Allow: GET, HEAD"));
}

TEST(Server, RefusesWhatTheEngineRefuses) {
  TestServer server;
  TestClient client(server.port());
  const HttpAnswer answer = client.post("max=100000");
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, HasSubstr("max_tokens"));
  EXPECT_EQ(client.post("n=2 max=100000").status, 400);
  EXPECT_EQ(client.post("max=2").status, 200);
}

TEST(Server, AnswersAFailingModelWithAnErrorOfThatCallAlone) {
  SimulatedModelOptions options = test_model_options();
  options.throw_token = 9;
  TestServer server({}, options);
  TestClient client(server.port());
  EXPECT_EQ(client.post("first=9").status, 500);
  EXPECT_EQ(client.post("stream first=9").status, 500);
  EXPECT_EQ(client.post("max=2").status, 200);
}

TEST(Server, CancelsWithinAStepWhenTheClientGoes) {
  for (const char* body : {"max=2000", "stream max=2000", "n=3 max=2000", "prompt=1000 max=9"}) {
    TestServer server;
    server.model.hold();
    TestClient client(server.port());
    client.send_post(body);
    server.model.wait_inside();
    client.close();
    // The network thread sees the end of the connection before it answers this one.
    TestClient(server.port()).get("/live");
    server.model.release();
    server.wait_for_metric(kRunning, "0");
    server.wait_for_metric(kUsage, "0");
    EXPECT_NE(server.metric(ended("abort")), "0") << body;
    EXPECT_EQ(server.metric(ended("length")), "0") << body;
  }
}

TEST(Server, FreesWhatDisconnectsLeaveInTheQueue) {
  TestServer server;
  server.model.hold();
  for (int i = 0; i < 20; ++i) TestClient(server.port()).send_post("stream max=50");
  server.model.release();
  server.wait_for_metric(kRunning, "0");
  server.wait_for_metric(kWaiting, "0");
  server.wait_for_metric(kUsage, "0");
  TestClient client(server.port());
  EXPECT_EQ(client.post("max=2").status, 200);
}

TEST(Server, AnswersMetricsAndHealthWhileTheEngineIsBusy) {
  TestServer server;
  server.model.hold();
  TestClient client(server.port());
  client.send_post("max=2");
  server.model.wait_inside();
  TestClient waiting(server.port());
  waiting.send_post("max=2");
  server.wait_for_metric(kWaiting, "1");
  EXPECT_EQ(TestClient(server.port()).get("/ready").status, 200);
}

TEST(Server, ReportsAnEngineThatHangsUntilItGoesOn) {
  TestServer server;
  server.model.hold();
  TestClient caller(server.port());
  caller.send_post("max=2");
  server.model.wait_inside();
  server.clock.advance_ms(120'001);
  TestClient client(server.port());
  EXPECT_EQ(client.get("/health").status, 503);
  EXPECT_EQ(client.get("/ready").status, 503);
  EXPECT_EQ(client.get("/live").status, 200);
  server.model.release();
  server.wait_for_metric(kRunning, "0");
  EXPECT_EQ(TestClient(server.port()).get("/health").status, 200);
}

TEST(Server, ReportsAnEngineThatBroke) {
  TestServer server;
  server.model.breaks = true;
  TestClient client(server.port());
  EXPECT_EQ(client.post("max=2").status, 500);
  EXPECT_EQ(client.post("max=2").status, 500);
  EXPECT_EQ(client.get("/health").status, 503);
  EXPECT_EQ(client.post("other max=2").status, 200);
}

TEST(Server, IsHealthyHoweverLongItIsIdle) {
  TestServer server;
  server.clock.advance_ms(10'000'000);
  EXPECT_EQ(TestClient(server.port()).get("/health").status, 200);
}

TEST(Server, RefusesWhatDoesNotFitTheQueueWithoutTheEngine) {
  TestServer server({.max_queued = 2});
  server.model.hold();
  std::vector<std::unique_ptr<TestClient>> clients;
  clients.push_back(std::make_unique<TestClient>(server.port()));
  clients.back()->send_post("max=2");
  server.model.wait_inside();
  for (int i = 1; i <= 2; ++i) {
    clients.push_back(std::make_unique<TestClient>(server.port()));
    clients.back()->send_post("max=2");
    server.wait_for_metric(kWaiting, std::to_string(i));
  }
  TestClient refused(server.port());
  for (const char* body : {"max=2", "stream max=2", "n=5"}) {
    const HttpAnswer answer = refused.post(body);
    EXPECT_EQ(answer.status, 503);
    EXPECT_TRUE(answer.has("Retry-After: "));
    EXPECT_TRUE(answer.has("Connection: keep-alive"));
  }
  server.model.release();
  for (const auto& client : clients) EXPECT_EQ(client->read_answer().status, 200);
}

TEST(Server, AnswersACallOfMoreRequestsThanTheQueueTakes) {
  ServerOptions options;
  TestServer roomy(options);
  const std::string all = TestClient(roomy.port()).post("n=9 max=1 nothing_else").body;
  options.max_queued = 2;
  TestServer server(options);
  TestClient client(server.port());
  const HttpAnswer answer = client.post("n=9 max=1 nothing_else");
  EXPECT_EQ(answer.status, 200);
  const auto words = [](const std::string& text) {
    std::set<std::string> found;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find(' ', at), text.size());
      found.insert(text.substr(at, end - at));
      at = end + 1;
    }
    return found;
  };
  EXPECT_EQ(words(answer.body), words(all));
  EXPECT_EQ(words(answer.body).size(), 10u);  // and "tokens"
}

TEST(Server, StartsNoMoreOfACallWhoseClientIsGone) {
  ServerOptions options;
  options.max_queued = 2;
  TestServer server(options);
  server.model.hold();
  TestClient client(server.port());
  client.send_post("n=50 max=1000");
  server.model.wait_inside();
  client.close();
  server.wait_for_metric("quern:http_abandoned_total", "1");
  server.model.release();
  server.wait_for_metric("quern:http_calls", "0");
  EXPECT_EQ(server.metric(ended("abort")), "2");
  EXPECT_EQ(server.metric(kRunning), "0");
}

TEST(Server, RefusesRequestsThatWaitedTooLong) {
  SimulatedModelOptions options = test_model_options();
  options.limits.max_logit_rows = 1;
  // A comment would begin the stream.
  TestServer server({.deadlines = {.ping_ms = 1'000'000}}, options, {.max_sequences = 1});
  server.model.hold();
  TestClient running(server.port());
  running.send_post("max=20");
  server.model.wait_inside();
  TestClient waiting(server.port());
  waiting.send_post("stream max=2");
  server.wait_for_metric(kWaiting, "1");
  server.clock.advance_ms(60'001);
  server.model.release();
  const HttpAnswer expired = waiting.read_answer();
  EXPECT_EQ(expired.status, 503);
  EXPECT_TRUE(expired.has("Retry-After: "));
  EXPECT_EQ(running.read_answer().status, 200);
}

TEST(Server, CutsRequestsThatDoNotArrive) {
  TestServer server;
  TestClient head(server.port());
  head.send("GET /live HTTP/1.1\r\nHo");
  TestClient body(server.port());
  body.send("POST /v1/run HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nma");
  TestClient idle(server.port());
  idle.get("/live");
  server.wait_for_metric("quern:http_connections", "4");
  server.clock.advance_ms(10'001);
  EXPECT_EQ(head.read_answer().status, 408);
  EXPECT_TRUE(head.at_end());
  server.clock.advance_ms(20'001);
  EXPECT_EQ(body.read_answer().status, 408);
  server.clock.advance_ms(30'001);
  EXPECT_TRUE(idle.at_end());
}

TEST(Server, CancelsStreamsThatAreNotRead) {
  TestServer server({.max_output_bytes = 256 << 10, .send_buffer_bytes = 16 << 10});
  TestClient client(server.port(), 16 << 10);
  client.send_post("stream fat max=500");
  server.wait_for_metric("quern:http_abandoned_total", "1");
  server.wait_for_metric(kUsage, "0");
}

TEST(Server, CutsClientsThatStopReadingAnAnswer) {
  TestServer server({.max_output_bytes = 64 << 20, .send_buffer_bytes = 16 << 10});
  TestClient client(server.port(), 16 << 10);
  client.send_post("stream fat max=50");
  server.wait_for_metric(ended("length"), "1");
  server.clock.advance_ms(30'001);
  server.wait_for_metric("quern:http_connections", "1");
}

TEST(Server, KeepsSilentStreamsOpenWithComments) {
  TestServer server;
  server.model.hold();
  TestClient client(server.port());
  client.send_post("stream max=2");
  server.model.wait_inside();
  server.clock.advance_ms(15'001);
  EXPECT_EQ(client.read_head().status, 200);
  EXPECT_THAT(client.read_until("\n\n"), HasSubstr(": still here"));
  server.model.release();
  EXPECT_THAT(client.read_until("0\r\n\r\n"), HasSubstr("[DONE]"));
}

TEST(Server, FinishesCallsBeforeItDrains) {
  TestServer server;
  server.model.hold();
  TestClient idle(server.port());
  idle.get("/live");
  TestClient probe(server.port());
  probe.send("GET /rea");  // being read
  TestClient client(server.port());
  client.send_post("stream max=4");
  server.model.wait_inside();
  server.wait_for_metric("quern:http_connections", "4");
  server.server->drain();
  EXPECT_TRUE(idle.at_end());
  probe.send("dy HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(probe.read_answer().status, 503);
  EXPECT_FALSE(TestClient(server.port()).connected());
  server.model.release();
  const HttpAnswer answer = client.read_answer();
  EXPECT_THAT(answer.body, testing::EndsWith("[DONE]\n\n"));
  EXPECT_TRUE(client.at_end());
  client.close();
  probe.close();
  server.thread.join();  // run() has returned
  server.thread = std::thread([] {});
}

TEST(Server, EndsCallsWithAnErrorWhenDrainingTakesTooLong) {
  TestServer server;
  server.model.hold();
  TestClient stream(server.port());
  stream.send_post("stream max=4");
  server.model.wait_inside();
  TestClient whole(server.port());
  whole.send_post("max=4");
  server.wait_for_metric(kWaiting, "1");
  server.clock.advance_ms(15'001);
  stream.read_until(": still here");  // the stream has begun
  TestClient idle(server.port());
  idle.get("/live");
  server.server->drain();
  EXPECT_TRUE(idle.at_end());  // draining has begun
  server.clock.advance_ms(30'001);
  EXPECT_THAT(stream.read_until("0\r\n\r\n"), HasSubstr("shutting down"));
  EXPECT_EQ(whole.read_answer().status, 503);
}

TEST(Server, LetsNobodyCallWithoutAKey) {
  const ApiKeys keys = *ApiKeys::parse("alice secret-of-alice-1\nsecret-of-bob-123\n", "keys");
  TestServer server({.keys = &keys});
  TestClient client(server.port());
  const HttpAnswer refused = client.post("max=2");
  EXPECT_EQ(refused.status, 401);
  EXPECT_TRUE(refused.has("WWW-Authenticate: Bearer"));
  EXPECT_EQ(client.post("max=2", "Authorization: Bearer wrong\r\n").status, 401);
  EXPECT_EQ(client.get("/metrics").status, 401);
  EXPECT_EQ(client.get("/nowhere").status, 401);
  EXPECT_EQ(client.get("/live").status, 200);
  EXPECT_EQ(client.get("/").status, 200);
  EXPECT_EQ(client.post("max=2", "Authorization: Bearer secret-of-alice-1\r\n").status, 200);
  EXPECT_EQ(client.post("max=2", "x-api-key: secret-of-bob-123\r\n").status, 200);
  EXPECT_EQ(client
                .post("max=2",
                      "Authorization: Bearer secret-of-alice-1\r\n"
                      "Authorization: Bearer secret-of-alice-1\r\n")
                .status,
            401);
}

TEST(Server, ShowsMetricsWithoutAKeyWhenTold) {
  const ApiKeys keys = *ApiKeys::parse("secret-of-bob-123", "keys");
  TestServer server({.keys = &keys, .metrics = MetricsAccess::kPublic});
  TestClient client(server.port());
  EXPECT_EQ(client.get("/metrics").status, 200);
}

TEST(Server, EchoesValidRequestIdsAndMakesOthers) {
  TestServer server;
  TestClient client(server.port());
  EXPECT_TRUE(
      client.get("/live", "X-Request-Id: abc-1.2_3\r\n").has("x-request-id: abc-1.2_3\r\n"));
  const HttpAnswer made = client.get("/live", "X-Request-Id: a b\r\n");
  EXPECT_TRUE(made.has("x-request-id: req-"));
  EXPECT_TRUE(client.post("max=2", "X-Request-Id: id1\r\n").has("x-request-id: id1\r\n"));
  const HttpAnswer longer = client.get("/live", "X-Request-Id: " + std::string(129, 'a') + "\r\n");
  EXPECT_TRUE(longer.has("x-request-id: req-"));
}

TEST(Server, LetsOtherSitesReadOnlyWhenTold) {
  TestServer closed;
  TestClient client(closed.port());
  EXPECT_FALSE(client.get("/live", "Origin: http://b\r\n").has("Access-Control"));
  EXPECT_EQ(client.post("max=2", "Origin: http://b\r\n").status, 403);
  EXPECT_EQ(client.post("max=2", "Origin: null\r\n").status, 403);
  EXPECT_EQ(client.post("max=2", "Origin: http://a\r\n").status, 403) << "a name, without keys";
  for (const std::string host : {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}) {
    TestClient own(closed.port());
    own.send("POST /v1/run HTTP/1.1\r\nHost: " + host + "\r\nOrigin: http://" + host +
             "\r\nContent-Length: 5\r\n\r\nmax=2");
    EXPECT_EQ(own.read_answer().status, 200) << host;
  }

  TestServer open({.cors_origins = {"http://b"}});
  TestClient other(open.port());
  EXPECT_TRUE(
      other.post("max=2", "Origin: http://b\r\n").has("Access-Control-Allow-Origin: http://b\r\n"));
  EXPECT_EQ(other.post("max=2", "Origin: http://c\r\n").status, 403);
  other.send("OPTIONS /v1/run HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\r\n");
  const HttpAnswer preflight = other.read_head();
  EXPECT_EQ(preflight.status, 204);
  EXPECT_TRUE(preflight.has("Access-Control-Allow-Methods: GET, POST"));
}

TEST(Server, RefusesConnectionsBeyondTheLimit) {
  TestServer server({.max_connections = 2});
  TestClient first(server.port());
  EXPECT_EQ(first.get("/live").status, 200);
  TestClient second(server.port());
  EXPECT_EQ(second.get("/live").status, 200);
  TestClient third(server.port());
  EXPECT_EQ(third.read_answer().status, 503);
}

TEST(Server, RefusesCompressedBodies) {
  TestServer server;
  TestClient client(server.port());
  EXPECT_EQ(client.post("max=2", "Content-Encoding: gzip\r\n").status, 415);
}

TEST(Server, ServesThePageUnderAStrictPolicy) {
  TestServer server;
  TestClient client(server.port());
  const HttpAnswer page = client.get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_TRUE(page.has("Content-Type: text/html"));
  EXPECT_TRUE(page.has("Content-Security-Policy: default-src 'none'; script-src 'self'"));
  EXPECT_TRUE(page.has("X-Content-Type-Options: nosniff"));
  EXPECT_EQ(client.get("/index.html").body, page.body);
}

TEST(Server, RunsSeveralModels) {
  TestServer server;
  TestClient first(server.port());
  TestClient second(server.port());
  first.send_post("max=50");
  second.send_post("other max=50");
  EXPECT_EQ(first.read_answer().body, second.read_answer().body);
  EXPECT_EQ(server.metric("vllm:request_success_total{model_name=\"other\",engine=\"0\","
                          "finished_reason=\"length\"}"),
            "1");
}

TEST(Server, CountsWhatRequestsUsed) {
  TestServer server;
  TestClient client(server.port());
  client.post("prompt=10 max=4");
  const std::string labels = "{model_name=\"simulated\",engine=\"0\"}";
  EXPECT_EQ(server.metric("vllm:prompt_tokens_total" + labels), "10");
  EXPECT_EQ(server.metric("vllm:generation_tokens_total" + labels), "4");
  EXPECT_EQ(server.metric("vllm:time_to_first_token_seconds_count" + labels), "1");
  EXPECT_EQ(server.metric("vllm:inter_token_latency_seconds_count" + labels), "3");
  EXPECT_EQ(server.metric("vllm:request_params_max_tokens_sum" + labels), "4");
  EXPECT_EQ(server.metric(ended("length")), "1");
  EXPECT_EQ(server.metric("quern:http_answers_total{code=\"200\"}") == "0", false);
  EXPECT_EQ(server.metric("vllm:cache_config_info{model_name=\"simulated\",engine=\"0\","
                          "block_size=\"32\",num_gpu_blocks=\"1024\"}"),
            "1");
}

TEST(Server, LogsAnswersWithoutPromptsOrKeys) {
  const ApiKeys keys = *ApiKeys::parse("alice secret-of-alice-1", "keys");
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  {
    LogWriter log(pipe_ends[1]);
    TestServer server({.keys = &keys, .log = &log});
    TestClient client(server.port());
    client.post("max=2 canary", "x-api-key: secret-of-alice-1\r\n");
    client.post("max=2 canary", "x-api-key: wrong-secret\r\n");
    client.get("/a\"b");
  }
  ::close(pipe_ends[1]);
  std::string text(1 << 16, '\0');
  text.resize(static_cast<size_t>(read(pipe_ends[0], text.data(), text.size())));
  ::close(pipe_ends[0]);
  EXPECT_THAT(text, HasSubstr("\"key\":\"alice\""));
  EXPECT_THAT(text, HasSubstr("\"completion_tokens\":2"));
  EXPECT_THAT(text, HasSubstr("\"path\":\"/a\\\"b\""));
  EXPECT_THAT(text, Not(HasSubstr("canary")));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

TEST(Server, GivesAwayAddressesOnlyWithKeysAndTls) {
  const ApiKeys keys = *ApiKeys::parse("secret-of-bob-123", "keys");
  EXPECT_TRUE(check_exposure({.host = "127.0.0.1"}));
  EXPECT_TRUE(check_exposure({.host = "localhost"}));
  EXPECT_TRUE(check_exposure({.host = "::1"}));
  for (const char* host : {"0.0.0.0", "::", "10.1.2.3"}) {
    const auto open = check_exposure({.host = host});
    ASSERT_FALSE(open) << host;
    EXPECT_THAT(open.error().message, HasSubstr("--insecure"));
    EXPECT_FALSE(check_exposure({.host = host, .keys = &keys}));
  }
  EXPECT_THAT(check_exposure({.host = "example.org"}).error().message, HasSubstr("IP address"));
}

TEST(Server, SaysWhenItCannotListen) {
  TestServer server;
  const auto second = Server::open({.port = server.port()}, {{&server.served, &server.engine}},
                                   server.api(), server.clock);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_THAT(second.error().message, HasSubstr("cannot listen on 127.0.0.1"));
}

}  // namespace
}  // namespace quern
