#include "serve/log_writer.h"

#include <csignal>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace quern {
namespace {

struct Pipe {
  Pipe() { EXPECT_EQ(pipe(ends), 0); }

  ~Pipe() {
    close(ends[0]);
    close(ends[1]);
  }

  std::string read_some() {
    std::string text(1 << 16, '\0');
    text.resize(static_cast<size_t>(read(ends[0], text.data(), text.size())));
    return text;
  }

  int ends[2];
};

TEST(LogWriter, WritesLinesInOrder) {
  Pipe pipe;
  LogWriter log(pipe.ends[1]);
  log.write("one");
  log.write("two");
  log.drain();
  EXPECT_EQ(pipe.read_some(), "one\ntwo\n");
  EXPECT_EQ(log.dropped(), 0);
}

TEST(LogWriter, DropsRatherThanWaitsWhenNobodyReads) {
  Pipe pipe;
  fcntl(pipe.ends[1], F_SETPIPE_SZ, 4096);
  LogWriter log(pipe.ends[1], 10);
  const std::string line(4000, 'x');
  for (int i = 0; i < 100; ++i) log.write(line);
  EXPECT_GE(log.dropped(), 80);
}

TEST(LogWriter, CountsLinesThatAFailingFileLoses) {
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  Pipe pipe;
  close(std::exchange(pipe.ends[0], -1));
  LogWriter log(pipe.ends[1]);
  log.write("lost");
  log.drain();
  EXPECT_EQ(log.dropped(), 1);
}

TEST(LogWriter, WritesTheRestBeforeItEnds) {
  Pipe pipe;
  { LogWriter(pipe.ends[1]).write("last"); }
  EXPECT_EQ(pipe.read_some(), "last\n");
}

}  // namespace
}  // namespace quern
