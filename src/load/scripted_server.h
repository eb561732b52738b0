// A server for tests: a thread for each connection, and answers as a function of the request.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace quern {

struct ScriptedAnswer {
  enum class Then : uint8_t { kKeepOpen, kClose, kHang };
  std::string bytes;  // head and body
  Then then = Then::kKeepOpen;
};

class ScriptedServer {
 public:
  using Script = std::function<ScriptedAnswer(const std::string& head, const std::string& body)>;

  explicit ScriptedServer(Script script) : script_(std::move(script)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_, 128);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }

  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  ~ScriptedServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : open_) close(fd);
  }

  uint16_t port() const { return port_; }

  int connections() const { return connections_; }

 private:
  void accept_all() {
    while (true) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      ++connections_;
      const std::lock_guard lock(mutex_);
      open_.push_back(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }

  void serve(int fd) {
    std::string input;
    const auto more = [&] {
      char buffer[4096];
      const ssize_t count = recv(fd, buffer, sizeof(buffer), 0);
      if (count > 0) input.append(buffer, static_cast<size_t>(count));
      return count > 0;
    };
    while (true) {
      size_t end = 0;
      while ((end = input.find("\r\n\r\n")) == std::string::npos) {
        if (!more()) return;
      }
      const std::string head = input.substr(0, end + 4);
      const size_t field = head.find("Content-Length: ");
      const size_t length = field == std::string::npos ? 0 : std::stoul(head.substr(field + 16));
      while (input.size() < end + 4 + length) {
        if (!more()) return;
      }
      const ScriptedAnswer answer = script_(head, input.substr(end + 4, length));
      input.erase(0, end + 4 + length);
      if (send(fd, answer.bytes.data(), answer.bytes.size(), MSG_NOSIGNAL) < 0) return;
      if (answer.then == ScriptedAnswer::Then::kClose) shutdown(fd, SHUT_RDWR);
      if (answer.then != ScriptedAnswer::Then::kKeepOpen) {
        while (more()) {
        }
        return;
      }
    }
  }

  Script script_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<int> connections_{0};
  std::mutex mutex_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;  // one for each connection
  std::thread acceptor_;
};

}  // namespace quern
