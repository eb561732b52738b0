#include "serve/http_response.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

TEST(HttpResponse, WritesAHeadWithALength) {
  std::string out;
  append_head({.status = 404, .fields = {{"x-request-id", "r"}}, .length = 12, .unix_s = 784111777},
              out);
  EXPECT_EQ(out,
            "HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
            "Content-Type: application/json\r\nContent-Length: 12\r\nx-request-id: r\r\n"
            "Connection: keep-alive\r\n\r\n");
}

TEST(HttpResponse, WritesAStream) {
  std::string out;
  append_head({.content_type = "text/event-stream",
               .framing = BodyFraming::kChunked,
               .after = AfterAnswer::kClose},
              out);
  EXPECT_NE(out.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(out.find("Content-Length"), std::string::npos);
  EXPECT_NE(out.find("Connection: close\r\n"), std::string::npos);
  out.clear();
  append_chunk("0123456789abcdef", out);
  append_chunk("", out);
  append_last_chunk(out);
  EXPECT_EQ(out, "10\r\n0123456789abcdef\r\n0\r\n\r\n");
}

TEST(HttpResponse, SendsNoLengthWithoutABody) {
  std::string out;
  append_head({.status = 204, .content_type = ""}, out);
  EXPECT_EQ(out.find("Content-"), std::string::npos);
}

TEST(HttpResponse, NamesUnknownStatusToo) { EXPECT_EQ(reason_phrase(299), "Unknown"); }

}  // namespace
}  // namespace quern
