// TLS over bytes in memory: it sees no socket, so that a connection reads and writes the same way
// with and without it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct ssl_ctx_st;
struct ssl_st;

namespace quern {

// A certificate chain with its key, for TLS 1.2 and 1.3 and http/1.1 by ALPN. Immutable.
class TlsContext {
 public:
  // PEM files. Errors: kInvalidArgument naming the file for what cannot be read or does not match.
  static Result<std::unique_ptr<TlsContext>> load(const std::filesystem::path& certificate,
                                                  const std::filesystem::path& key);

 private:
  friend class TlsSession;

  struct Free {
    void operator()(ssl_ctx_st* context) const;
  };

  std::unique_ptr<ssl_ctx_st, Free> context_;
};

// The server's side of one connection.
class TlsSession {
 public:
  // Borrows the context. `peer` in tests alone makes it the client's side.
  enum class Side : unsigned char { kServer, kClient };
  explicit TlsSession(const TlsContext& context, Side side = Side::kServer);
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;
  ~TlsSession();

  // Takes what arrived and appends what it means to `plain`. False when the connection is not
  // speaking TLS or has ended with an error; output may then hold an alert.
  bool receive(std::string_view bytes, std::string& plain);

  // Encrypts. False when that failed. Requires established().
  bool send(std::string_view plain);

  // Tells the peer that nothing follows.
  void shutdown();

  // Appends what is to be sent to the peer.
  void take_output(std::string& out);

  bool established() const;

  // Whether the peer said that nothing follows.
  bool peer_closed() const { return peer_closed_; }

 private:
  struct Free {
    void operator()(ssl_st* ssl) const;
  };

  std::unique_ptr<ssl_st, Free> ssl_;
  bool peer_closed_ = false;
};

}  // namespace quern
