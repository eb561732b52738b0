#include "serve/tls.h"

#include <algorithm>
#include <array>
#include <climits>
#include <stdexcept>

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/check.h"

namespace quern {
namespace {

constexpr size_t kReadBytes = 16 << 10;  // one record

std::string last_error() {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  ERR_clear_error();
  return text.data();
}

int choose_protocol(SSL*,
                    const unsigned char** out,
                    unsigned char* out_size,
                    const unsigned char* in,
                    unsigned int in_size,
                    void*) {
  static constexpr unsigned char kOffer[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  const int found =
      SSL_select_next_proto(&chosen, out_size, kOffer, sizeof(kOffer) - 1, in, in_size);
  *out = chosen;
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

Error unreadable(const std::filesystem::path& path) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", path.string(), last_error())};
}

}  // namespace

void TlsContext::Free::operator()(ssl_ctx_st* context) const { SSL_CTX_free(context); }

void TlsSession::Free::operator()(ssl_st* ssl) const { SSL_free(ssl); }

Result<std::unique_ptr<TlsContext>> TlsContext::load(const std::filesystem::path& certificate,
                                                     const std::filesystem::path& key) {
  auto loaded = std::make_unique<TlsContext>();
  loaded->context_.reset(SSL_CTX_new(TLS_method()));
  SSL_CTX* context = loaded->context_.get();
  if (context == nullptr) throw std::runtime_error("OpenSSL: " + last_error());
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(
      context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);  // idle connections hold none
  SSL_CTX_set_alpn_select_cb(context, choose_protocol, nullptr);
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1) {
    return unreadable(certificate);
  }
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return unreadable(key);
  }
  if (SSL_CTX_check_private_key(context) != 1) return unreadable(key);
  return loaded;
}

TlsSession::TlsSession(const TlsContext& context, Side side)
    : ssl_(SSL_new(context.context_.get())) {
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  if (ssl_ == nullptr || in == nullptr || out == nullptr) throw std::bad_alloc();
  SSL_set_bio(ssl_.get(), in, out);  // which own them from here on
  if (side == Side::kServer) {
    SSL_set_accept_state(ssl_.get());
  } else {
    SSL_set_connect_state(ssl_.get());
  }
}

TlsSession::~TlsSession() = default;

bool TlsSession::receive(std::string_view bytes, std::string& plain) {
  QUERN_CHECK(bytes.size() <= INT_MAX);
  ERR_clear_error();
  if (!bytes.empty()) {
    BIO_write(SSL_get_rbio(ssl_.get()), bytes.data(), static_cast<int>(bytes.size()));
  }
  std::array<char, kReadBytes> buffer;
  while (true) {
    size_t count = 0;
    if (SSL_read_ex(ssl_.get(), buffer.data(), buffer.size(), &count) == 1) {
      plain.append(buffer.data(), count);
      continue;
    }
    const int error = SSL_get_error(ssl_.get(), 0);
    if (error == SSL_ERROR_WANT_READ) return true;
    peer_closed_ = error == SSL_ERROR_ZERO_RETURN;
    ERR_clear_error();
    return peer_closed_;
  }
}

bool TlsSession::send(std::string_view plain) {
  ERR_clear_error();
  size_t count = 0;
  return plain.empty() || SSL_write_ex(ssl_.get(), plain.data(), plain.size(), &count) == 1;
}

void TlsSession::shutdown() {
  ERR_clear_error();
  if (established()) SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

void TlsSession::take_output(std::string& out) {
  BIO* bio = SSL_get_wbio(ssl_.get());
  while (const size_t waiting = BIO_ctrl_pending(bio)) {
    const size_t old = out.size();
    out.resize(old + waiting);
    const int count = BIO_read(bio, out.data() + old, static_cast<int>(waiting));
    out.resize(old + static_cast<size_t>(std::max(count, 0)));
  }
}

bool TlsSession::established() const { return SSL_is_init_finished(ssl_.get()) == 1; }

}  // namespace quern
