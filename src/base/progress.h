// A progress bar with the time left, on standard error: redrawn in place on a terminal, a line
// every ten percent elsewhere, silent when told to be.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace quern {

enum class ProgressOutput { kStderr, kNone };

class Progress {
 public:
  // `unit` names what is counted ("layers", "tokens"); "bytes" is shown in MB. The clock is
  // borrowed.
  Progress(std::string title,
           int64_t total,
           std::string unit,
           const Clock& clock,
           ProgressOutput output);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the line

  void update(int64_t done);

  // Shown behind the figures, e.g. the name of the current layer.
  void note(std::string text) { note_ = std::move(text); }

 private:
  void draw(int64_t now_ns);

  std::string title_, unit_, note_;
  int64_t total_;
  int64_t done_ = 0;
  int64_t first_done_ = -1;  // work already there when the bar started, e.g. after a resume
  const Clock& clock_;
  int64_t start_ns_;
  int64_t drawn_ns_ = 0;
  int64_t drawn_done_ = -1;
  int64_t drawn_tenth_ = -1;
  bool terminal_;
  bool silent_;
};

}  // namespace quern
