#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/api_endpoints.h"
#include "serve/api_test_support.h"

namespace quern {
namespace {

constexpr const char* kLoad = "/admin/models/load";
constexpr const char* kUnload = "/admin/models/unload";

ModelChange change_of(std::string_view path, std::string_view body) {
  const TestModel model;
  const std::unique_ptr<Exchange> exchange = opened(open_call(model, path, body));
  if (!exchange) return {};
  EXPECT_EQ(exchange->model(), nullptr);
  EXPECT_TRUE(exchange->take_requests().empty());
  return exchange->take_change();
}

TEST(ApiAdmin, LoadsWithWhatIsAskedAndLeavesTheRestOpen) {
  const auto plain = std::get<ModelLoad>(change_of(kLoad, R"({"model":"/models/tiny.gguf"})"));
  EXPECT_EQ(plain.model, "/models/tiny.gguf");
  EXPECT_EQ(plain.id, "tiny");
  EXPECT_FALSE(plain.context || plain.max_sequences || plain.kv_cache_bytes);
  const auto full = std::get<ModelLoad>(change_of(kLoad, R"({"model":"/models/tiny/","id":"a",
      "context":512,"max_sequences":4,"kv_cache_bytes":1048576})"));
  EXPECT_EQ(full.id, "a");
  EXPECT_EQ(full.context, 512);
  EXPECT_EQ(full.max_sequences, 4);
  EXPECT_EQ(full.kv_cache_bytes, 1048576u);
}

TEST(ApiAdmin, UnloadsWithTimeToDrain) {
  EXPECT_EQ(std::get<ModelUnload>(change_of(kUnload, R"({"model":"a"})")).drain_ms, 30'000);
  const auto unload =
      std::get<ModelUnload>(change_of(kUnload, R"({"model":"a","drain_seconds":2})"));
  EXPECT_EQ(unload.id, "a");
  EXPECT_EQ(unload.drain_ms, 2000);
}

TEST(ApiAdmin, AnswersAsItsSchemasSay) {
  const TestModel model;
  const auto load = opened(open_call(model, kLoad, R"({"model":"m"})"));
  load->on_loaded({.context = 9,
                   .max_sequences = 2,
                   .kv_cache_tokens = 64,
                   .weights_bytes = 3,
                   .kv_cache_bytes = 4,
                   .scratch_bytes = 5});
  std::string out;
  load->end(out);
  const OrderedJson loaded = OrderedJson::parse(out);
  EXPECT_TRUE(check(load_response_schema(), loaded));
  EXPECT_EQ(loaded["id"], "m");
  EXPECT_EQ(loaded["total_bytes"], 12);
  const auto unload = opened(open_call(model, kUnload, R"({"model":"m"})"));
  unload->on_unloaded(7);
  out.clear();
  unload->end(out);
  const OrderedJson unloaded = OrderedJson::parse(out);
  EXPECT_TRUE(check(unload_response_schema(), unloaded));
  EXPECT_EQ(unloaded["cancelled_calls"], 7);
}

TEST(ApiAdmin, RefusesWhatItDoesNotKnow) {
  const TestModel model;
  EXPECT_EQ(refused(open_call(model, kLoad, R"({})")).param, "model");
  EXPECT_EQ(refused(open_call(model, kLoad, R"({"model":"m","context":0})")).param, "context");
  EXPECT_EQ(refused(open_call(model, kLoad, R"({"model":"m","threads":1})")).param, "threads");
  EXPECT_EQ(refused(open_call(model, kUnload, R"({"model":"m","drain_seconds":-1})")).param,
            "drain_seconds");
}

TEST(ApiAdmin, LeavesNothingToAnswerWithWhenAllModelsAreGone) {
  TestModel model;
  model.models.models.clear();
  const std::string body = R"({"messages":[{"role":"user","content":"hi"}])";
  for (const char* rest : {"}", R"(,"model":"test"})"}) {
    const ApiError error = refused(open_call(model, "/v1/chat/completions", body + rest));
    EXPECT_EQ(error.status, 404);
    EXPECT_EQ(error.code, "model_not_found");
    EXPECT_THAT(error.message, testing::HasSubstr("there is none"));
  }
}

}  // namespace
}  // namespace quern
