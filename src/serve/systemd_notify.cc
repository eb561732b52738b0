#include "serve/systemd_notify.h"

#include <charconv>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace quern {

SystemdNotifier::SystemdNotifier(std::string socket,
                                 std::string_view watchdog_us,
                                 const Clock& clock)
    : clock_(clock), socket_(std::move(socket)) {
  constexpr int64_t kMostUs = int64_t{1} << 40;
  if (socket_.empty() || socket_.size() >= sizeof(sockaddr_un::sun_path)) return;
  fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int64_t us = 0;
  const char* end = watchdog_us.data() + watchdog_us.size();
  const auto parsed = std::from_chars(watchdog_us.data(), end, us);
  if (parsed.ec == std::errc() && parsed.ptr == end && us > 0 && us < kMostUs) {
    period_ns_ = us * 1000 / 3;
  }
}

SystemdNotifier::~SystemdNotifier() {
  if (fd_ >= 0) ::close(fd_);
}

void SystemdNotifier::ready() { send("READY=1"); }

void SystemdNotifier::stopping() { send("STOPPING=1"); }

void SystemdNotifier::alive() {
  const int64_t now_ns = clock_.now_ns();
  if (period_ns_ == 0 || (last_ns_ != 0 && now_ns - last_ns_ < period_ns_)) return;
  last_ns_ = now_ns;
  send("WATCHDOG=1");
}

void SystemdNotifier::send(std::string_view state) {
  if (fd_ < 0) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // an abstract name
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  // Nobody can be told when this fails; systemd's own watchdog then speaks.
  (void)::sendto(fd_, state.data(), state.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), size);
}

}  // namespace quern
