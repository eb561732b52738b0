#include "serve/tls.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "serve/server_test_support.h"
#include "serve/tls_test_certificate.h"

namespace quern {
namespace {

using testing::HasSubstr;

class Tls : public testing::Test {
 protected:
  // Tests run side by side, each as a process.
  static std::string own_prefix() { return fmt::format("{}{}-", testing::TempDir(), ::getpid()); }

  void SetUp() override {
    files = write_test_certificate(own_prefix());
    context = std::move(*TlsContext::load(files.certificate, files.key));
  }

  // Carries bytes to and fro until both are silent.
  static void exchange(TlsSession& client,
                       std::string& client_plain,
                       TlsSession& server,
                       std::string& server_plain) {
    std::string there, back;
    client.receive("", client_plain);
    do {
      there.clear();
      back.clear();
      client.take_output(there);
      EXPECT_TRUE(server.receive(there, server_plain));
      server.take_output(back);
      EXPECT_TRUE(client.receive(back, client_plain));
    } while (!there.empty() || !back.empty());
  }

  TestCertificate files;
  void TearDown() override {
    std::remove(files.certificate.c_str());
    std::remove(files.key.c_str());
  }

  std::unique_ptr<TlsContext> context;
};

TEST_F(Tls, CarriesBytesBothWays) {
  TlsSession server(*context);
  TlsSession client(*context, TlsSession::Side::kClient);
  std::string to_client, to_server;
  exchange(client, to_client, server, to_server);
  ASSERT_TRUE(server.established());
  EXPECT_TRUE(client.send("question"));
  exchange(client, to_client, server, to_server);
  EXPECT_EQ(to_server, "question");
  const std::string answer(100'000, 'a');
  EXPECT_TRUE(server.send(answer));
  exchange(client, to_client, server, to_server);
  EXPECT_EQ(to_client, answer);
  EXPECT_FALSE(server.peer_closed());
  client.shutdown();
  exchange(client, to_client, server, to_server);
  EXPECT_TRUE(server.peer_closed());
}

TEST_F(Tls, RefusesWhatIsNoTls) {
  TlsSession server(*context);
  std::string plain;
  EXPECT_FALSE(server.receive("GET / HTTP/1.1\r\nHost: a\r\n\r\n", plain));
  EXPECT_EQ(plain, "");
}

TEST_F(Tls, NamesFilesThatItCannotUse) {
  const auto missing = TlsContext::load("/nowhere/cert.pem", files.key);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("/nowhere/cert.pem"));
  const auto no_key = TlsContext::load(files.certificate, files.certificate);
  ASSERT_FALSE(no_key);
  EXPECT_THAT(no_key.error().message, HasSubstr(files.certificate));
  const TestCertificate other = write_test_certificate(own_prefix() + "other-");
  EXPECT_FALSE(TlsContext::load(files.certificate, other.key));
}

// A client's socket that speaks TLS.
class TlsClient {
 public:
  TlsClient(uint16_t port, const TlsContext& context)
      : socket_(port), session_(context, TlsSession::Side::kClient) {
    while (!session_.established()) step("");
  }

  std::string answer_to(const std::string& request) {
    plain_.clear();
    session_.send(request);
    while (plain_.find("\r\n\r\n") == std::string::npos) {
      if (!step(request)) break;
    }
    return plain_;
  }

 private:
  bool step(const std::string&) {
    std::string out;
    session_.receive("", plain_);
    session_.take_output(out);
    socket_.send(out);
    if (session_.established() && plain_.find("\r\n\r\n") != std::string::npos) return true;
    const std::string in = socket_.read_bytes(1);
    return session_.receive(in, plain_) && !in.empty();
  }

  TestClient socket_;
  TlsSession session_;
  std::string plain_;
};

TEST_F(Tls, ServesHttp) {
  TestServer server({.tls = context.get()});
  TlsClient client(server.port(), *context);
  for (int i = 0; i < 2; ++i) {
    const std::string answer = client.answer_to("GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_THAT(answer, HasSubstr("HTTP/1.1 200 OK"));
    EXPECT_THAT(answer, HasSubstr("Strict-Transport-Security"));
  }
}

TEST_F(Tls, CutsHandshakesThatDoNotEnd) {
  TestServer server({.tls = context.get()});
  TestClient client(server.port());
  client.send("\x16\x03\x01");
  TlsClient(server.port(), *context).answer_to("GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
  server.clock.advance_ms(10'001);
  EXPECT_TRUE(client.at_end());
}

}  // namespace
}  // namespace quern
