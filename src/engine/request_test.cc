#include "engine/request.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

constexpr RequestLimits kLimits{.vocabulary = 10, .context_tokens = 100, .cache_tokens = 64};

Request good_request() {
  Request request;
  request.prompt = {1, 2, 3};
  return request;
}

struct BadCase {
  const char* name;
  std::function<void(Request&)> spoil;
  const char* message;
};

TEST(Request, AcceptsWhatIsWithinTheLimits) {
  Request request = good_request();
  EXPECT_TRUE(validate(request, kLimits));
  request.max_tokens = 61;  // 64 with the prompt: the whole cache
  request.min_tokens = 61;
  request.sampling = {.temperature = 100, .top_k = 1 << 20, .top_p = 1e-9f, .min_p = 1};
  request.stop = {std::string(kMaxStopBytes, 'x')};
  request.top_logprobs = kMaxLogprobs;
  request.prompt_logprobs = kMaxLogprobs;
  request.logit_bias.assign(kMaxLogitBiases, {9, -100});
  request.tenant_weight = kMaxTenantWeight;
  EXPECT_TRUE(validate(request, kLimits));
}

TEST(Request, NamesTheFieldThatIsWrong) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const BadCase cases[] = {
      {"no prompt", [](Request& r) { r.prompt = {}; }, "prompt is empty"},
      {"unknown token", [](Request& r) { r.prompt[2] = 10; }, "prompt[2] is token 10"},
      {"negative token", [](Request& r) { r.prompt[0] = -1; }, "prompt[0] is token -1"},
      {"no tokens", [](Request& r) { r.max_tokens = 0; }, "max_tokens is 0"},
      {"embedding with an answer", [](Request& r) { r.embedding = Pooling::kMean; },
       "max_tokens is 16; it must be 0 for an embedding"},
      {"embedding with logprobs",
       [](Request& r) {
         r.embedding = Pooling::kMean;
         r.max_tokens = 0;
         r.prompt_logprobs = 0;
       },
       "prompt_logprobs are not given for an embedding"},
      {"too long", [](Request& r) { r.max_tokens = 62; }, "exceed the key-value cache of 64"},
      {"far too long", [](Request& r) { r.max_tokens = INT64_MAX; }, "exceed the key-value cache"},
      {"long prompt", [](Request& r) { r.prompt.assign(65, 1); }, "prompt of 65 tokens"},
      {"min", [](Request& r) { r.min_tokens = 17; }, "min_tokens is 17"},
      {"negative min", [](Request& r) { r.min_tokens = -1; }, "min_tokens is -1"},
      {"cold", [](Request& r) { r.sampling.temperature = -0.1f; }, "temperature is -0.1"},
      {"nan", [&](Request& r) { r.sampling.temperature = nan; }, "temperature is nan"},
      {"top_k", [](Request& r) { r.sampling.top_k = -1; }, "top_k is -1"},
      {"top_p", [](Request& r) { r.sampling.top_p = 0; }, "top_p is 0; it must be in (0, 1]"},
      {"min_p", [](Request& r) { r.sampling.min_p = 1.5f; }, "min_p is 1.5"},
      {"repetition", [](Request& r) { r.sampling.repetition_penalty = 0; },
       "repetition_penalty is 0"},
      {"presence", [](Request& r) { r.sampling.presence_penalty = 3; }, "presence_penalty is 3"},
      {"frequency", [](Request& r) { r.sampling.frequency_penalty = -3; },
       "frequency_penalty is -3; it must be in [-2, 2]"},
      {"stops", [](Request& r) { r.stop.assign(17, "x"); }, "stop has 17 strings"},
      {"empty stop",
       [](Request& r) {
         r.stop = {"x", ""};
       },
       "stop[1] has 0 bytes"},
      {"long stop", [](Request& r) { r.stop = {std::string(1025, 'x')}; }, "stop[0] has 1025"},
      {"broken stop", [](Request& r) { r.stop = {"\xc3"}; }, "stop[0] is not valid UTF-8"},
      {"stop tokens", [](Request& r) { r.stop_tokens.assign(65, 1); }, "stop_tokens has 65"},
      {"stop token", [](Request& r) { r.stop_tokens = {10}; }, "stop_tokens[0] is token 10"},
      {"logprobs", [](Request& r) { r.top_logprobs = 21; }, "top_logprobs is 21"},
      {"prompt logprobs", [](Request& r) { r.prompt_logprobs = -1; }, "prompt_logprobs is -1"},
      {"biases", [](Request& r) { r.logit_bias.resize(1025); }, "logit_bias has 1025 tokens"},
      {"bias token",
       [](Request& r) {
         r.logit_bias = {{10, 1}};
       },
       "logit_bias names token 10; the vocabulary has tokens 0 to 9"},
      {"bias",
       [](Request& r) {
         r.logit_bias = {{3, 101}};
       },
       "logit_bias of token 3 is 101; it must be in [-100, 100]"},
      {"nan bias",
       [&](Request& r) {
         r.logit_bias = {{3, nan}};
       },
       "logit_bias of token 3 is nan"},
      {"weight", [](Request& r) { r.tenant_weight = 0; }, "tenant_weight is 0"},
  };
  for (const BadCase& bad : cases) {
    Request request = good_request();
    bad.spoil(request);
    const Result<Unit> result = validate(request, kLimits);
    ASSERT_FALSE(result) << bad.name;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(result.error().message, testing::HasSubstr(bad.message));
  }
}

TEST(Request, SaysWhenTheContextIsWhatLimitsIt) {
  Request request = good_request();
  request.max_tokens = 98;
  const RequestLimits limits{.vocabulary = 10, .context_tokens = 100, .cache_tokens = 640};
  const Result<Unit> result = validate(request, limits);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message,
            "prompt of 3 tokens and max_tokens 98 exceed the model's context of 100 tokens");
}

TEST(Request, NamesEveryFinishReason) {
  EXPECT_EQ(finish_reason_name(FinishReason::kStop), "stop");
  EXPECT_EQ(finish_reason_name(FinishReason::kLength), "length");
  EXPECT_EQ(finish_reason_name(FinishReason::kCancelled), "cancelled");
  EXPECT_EQ(finish_reason_name(FinishReason::kError), "error");
  EXPECT_EQ(finish_reason_name(FinishReason::kExpired), "expired");
}

}  // namespace
}  // namespace quern
