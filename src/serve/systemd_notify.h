// Tells systemd how the service is doing (sd_notify's protocol), when it was started by systemd.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace quern {

// One thread. Without a socket in the environment every call does nothing.
class SystemdNotifier {
 public:
  // `socket` and `watchdog_us`: NOTIFY_SOCKET and WATCHDOG_USEC, empty when they are not set.
  SystemdNotifier(std::string socket, std::string_view watchdog_us, const Clock& clock);
  SystemdNotifier(const SystemdNotifier&) = delete;
  SystemdNotifier& operator=(const SystemdNotifier&) = delete;
  ~SystemdNotifier();

  void ready();
  void stopping();

  // To be called often while all is well; passes it on three times in each watchdog period.
  void alive();

 private:
  void send(std::string_view state);

  const Clock& clock_;
  std::string socket_;
  int fd_ = -1;
  int64_t period_ns_ = 0;  // between two signs of life; 0: none are wanted
  int64_t last_ns_ = 0;
};

}  // namespace quern
