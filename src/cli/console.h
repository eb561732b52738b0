// What people and programs read: tables on standard output, or one JSON object with --json.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "base/result.h"

namespace quern {

// Exit statuses beside those of exit_status().
inline constexpr int kExitWorld = 10;  // a disk, the memory, a network or a child process failed
inline constexpr int kExitInterrupted = 130;  // Ctrl-C, as shells report it

// 2 to 8, one for each code.
int exit_status(ErrorCode code);

// Thrown by check_interrupt(); ends the program with kExitInterrupted.
struct Interrupted {};

// Throws Interrupted once Ctrl-C was pressed.
void check_interrupt();

enum class OutputFormat { kTable, kJson };

// Flags that every command shares.
struct ConsoleOptions {
  bool json = false;
  bool quiet = false;

  OutputFormat format() const { return json ? OutputFormat::kJson : OutputFormat::kTable; }

  ProgressOutput progress() const {
    return quiet ? ProgressOutput::kNone : ProgressOutput::kStderr;
  }
};

void add_console_options(CLI::App& app, ConsoleOptions* options);

void print_json(const nlohmann::ordered_json& object);

enum class Align { kLeft, kRight };

// Columns as wide as their widest cell, numbers to the right.
class Table {
 public:
  explicit Table(std::vector<std::pair<std::string, Align>> columns);

  // Requires one cell for each column.
  void add(std::vector<std::string> cells);

  std::string text() const;

 private:
  std::vector<std::pair<std::string, Align>> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "98.4 MB", "1.12 GB": powers of ten.
std::string format_bytes(double bytes);

// "49,152"
std::string format_count(int64_t count);

// "8GiB", "500MB", "1048576" as bytes. Errors: kInvalidArgument naming the text.
Result<uint64_t> parse_bytes(const std::string& text);

}  // namespace quern
