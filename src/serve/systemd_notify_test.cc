#include "serve/systemd_notify.h"

#include <cstring>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace quern {
namespace {

// The manager's side: a datagram socket at a path.
class Manager {
 public:
  explicit Manager(std::string path) : path_(std::move(path)) {
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    unlink(path_.c_str());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }

  ~Manager() {
    close(fd_);
    unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }

  std::string next() {
    char text[64];
    const ssize_t count = recv(fd_, text, sizeof(text), 0);
    return count < 0 ? "nothing" : std::string(text, static_cast<size_t>(count));
  }

 private:
  std::string path_;
  int fd_;
};

TEST(SystemdNotifier, TellsHowTheServiceIs) {
  Manager manager(testing::TempDir() + "quern-notify-" + std::to_string(::getpid()));
  ManualClock clock;
  clock.advance_ns(1);
  SystemdNotifier notifier(manager.path(), "30000000", clock);
  notifier.ready();
  EXPECT_EQ(manager.next(), "READY=1");
  notifier.alive();
  EXPECT_EQ(manager.next(), "WATCHDOG=1");
  clock.advance_ns(9'999'999'999);
  notifier.alive();
  EXPECT_EQ(manager.next(), "nothing");
  clock.advance_ns(1);
  notifier.alive();
  EXPECT_EQ(manager.next(), "WATCHDOG=1");
  notifier.stopping();
  EXPECT_EQ(manager.next(), "STOPPING=1");
}

TEST(SystemdNotifier, SaysNothingOfTheWatchdogUnasked) {
  for (const char* period : {"", "0", "-1", "soon", "99999999999999999999"}) {
    Manager manager(testing::TempDir() + "quern-notify-" + std::to_string(::getpid()));
    ManualClock clock;
    SystemdNotifier notifier(manager.path(), period, clock);
    notifier.alive();
    EXPECT_EQ(manager.next(), "nothing") << period;
  }
}

TEST(SystemdNotifier, IsSilentWithoutASocket) {
  ManualClock clock;
  SystemdNotifier none("", "30000000", clock);
  none.ready();
  SystemdNotifier too_long(std::string(200, 'x'), "", clock);
  too_long.ready();
}

}  // namespace
}  // namespace quern
