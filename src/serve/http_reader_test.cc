#include "serve/http_reader.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern {
namespace {

// Feeds `bytes` in two pieces; the reader stops by itself at the end of the message.
HttpReader read_split(const std::string& bytes, size_t split, const HttpLimits& limits = {}) {
  HttpReader reader(limits);
  const std::string_view all = bytes;
  size_t taken = reader.feed(all.substr(0, split));
  if (taken == split) taken += reader.feed(all.substr(split));
  return reader;
}

HttpReader read(const std::string& bytes, const HttpLimits& limits = {}) {
  return read_split(bytes, bytes.size(), limits);
}

struct Refusal {
  const char* name;
  std::string bytes;
  int status;
};

std::string post(const std::string& fields, const std::string& body = "") {
  return "POST /v1/x HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" + body;
}

std::string chunked(const std::string& body) {
  return post("Transfer-Encoding: chunked\r\n", body);
}

std::vector<Refusal> refusals() {
  using namespace std::string_literals;
  const std::string get = "GET / HTTP/1.1\r\nHost: a\r\n";
  return {
      {"length beside coding", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"coding beside length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400},
      {"two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n"), 400},
      {"two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n"), 400},
      {"list of lengths", post("Content-Length: 5, 5\r\n"), 400},
      {"signed length", post("Content-Length: +5\r\n"), 400},
      {"negative length", post("Content-Length: -1\r\n"), 400},
      {"hexadecimal length", post("Content-Length: 0x5\r\n"), 400},
      {"empty length", post("Content-Length: \r\n"), 400},
      {"length beyond 64 bits", post("Content-Length: 18446744073709551617\r\n"), 400},
      {"long length", post("Content-Length: 9999999999999999999\r\n"), 400},
      {"length beyond the limit", post("Content-Length: 8388609\r\n"), 413},
      {"no length", post(""), 411},
      {"two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"list of codings", post("Transfer-Encoding: gzip, chunked\r\n"), 501},
      {"another coding", post("Transfer-Encoding: gzip\r\n"), 501},
      {"identity", post("Transfer-Encoding: identity\r\n"), 501},
      {"chunked twice", post("Transfer-Encoding: chunked, chunked\r\n"), 501},
      {"obfuscated coding", post("Transfer-Encoding: xchunked\r\n"), 501},
      {"space before colon", post("Content-Length : 5\r\n"), 400},
      {"vertical tab in a coding", post("Transfer-Encoding: \x0b"s + "chunked\r\n"), 400},
      {"HTTP/1.0 with a coding", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"folded field", get + "X: a\r\n b\r\n\r\n", 400},
      {"space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
      {"bare line feed", "GET / HTTP/1.1\nHost: a\n\n", 400},
      {"bare line feed in a field", get + "X: a\nY: b\r\n\r\n", 400},
      {"bare carriage return", get + "X: a\rY: b\r\n\r\n", 400},
      {"NUL", get + "X: a\0b\r\n\r\n"s, 400},
      {"DEL", get + "X: a\x7f\r\n\r\n", 400},
      {"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two Hosts", get + "Host: b\r\n\r\n", 400},
      {"no colon", get + "Nonsense\r\n\r\n", 400},
      {"empty name", get + ": a\r\n\r\n", 400},
      {"two empty lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"no version", "GET /\r\nHost: a\r\n\r\n", 400},
      {"HTTP/2", "PRI * HTTP/2.0\r\n\r\n", 505},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
      {"lower-case protocol", "GET / http/1.1\r\nHost: a\r\n\r\n", 505},
      {"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"relative target", "GET v1 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"TLS hello", "\x16\x03\x01\x02", 400},
      {"long request line", "GET /" + std::string(8192, 'a') + " HTTP/1.1\r\n", 414},
      {"large head", get + "X: " + std::string(32 << 10, 'a') + "\r\n\r\n", 431},
      {"unknown expectation", post("Expect: miracles\r\nContent-Length: 1\r\n", "a"), 417},
      {"chunk without size", chunked("\r\n"), 400},
      {"negative chunk", chunked("-2\r\n"), 400},
      {"signed chunk", chunked("+2\r\nab\r\n0\r\n\r\n"), 400},
      {"0x chunk", chunked("0x2\r\nab\r\n0\r\n\r\n"), 400},
      {"chunk of nine digits", chunked("000000002\r\nab\r\n0\r\n\r\n"), 400},
      {"chunk beyond 32 bits", chunked("fffffffff\r\n"), 400},
      {"chunk beyond the limit", chunked("800001\r\n"), 413},
      {"space before chunk size", chunked(" 2\r\nab\r\n0\r\n\r\n"), 400},
      {"space behind chunk size", chunked("2 \r\nab\r\n0\r\n\r\n"), 400},
      {"chunk ended by line feed", chunked("2\nab\r\n0\r\n\r\n"), 400},
      {"chunk data too long", chunked("2\r\nabc\r\n0\r\n\r\n"), 400},
      {"chunk data without line feed", chunked("2\r\nab\rX"), 400},
      {"chunk extension with line feed", chunked("2;a\nb\r\nab\r\n0\r\n\r\n"), 400},
      {"long chunk extension", chunked("2;" + std::string(300, 'a') + "\r\nab\r\n0\r\n\r\n"), 400},
      {"trailer", chunked("0\r\nX: a\r\n\r\n"), 400},
      {"bad end of chunks", chunked("0\r\n\rX"), 400},
  };
}

TEST(HttpReader, RefusesMalformedFramingWhereverItIsSplit) {
  for (const Refusal& refusal : refusals()) {
    const size_t step = refusal.bytes.size() > 1000 ? 97 : 1;
    for (size_t split = 0; split <= refusal.bytes.size(); split += step) {
      const HttpReader reader = read_split(refusal.bytes, split);
      ASSERT_EQ(reader.state(), HttpReader::State::kFailed) << refusal.name << " at " << split;
      ASSERT_EQ(reader.failure().status, refusal.status) << refusal.name << " at " << split;
      ASSERT_FALSE(reader.failure().message.empty());
    }
  }
}

TEST(HttpReader, RefusesTooManyFieldsAndAcceptsTheLimit) {
  const auto with_fields = [](int count) {
    std::string bytes = "GET / HTTP/1.1\r\nHost: a\r\n";
    for (int i = 1; i < count; ++i) bytes += "X: y\r\n";
    return bytes + "\r\n";
  };
  EXPECT_EQ(read(with_fields(64)).state(), HttpReader::State::kComplete);
  EXPECT_EQ(read(with_fields(65)).failure().status, 431);
}

TEST(HttpReader, ReadsARequestWhereverItIsSplit) {
  const std::string bytes =
      "POST /v1/x?a=b HTTP/1.1\r\nHost: h\r\nX-Thing:  two words \r\nContent-Length: 4\r\n\r\nbody";
  for (size_t split = 0; split <= bytes.size(); ++split) {
    HttpReader reader = read_split(bytes, split);
    ASSERT_EQ(reader.state(), HttpReader::State::kComplete);
    const HttpRequest& request = reader.request();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/v1/x");
    EXPECT_EQ(request.query, "a=b");
    EXPECT_EQ(request.field("x-thing"), "two words");
    EXPECT_EQ(request.body, "body");
    EXPECT_TRUE(request.keep_alive);
  }
}

TEST(HttpReader, DecodesChunksWhereverTheyAreSplit) {
  const std::string bytes = chunked("3;name=\"v\"\r\nabc\r\n0000000A\r\n0123456789\r\n0\r\n\r\n");
  for (size_t split = 0; split <= bytes.size(); ++split) {
    HttpReader reader = read_split(bytes, split);
    ASSERT_EQ(reader.state(), HttpReader::State::kComplete) << split;
    EXPECT_EQ(reader.request().body, "abc0123456789");
  }
}

TEST(HttpReader, CountsTheDecodedBodyAgainstTheLimit) {
  const HttpLimits limits{.body_bytes = 8};
  EXPECT_EQ(read(chunked("4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n"), limits).state(),
            HttpReader::State::kComplete);
  EXPECT_EQ(read(chunked("4\r\nabcd\r\n5\r\nefghi\r\n0\r\n\r\n"), limits).failure().status, 413);
}

TEST(HttpReader, TakesNoByteOfTheNextRequest) {
  const std::string first = post("Content-Length: 2\r\n", "{}");
  HttpReader reader({});
  EXPECT_EQ(reader.feed(first + "GET / HTTP/1.1\r\n"), first.size());
  EXPECT_EQ(reader.state(), HttpReader::State::kComplete);
}

TEST(HttpReader, KnowsWhetherTheConnectionGoesOn) {
  EXPECT_FALSE(read("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").request().keep_alive);
  EXPECT_FALSE(read("GET / HTTP/1.0\r\n\r\n").request().keep_alive);
  EXPECT_TRUE(read("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").request().keep_alive);
}

TEST(HttpReader, AcceptsAbsoluteTargetsAndOneEmptyLine) {
  EXPECT_EQ(read("GET http://host:1/a?b HTTP/1.1\r\nHost: host:1\r\n\r\n").request().path, "/a");
  EXPECT_EQ(read("GET http://host HTTP/1.1\r\nHost: host\r\n\r\n").request().path, "/");
  EXPECT_EQ(read("\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n").request().path, "/a");
}

TEST(HttpReader, AsksForTheBodyOnlyWhenOneIsExpected) {
  HttpReader waiting = read(post("Expect: 100-continue\r\nContent-Length: 2\r\n"));
  EXPECT_EQ(waiting.state(), HttpReader::State::kBody);
  EXPECT_TRUE(waiting.request().expects_continue);
  HttpReader empty = read(post("Expect: 100-continue\r\nContent-Length: 0\r\n"));
  EXPECT_FALSE(empty.request().expects_continue);
}

}  // namespace
}  // namespace quern
