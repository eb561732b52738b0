// Models that are loaded and unloaded while a server runs.
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/server_test_support.h"

namespace quern {
namespace {

using testing::HasSubstr;

std::string running(const std::string& model) {
  return "vllm:num_requests_running{model_name=\"" + model + "\",engine=\"0\"}";
}

// Asks until a model takes no more calls.
void wait_for_unloading(TestClient& client) {
  std::string health;
  for (int i = 0; i < 20000 && health.find("unloading") == std::string::npos; ++i) {
    health = client.get("/health").body;
  }
  EXPECT_THAT(health, HasSubstr("unloading"));
}

TEST(ServerModels, ServeOnceTheyAreLoaded) {
  TestServer server;
  TestClient client(server.port());
  EXPECT_EQ(client.post("model=third max=5").status, 404);
  EXPECT_EQ(server.metric(running("third")), "absent");
  const HttpAnswer loaded = client.admin("load=third");
  EXPECT_EQ(loaded.status, 200);
  EXPECT_THAT(loaded.body, HasSubstr("loaded 4096"));
  EXPECT_EQ(client.post("model=third max=5").body, client.post("max=5").body);
  EXPECT_EQ(server.metric(running("third")), "0");
  EXPECT_THAT(client.get("/health").body, HasSubstr("third"));
}

TEST(ServerModels, LoadWhileOthersStreamTheSameAsAlone) {
  std::string alone;
  {
    TestServer server;
    alone = TestClient(server.port()).post("stream max=2000").body;
    EXPECT_THAT(alone, HasSubstr("[DONE]"));
  }
  TestServer server;
  server.model.hold();
  TestClient streaming(server.port());
  streaming.send_post("stream max=2000");
  server.model.wait_inside();
  server.host.hold();
  TestClient admin(server.port());
  admin.send_admin("load=third");
  server.host.wait_inside();
  server.model.release();
  // The network thread, the pool and the engines go on while the model is being loaded.
  TestClient client(server.port());
  EXPECT_EQ(client.post("max=3").status, 200);
  EXPECT_EQ(client.post("other max=3").status, 200);
  EXPECT_EQ(client.post("model=third max=3").status, 404);
  server.host.release();
  EXPECT_EQ(admin.read_answer().status, 200);
  EXPECT_EQ(client.post("model=third max=30").status, 200);
  EXPECT_EQ(admin.admin("unload=third").status, 200);
  EXPECT_EQ(streaming.read_answer().body, alone);
}

TEST(ServerModels, AreLoadedOnceUnderOneName) {
  TestServer server;
  server.host.hold();
  TestClient first(server.port());
  first.send_admin("load=third");
  server.host.wait_inside();
  TestClient second(server.port());
  EXPECT_EQ(second.admin("load=third").status, 409);
  EXPECT_EQ(second.admin("unload=third").status, 409);
  server.host.release();
  EXPECT_EQ(first.read_answer().status, 200);
  EXPECT_EQ(second.admin("load=third").status, 409);
  EXPECT_EQ(second.admin("load=simulated").status, 409);
}

TEST(ServerModels, SayWhyTheyCannotBeLoadedAndCanBeTriedAgain) {
  TestServer server;
  TestClient client(server.port());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(client.admin("load=missing").status, 404);
    const HttpAnswer huge = client.admin("load=huge");
    EXPECT_EQ(huge.status, 507);
    EXPECT_THAT(huge.body, HasSubstr("insufficient_memory it needs more than there is"));
    EXPECT_EQ(client.admin("load=broken").status, 500);
  }
  EXPECT_EQ(client.admin("unload=missing").status, 404);
  EXPECT_EQ(client.post("max=2").status, 200);
}

TEST(ServerModels, EndTheirCallsBeforeTheyAreFreed) {
  TestServer server;
  server.other_model.hold();
  TestClient calling(server.port());
  calling.send_post("other max=20");
  server.other_model.wait_inside();
  TestClient admin(server.port());
  admin.send_admin("unload=other");
  TestClient client(server.port());
  wait_for_unloading(client);
  EXPECT_EQ(client.post("other max=1").status, 404);
  EXPECT_EQ(server.host.unloads(), 0);
  server.other_model.release();
  EXPECT_EQ(calling.read_answer().status, 200);
  EXPECT_THAT(admin.read_answer().body, HasSubstr("unloaded 0"));
  EXPECT_EQ(server.host.unloads(), 1);
  EXPECT_EQ(server.metric(running("other")), "absent");
  EXPECT_EQ(client.post("max=2").status, 200);
}

TEST(ServerModels, CancelCallsThatTakeTooLong) {
  TestServer server;
  server.other_model.hold();
  TestClient streaming(server.port());
  streaming.send_post("other stream max=4000");
  TestClient whole(server.port());
  server.other_model.wait_inside();
  whole.send_post("other max=4000");
  server.wait_for_metric("quern:http_calls", "2");
  TestClient admin(server.port());
  admin.send_admin("unload=other drain=1000");
  TestClient client(server.port());
  wait_for_unloading(client);
  server.clock.advance_ms(1001);
  EXPECT_EQ(whole.read_answer().status, 503);
  EXPECT_EQ(streaming.read_answer().status, 503);
  EXPECT_EQ(server.host.unloads(), 0);  // the engine still has them
  server.other_model.release();
  EXPECT_THAT(admin.read_answer().body, HasSubstr("unloaded 2"));
}

TEST(ServerModels, CanAllGoAndComeBack) {
  TestServer server;
  TestClient client(server.port());
  EXPECT_EQ(client.admin("unload=other drain=0").status, 200);
  EXPECT_EQ(client.admin("unload=simulated drain=0").status, 200);
  EXPECT_EQ(client.post("max=2").status, 404);
  EXPECT_EQ(client.admin("load=simulated").status, 200);
  EXPECT_EQ(client.post("max=2").status, 200);
  EXPECT_EQ(client.get("/ready").status, 200);
}

TEST(ServerModels, OutliveTheClientThatAskedForThem) {
  TestServer server;
  server.host.hold();
  TestClient admin(server.port());
  admin.send_admin("load=third");
  server.host.wait_inside();
  admin.close();
  server.wait_for_metric("quern:http_abandoned_total", "1");
  server.host.release();
  server.wait_for_metric("quern:http_calls", "0");
  EXPECT_EQ(TestClient(server.port()).post("model=third max=2").status, 200);
}

// Calls that come and go while the models that they name do.
TEST(ServerModels, RaceWithTheirCalls) {
  TestServer server;
  std::atomic<bool> done{false};
  std::atomic<int> answered{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&server, &done, &answered, i] {
      TestClient client(server.port());
      while (!done) {
        const HttpAnswer answer =
            client.post(i == 0 ? "stream model=third max=20" : "model=third n=2 max=9");
        EXPECT_TRUE(answer.status == 200 || answer.status == 404 || answer.status == 503)
            << answer.status;
        answered += answer.status == 200 ? 1 : 0;
      }
    });
  }
  callers.emplace_back([&server, &done] {
    while (!done) {
      TestClient leaving(server.port());
      leaving.send_post("stream model=third max=500");
      leaving.read_head();
    }
  });
  TestClient admin(server.port());
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(admin.admin("load=third").status, 200);
    const int before = answered;
    while (answered == before) {
    }
    EXPECT_EQ(admin.admin(i % 2 == 0 ? "unload=third" : "unload=third drain=0").status, 200);
  }
  done = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(server.host.unloads(), 30);
  server.wait_for_metric("quern:http_calls", "0");
}

TEST(ServerModels, EndWithTheServerWhileTheyAreBeingLoaded) {
  TestServer server;
  server.host.hold();
  TestClient admin(server.port());
  admin.send_admin("load=third");
  server.host.wait_inside();  // the destructor releases it
}

TEST(ServerModels, BelongToAdmins) {
  const ApiKeys keys =
      *ApiKeys::parse("alice secret-of-alice-1\nroot secret-of-root-12 admin", "keys");
  TestServer server({.keys = &keys});
  TestClient client(server.port());
  EXPECT_EQ(client.admin("load=third").status, 401);
  EXPECT_EQ(client.admin("load=third", "x-api-key: secret-of-alice-1\r\n").status, 403);
  EXPECT_EQ(client.admin("unload=other", "x-api-key: secret-of-alice-1\r\n").status, 403);
  EXPECT_EQ(client.admin("load=third", "x-api-key: secret-of-root-12\r\n").status, 200);
  EXPECT_EQ(client.post("model=third max=2", "x-api-key: secret-of-alice-1\r\n").status, 200);
}

TEST(ServerModels, AreNobodysToLoadOnOpenAddressesWithoutKeys) {
  TestServer server({.host = "0.0.0.0"});
  EXPECT_EQ(TestClient(server.port()).admin("load=third").status, 403);
}

}  // namespace
}  // namespace quern
