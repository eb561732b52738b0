#include "cli/session.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"
#include "base/clock.h"
#include "cli/store.h"
#include "tensor/gguf.h"
#include "text/chat_template.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

bool is_gguf(const fs::path& model) { return fs::is_regular_file(model); }

std::vector<std::string> owned(std::span<const std::string_view> views) {
  return {views.begin(), views.end()};
}

// An id of the metadata, empty when it is absent.
Result<std::optional<int32_t>> token_id(const GgufFile& file, const char* key) {
  if (file.find(key) == nullptr) return std::optional<int32_t>();
  const int64_t id = QUERN_TRY(file.integer(key, std::nullopt, 0, INT32_MAX));
  return std::optional<int32_t>(static_cast<int32_t>(id));
}

Result<std::optional<bool>> flag(const GgufFile& file, const char* key) {
  if (file.find(key) == nullptr) return std::optional<bool>();
  return std::optional<bool>(QUERN_TRY(file.boolean(key)));
}

Result<GgufVocabulary> read_vocabulary(const GgufFile& file) {
  GgufVocabulary vocabulary;
  vocabulary.source = file.source();
  vocabulary.model = QUERN_TRY(file.string("tokenizer.ggml.model"));
  vocabulary.pre = QUERN_TRY(file.string("tokenizer.ggml.pre", ""));
  vocabulary.tokens = owned(QUERN_TRY(file.strings("tokenizer.ggml.tokens")));
  if (file.find("tokenizer.ggml.merges") != nullptr) {
    vocabulary.merges = owned(QUERN_TRY(file.strings("tokenizer.ggml.merges")));
  }
  if (file.find("tokenizer.ggml.scores") != nullptr) {
    for (const double score : QUERN_TRY(file.numbers("tokenizer.ggml.scores"))) {
      vocabulary.scores.push_back(static_cast<float>(score));
    }
  }
  if (file.find("tokenizer.ggml.token_type") != nullptr) {
    for (const int64_t type : QUERN_TRY(file.integers("tokenizer.ggml.token_type"))) {
      vocabulary.types.push_back(static_cast<int32_t>(type));
    }
  }
  vocabulary.bos = QUERN_TRY(token_id(file, "tokenizer.ggml.bos_token_id"));
  vocabulary.eos = QUERN_TRY(token_id(file, "tokenizer.ggml.eos_token_id"));
  vocabulary.unk = QUERN_TRY(token_id(file, "tokenizer.ggml.unknown_token_id"));
  vocabulary.pad = QUERN_TRY(token_id(file, "tokenizer.ggml.padding_token_id"));
  vocabulary.add_bos = QUERN_TRY(flag(file, "tokenizer.ggml.add_bos_token"));
  vocabulary.add_eos = QUERN_TRY(flag(file, "tokenizer.ggml.add_eos_token"));
  vocabulary.add_space_prefix = QUERN_TRY(flag(file, "tokenizer.ggml.add_space_prefix"));
  return vocabulary;
}

}  // namespace

void add_run_options(CLI::App& app, RunOptions* options) {
  app.add_option("--threads", options->threads, "Threads (default: every core)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--precision", options->precision,
                 "fast: as served; bf16: weights widened to BF16; float32: everything exact")
      ->check(CLI::IsMember({"fast", "bf16", "float32"}))
      ->capture_default_str();
  app.add_option("--kv", options->kv, "Numbers of the key-value cache (default: int8 when fast)")
      ->check(CLI::IsMember({"int8", "bf16", "f32"}));
  app.add_option("--head", options->head,
                 "A dense output head: stored, int8 or auto (int8 when fast and the blocks are "
                 "quantised)")
      ->check(CLI::IsMember({"auto", "stored", "int8"}))
      ->capture_default_str();
  app.add_option("--isa", options->isa, "Instruction set (default: the best of this machine)");
  app.add_option("--backend", options->backend, "cpu, or ref: the slow reference")
      ->check(CLI::IsMember({"cpu", "ref"}))
      ->capture_default_str();
}

Precision precision_by_name(const std::string& name) {
  if (name == "fast") return Precision::kFast;
  if (name == "bf16") return Precision::kBF16;
  QUERN_CHECK(name == "float32");
  return Precision::kFloat32;
}

HeadFormat head_format(const RunOptions& options) {
  if (options.head == "stored") return HeadFormat::kStored;
  return options.head == "int8" ? HeadFormat::kInt8 : HeadFormat::kAuto;
}

KvDType kv_dtype(const RunOptions& options) {
  if (options.kv == "int8") return KvDType::kInt8;
  if (options.kv == "bf16") return KvDType::kBF16;
  if (options.kv == "f32") return KvDType::kF32;
  return options.precision == "fast" ? KvDType::kInt8 : KvDType::kF32;
}

std::string kv_dtype_name(KvDType dtype) {
  switch (dtype) {
    case KvDType::kInt8:
      return "int8";
    case KvDType::kBF16:
      return "bf16";
    case KvDType::kF32:
      return "f32";
  }
  return "?";
}

Result<std::unique_ptr<Backend>> open_backend(const RunOptions& options) {
  return make_backend({.name = options.backend, .threads = options.threads, .isa = options.isa});
}

Result<std::unique_ptr<Tokenizer>> open_tokenizer(const fs::path& model) {
  if (!is_gguf(model)) return Tokenizer::from_directory(model);
  const GgufFile file = QUERN_TRY(GgufFile::open(model));
  return Tokenizer::from_gguf(QUERN_TRY(read_vocabulary(file)));
}

Result<std::string> open_chat_template(const fs::path& model) {
  if (!is_gguf(model)) return read_chat_template(model.string());
  const GgufFile file = QUERN_TRY(GgufFile::open(model));
  if (file.find("tokenizer.chat_template") == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: no chat template (tokenizer.chat_template)", model.string())};
  }
  return file.string("tokenizer.chat_template");
}

std::vector<int32_t> stop_tokens(const ModelSpec& spec, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = spec.eos_tokens;
  for (const int32_t id : tokenizer.eos_ids()) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

Result<Session> load_session(const std::string& name,
                             Backend& backend,
                             const LoadOptions& load,
                             const ConsoleOptions& console) {
  Session session;
  session.path = QUERN_TRY(resolve_model(name));
  session.checkpoint = QUERN_TRY(Checkpoint::open(session.path));
  const SteadyClock clock;
  std::unique_ptr<Progress> bar;
  const auto show = [&](uint64_t done, uint64_t total) {
    check_interrupt();
    if (!bar) {
      bar = std::make_unique<Progress>("load " + session.path.filename().string(),
                                       static_cast<int64_t>(total), "bytes", clock,
                                       console.progress());
    }
    bar->update(static_cast<int64_t>(done));
  };
  FunctionRef<void(uint64_t, uint64_t)> progress(show);
  LoadOptions options = load;
  options.progress = &progress;
  session.model = QUERN_TRY(load_model(*session.checkpoint, backend, options, &session.report));
  return session;
}

Result<Unit> check_same_vocabulary(const Session& a, const Session& b) {
  const int64_t first = a.model->spec().vocabulary;
  const int64_t second = b.model->spec().vocabulary;
  if (first == second) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} has a vocabulary of {} tokens and {} one of {}: only models of one "
                           "vocabulary can be compared",
                           a.path.string(), first, b.path.string(), second)};
}

int64_t kv_blocks_for(int64_t sequences, int64_t tokens) {
  return sequences * ((tokens + kKvBlockTokens - 1) / kKvBlockTokens);
}

}  // namespace quern
