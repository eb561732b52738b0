#include "base/interrupt.h"

#include <atomic>
#include <csignal>

#include <unistd.h>

namespace quern {
namespace {

std::atomic<bool> signalled{false};  // the one process-wide fact that a handler can reach

void on_signal(int) {
  if (signalled.exchange(true)) ::_exit(130);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return signalled.load(std::memory_order_relaxed); }

}  // namespace quern
