#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/api_endpoints.h"
#include "serve/api_test_support.h"

namespace quern {
namespace {

using testing::HasSubstr;

constexpr const char* kPath = "/v1/embeddings";

std::vector<Request> requests_of(const TestModel& model, const std::string& body) {
  const std::unique_ptr<Exchange> exchange = opened(open_call(model, kPath, body));
  return exchange ? exchange->take_requests() : std::vector<Request>();
}

std::vector<std::vector<int32_t>> prompts_of(const std::string& body) {
  const TestModel model;
  std::vector<std::vector<int32_t>> prompts;
  for (Request& request : requests_of(model, body)) prompts.push_back(std::move(request.prompt));
  return prompts;
}

// The answer to a call whose embeddings are those, before they are scaled.
OrderedJson answer_of(const std::string& body, const std::vector<std::vector<float>>& embeddings) {
  const TestModel model;
  const std::unique_ptr<Exchange> exchange = opened(open_call(model, kPath, body));
  if (!exchange) return {};
  const std::vector<Request> requests = exchange->take_requests();
  EXPECT_EQ(requests.size(), embeddings.size());
  std::string out;
  for (size_t i = requests.size(); i-- > 0;) {  // in whatever order they come
    exchange->on_event(i, EmbeddingEvent{1, embeddings[i]}, out);
    FinishedEvent finished;
    finished.usage.prompt_tokens = std::ssize(requests[i].prompt);
    exchange->on_event(i, finished, out);
  }
  EXPECT_EQ(out, "");
  exchange->end(out);
  EXPECT_EQ(exchange->status(), 200);
  OrderedJson json = OrderedJson::parse(out);
  const ApiResult<Unit> valid = check(embeddings_response_schema(), json);
  EXPECT_TRUE(valid) << (valid ? "" : valid.error().message);
  return json;
}

TEST(ApiEmbeddings, TakesTextsAndTokenIdsOneOrMany) {
  using Prompts = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(prompts_of(R"({"input":"ab"})"), (Prompts{{99, 100}}));
  EXPECT_EQ(prompts_of(R"({"input":["a","bc"]})"), (Prompts{{99}, {100, 101}}));
  EXPECT_EQ(prompts_of(R"({"input":[7,8,9]})"), (Prompts{{7, 8, 9}}));
  EXPECT_EQ(prompts_of(R"({"input":[[7],[8,9]]})"), (Prompts{{7}, {8, 9}}));
}

TEST(ApiEmbeddings, AsksForThePoolingOfTheModelAndNoAnswer) {
  TestModel model;
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
    model.model.pooling = pooling;
    const std::vector<Request> requests =
        requests_of(model, R"({"input":"abcd","truncate_prompt_tokens":3,"priority":-2})");
    ASSERT_EQ(requests.size(), 1u);
    EXPECT_EQ(requests[0].embedding, pooling);
    EXPECT_EQ(requests[0].max_tokens, 0);
    EXPECT_EQ(requests[0].priority, -2);
    EXPECT_EQ(requests[0].prompt, (std::vector<int32_t>{100, 101, 102}));
  }
}

TEST(ApiEmbeddings, HaveUnitLengthInTheOrderOfTheInputs) {
  const OrderedJson json =
      answer_of(R"({"input":["a","bc"]})", {{3, 0, 4, 0}, {0.1f, 0.1f, -0.1f, 0.1f}});
  EXPECT_EQ(json["object"], "list");
  EXPECT_EQ(json["model"], "test");
  ASSERT_EQ(json["data"].size(), 2u);
  EXPECT_EQ(json["data"][0]["index"], 0);
  EXPECT_EQ(json["data"][1]["index"], 1);
  EXPECT_EQ(json["data"][0]["embedding"].get<std::vector<float>>(),
            (std::vector<float>{0.6f, 0, 0.8f, 0}));
  EXPECT_EQ(json["data"][1]["embedding"].get<std::vector<float>>(),
            (std::vector<float>{0.5f, 0.5f, -0.5f, 0.5f}));
  EXPECT_EQ(json["usage"], (OrderedJson{{"prompt_tokens", 3}, {"total_tokens", 3}}));
}

TEST(ApiEmbeddings, KeepTheFirstDimensionsAtUnitLength) {
  const OrderedJson json = answer_of(R"({"input":"a","dimensions":2})", {{6, 8, 100, 1}});
  EXPECT_EQ(json["data"][0]["embedding"].get<std::vector<float>>(),
            (std::vector<float>{0.6f, 0.8f}));
}

TEST(ApiEmbeddings, OfZerosStayZeros) {
  const OrderedJson json = answer_of(R"({"input":"a"})", {{0, 0, 0, 0}});
  EXPECT_EQ(json["data"][0]["embedding"].get<std::vector<float>>(), std::vector<float>(4, 0));
}

TEST(ApiEmbeddings, ComeAsBase64OfLittleEndianFloats) {
  const std::string body = R"({"input":"a","encoding_format":"base64","dimensions":)";
  EXPECT_EQ(answer_of(body + "1}", {{2, 0, 0, 0}})["data"][0]["embedding"], "AACAPw==");
  EXPECT_EQ(answer_of(body + "2}", {{0, -2, 0, 0}})["data"][0]["embedding"], "AAAAAAAAgL8=");
  EXPECT_EQ(answer_of(body + "3}", {{3, 0, 4, 0}})["data"][0]["embedding"], "mpkZPwAAAADNzEw/");
}

TEST(ApiEmbeddings, NamesTheInputThatIsTooLongOrUnknown) {
  const TestModel model;
  const std::string fits(4096, 'a');
  EXPECT_EQ(requests_of(model, R"({"input":")" + fits + R"("})").size(), 1u);
  const ApiError too_long =
      refused(open_call(model, kPath, R"({"input":["a",")" + fits + R"(a"]})"));
  EXPECT_EQ(too_long.status, 400);
  EXPECT_EQ(too_long.param, "input[1]");
  EXPECT_EQ(too_long.code, "context_length_exceeded");
  EXPECT_THAT(too_long.message, HasSubstr("input[1] has 4097 tokens; shorten input[1]"));
  const ApiError unknown = refused(open_call(model, kPath, R"({"input":[[1],[2,259]]})"));
  EXPECT_EQ(unknown.status, 400);
  EXPECT_EQ(unknown.param, "input[1]");
  EXPECT_THAT(unknown.message, HasSubstr("token 259"));
}

TEST(ApiEmbeddings, RefusesEmptyAndTooManyInputs) {
  const TestModel model;
  OrderedJson many = {{"input", OrderedJson::array()}};
  EXPECT_EQ(refused(open_call(model, kPath, dump(many))).param, "input");
  for (int i = 0; i < 2048; ++i) many["input"].push_back("a");
  EXPECT_EQ(requests_of(model, dump(many)).size(), 2048u);
  many["input"].push_back("a");
  EXPECT_EQ(refused(open_call(model, kPath, dump(many))).param, "input");
  EXPECT_EQ(refused(open_call(model, kPath, R"({"input":""})")).param, "input");
}

TEST(ApiEmbeddings, FailsWhenOneOfThemWasNotFinished) {
  const TestModel model;
  const auto exchange = opened(open_call(model, kPath, R"({"input":"a"})"));
  ASSERT_TRUE(exchange);
  std::string out;
  FinishedEvent finished;
  finished.reason = FinishReason::kCancelled;
  exchange->on_event(0, finished, out);
  exchange->end(out);
  EXPECT_EQ(exchange->status(), 500);
  EXPECT_THAT(out, HasSubstr("the embedding was not finished: cancelled"));
}

}  // namespace
}  // namespace quern
