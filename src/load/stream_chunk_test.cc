#include "load/stream_chunk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;

StreamChunk read(std::string_view data) {
  const Result<StreamChunk> chunk = read_stream_chunk(data);
  EXPECT_TRUE(chunk) << (chunk ? "" : chunk.error().message);
  return chunk ? *chunk : StreamChunk();
}

TEST(StreamChunk, OfARoleAloneHasNoOutput) {
  const StreamChunk chunk =
      read(R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})");
  EXPECT_TRUE(chunk.choices);
  EXPECT_FALSE(chunk.output);
}

TEST(StreamChunk, WithTextReasoningOrToolsHasOutput) {
  for (const char* choice :
       {R"({"text":"a"})", R"({"delta":{"content":"a"}})", R"({"delta":{"reasoning":"a"}})",
        R"({"delta":{"reasoning_content":"a"}})", R"({"delta":{"refusal":"a"}})",
        R"({"delta":{"tool_calls":[{"index":0}]}})"}) {
    EXPECT_TRUE(read("{\"choices\":[" + std::string(choice) + "]}").output) << choice;
  }
  for (const char* choice : {R"({"text":""})", R"({"text":null})", R"({"delta":{"tool_calls":[]}})",
                             R"({"delta":7})", "5", "null"}) {
    EXPECT_FALSE(read("{\"choices\":[" + std::string(choice) + "]}").output) << choice;
  }
}

TEST(StreamChunk, SaysWhyTheAnswerEnded) {
  EXPECT_EQ(read(R"({"choices":[{"delta":{},"finish_reason":"length"}]})").finish_reason, "length");
  EXPECT_EQ(read(R"({"choices":[{"delta":{},"finish_reason":null}]})").finish_reason, "");
}

TEST(StreamChunk, CountsTokens) {
  const StreamChunk chunk = read(
      R"({"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,
          "prompt_tokens_details":{"cached_tokens":4}}})");
  EXPECT_FALSE(chunk.choices);
  ASSERT_TRUE(chunk.usage);
  EXPECT_EQ(chunk.usage->prompt_tokens, 5);
  EXPECT_EQ(chunk.usage->completion_tokens, 3);
  EXPECT_EQ(chunk.usage->total_tokens, 8);
  EXPECT_EQ(chunk.usage->cached_tokens, 4);
  EXPECT_FALSE(read(R"({"choices":[{"text":"a"}],"usage":null})").usage);
}

TEST(StreamChunk, KeepsImpossibleCountsWithinBounds) {
  const StreamChunk chunk = read(
      R"({"usage":{"prompt_tokens":-4,"completion_tokens":4611686018427387904,"total_tokens":"x"}})");
  ASSERT_TRUE(chunk.usage);
  EXPECT_EQ(chunk.usage->prompt_tokens, 0);
  EXPECT_EQ(chunk.usage->completion_tokens, int64_t{1} << 40);
  EXPECT_EQ(chunk.usage->total_tokens, 0);
}

TEST(StreamChunk, KnowsTheEndAndErrors) {
  EXPECT_TRUE(read("[DONE]").done);
  EXPECT_EQ(read(R"({"error":{"message":"out of room"}})").error, "out of room");
  EXPECT_EQ(read(R"({"error":"plain"})").error, "plain");
  EXPECT_EQ(read(R"({"error":{"code":5}})").error, R"({"code":5})");
  EXPECT_EQ(read(R"({"error":""})").error, "an error without a message");
}

TEST(StreamChunk, RefusesWhatIsNoObject) {
  for (const char* data : {"", "5", "[]", "{\"a\":", "done", "\xff"}) {
    const Result<StreamChunk> chunk = read_stream_chunk(data);
    ASSERT_FALSE(chunk) << data;
    EXPECT_THAT(chunk.error().message, HasSubstr("no JSON object"));
  }
}

TEST(ErrorMessage, IsThatOfEveryKindOfServer) {
  EXPECT_EQ(error_message(R"({"error":{"message":"a","type":"b"}})"), "a");
  EXPECT_EQ(error_message(R"({"error":"a"})"), "a");
  EXPECT_EQ(error_message(R"({"object":"error","message":"a"})"), "a");
  EXPECT_EQ(error_message(R"({"detail":"a"})"), "a");
  EXPECT_EQ(error_message(R"({"detail":[1]})"), "[1]");
  EXPECT_EQ(error_message("<html>\nno"), "<html> no");
  EXPECT_EQ(error_message(std::string(1000, 'x')).size(), 300u);
}

}  // namespace
}  // namespace quern
