// Texts for calibration and evaluation: files of plain text or JSON lines, or what the model
// writes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/session.h"
#include "text/tokenizer.h"

namespace quern {

// The ids of a whole text file, without BOS; special tokens in it are text. A file named *.jsonl
// has one object a line with a "text", or "messages" that are joined as they are, one after
// another. Errors: kNotFound, kInvalidArgument naming file and line.
Result<std::vector<int32_t>> read_token_ids(const std::filesystem::path& file,
                                            const Tokenizer& tokenizer);

// Up to `count` windows of `length` tokens, evenly spaced over `ids`, without overlap.
std::vector<std::vector<int32_t>> spaced_windows(const std::vector<int32_t>& ids,
                                                 int64_t count,
                                                 int64_t length);

struct SelfTextOptions {
  int64_t windows = 64;
  int64_t length = 512;
  uint64_t seed = 1;
};

// Windows that the model writes itself: sampled at temperature 1 from its own distribution, each
// from BOS (or a random token), so that calibration needs no text and evaluation no licence.
Result<std::vector<std::vector<int32_t>>> self_generated_windows(Model& model,
                                                                 const SelfTextOptions& options,
                                                                 const ConsoleOptions& console);

}  // namespace quern
