// Ctrl-C as a flag: long work asks between steps and stops with nothing half-done.
#pragma once

namespace quern {

// Installs handlers for SIGINT and SIGTERM that set the flag; a second signal ends the process at
// once with status 130. Call once, from main.
void install_interrupt_handler();

// True once a signal arrived. Any thread.
bool interrupted();

}  // namespace quern
