// What commands that run a model have in common: its flags, its tokenizer, its loading.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/console.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace quern {

// How to run: flags that mean the same in every command.
struct RunOptions {
  int threads = 0;  // 0: every core
  std::string isa;  // empty: the best of the machine
  std::string backend = "cpu";
  std::string precision = "fast";  // a key of precision_by_name()
  std::string head = "auto";       // auto, stored or int8
  std::string kv;                  // empty: int8 when fast, else f32
};

void add_run_options(CLI::App& app, RunOptions* options);

Precision precision_by_name(const std::string& name);  // requires fast, bf16 or float32
HeadFormat head_format(const RunOptions& options);
KvDType kv_dtype(const RunOptions& options);
std::string kv_dtype_name(KvDType dtype);

Result<std::unique_ptr<Backend>> open_backend(const RunOptions& options);

// The tokenizer of a directory or a GGUF file.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::filesystem::path& model);

// The text of the model's chat template. Errors: kNotFound when it has none.
Result<std::string> open_chat_template(const std::filesystem::path& model);

// Tokens that end a text: those of generation_config.json and config.json, then the tokenizer's.
std::vector<int32_t> stop_tokens(const ModelSpec& spec, const Tokenizer& tokenizer);

// A checkpoint and the model loaded from it.
struct Session {
  std::filesystem::path path;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Model> model;
  LoadReport report;
};

// Finds, opens and packs the model named `name`, with a progress bar.
Result<Session> load_session(const std::string& name,
                             Backend& backend,
                             const LoadOptions& load,
                             const ConsoleOptions& console);

// Errors: kInvalidArgument, naming both, when their answers cannot be compared token by token.
Result<Unit> check_same_vocabulary(const Session& a, const Session& b);

// Cache blocks for `sequences` sequences of up to `tokens` tokens each.
int64_t kv_blocks_for(int64_t sequences, int64_t tokens);

}  // namespace quern
