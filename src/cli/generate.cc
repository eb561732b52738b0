#include "engine/generate.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/conversation.h"
#include "cli/sampling_options.h"
#include "cli/session.h"
#include "cli/store.h"

namespace quern {
namespace {

constexpr int64_t kPrefillRows = 512;

struct GenerateOptions {
  ConsoleOptions console;
  RunOptions run;
  SamplingOptions sampling;
  std::string model;
  std::string prompt;
  std::string system;
  std::vector<std::string> stop;
  bool chat = false;
  bool ignore_eos = false;
  int64_t max_tokens = 128;
};

Result<std::vector<int32_t>> prompt_tokens(const GenerateOptions& options,
                                           const std::filesystem::path& path,
                                           const Tokenizer& tokenizer) {
  if (!options.chat) {
    std::vector<int32_t> ids =
        tokenizer.encode_with_template(options.prompt, SpecialTokens::kParse);
    // A model needs at least one token to go on from.
    if (ids.empty() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
    return ids;
  }
  const Conversation conversation = QUERN_TRY(Conversation::open(path, tokenizer));
  std::vector<Message> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  messages.push_back({"user", options.prompt});
  return conversation.encode(messages, tokenizer);
}

nlohmann::ordered_json to_json(const Completion& completion) {
  const Usage& usage = completion.usage;
  return {{"text", completion.text},
          {"token_ids", completion.tokens},
          {"finish_reason", finish_reason_name(completion.reason)},
          {"usage",
           {{"prompt_tokens", usage.prompt_tokens},
            {"completion_tokens", usage.completion_tokens},
            {"total_tokens", usage.prompt_tokens + usage.completion_tokens}}}};
}

void print_speed(const Completion& completion) {
  const Timing& t = completion.timing;
  const double first = static_cast<double>(t.first_token_ns - t.submitted_ns) * 1e-9;
  const double rest = static_cast<double>(t.finished_ns - t.first_token_ns) * 1e-9;
  const int64_t tokens = completion.usage.completion_tokens;
  fmt::print(stderr, "[{} prompt tokens, first token after {:.0f} ms",
             completion.usage.prompt_tokens, first * 1e3);
  if (tokens > 1 && rest > 0) {
    fmt::print(stderr, "; {} tokens at {:.1f} tokens/s", tokens,
               static_cast<double>(tokens - 1) / rest);
  }
  fmt::print(stderr, "; {}]\n", finish_reason_name(completion.reason));
}

Result<Unit> run_generate(const GenerateOptions& options) {
  const auto path = QUERN_TRY(resolve_model(options.model));
  const auto tokenizer = QUERN_TRY(open_tokenizer(path));
  const std::vector<int32_t> prompt = QUERN_TRY(prompt_tokens(options, path, *tokenizer));
  const auto backend = QUERN_TRY(open_backend(options.run));
  const int64_t total = std::ssize(prompt) + options.max_tokens;
  const LoadOptions load{.precision = precision_by_name(options.run.precision),
                         .head = head_format(options.run),
                         .limits = {.max_batch_tokens = kPrefillRows,
                                    .max_logit_rows = 1,
                                    .kv_blocks = kv_blocks_for(1, total + 1),
                                    .kv_dtype = kv_dtype(options.run)}};
  const Session session = QUERN_TRY(load_session(options.model, *backend, load, options.console));
  Request request{.prompt = prompt,
                  .sampling = QUERN_TRY(sampling_params(options.sampling, *session.checkpoint)),
                  .max_tokens = options.max_tokens,
                  .stop = options.stop,
                  .stop_tokens = stop_tokens(session.model->spec(), *tokenizer),
                  .eos = options.ignore_eos ? EosTokens::kIgnore : EosTokens::kStop};
  if (options.ignore_eos) request.stop_tokens.clear();
  const SteadyClock clock;
  Engine engine(*session.model, tokenizer.get(), {}, clock);
  const Completion completion =
      QUERN_TRY(generate(engine, std::move(request), [&](size_t, const TokenEvent& event) {
        check_interrupt();
        if (!options.console.json) {
          fmt::print("{}", event.text);
          std::fflush(stdout);
        }
        return GenerateFlow::kContinue;
      }));
  if (completion.reason == FinishReason::kError) {
    return Error{ErrorCode::kInvalidArgument, completion.error};
  }
  if (options.console.json) {
    print_json(to_json(completion));
  } else {
    fmt::print("\n");
    if (!options.console.quiet) print_speed(completion);
  }
  return Unit{};
}

}  // namespace

Action declare_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  app.add_option("model", options->model, "Directory, GGUF file or fetched name")->required();
  app.add_option("--prompt", options->prompt, "What to complete")->required();
  app.add_flag("--chat", options->chat, "The prompt is a user's message: apply the chat template");
  app.add_option("--system", options->system, "With --chat: the system message");
  app.add_option("--max-tokens", options->max_tokens, "At most this many new tokens")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--stop", options->stop, "Text that ends the answer; may be given again");
  app.add_flag("--ignore-eos", options->ignore_eos, "Go on past the model's own end");
  add_sampling_options(app, &options->sampling);
  add_run_options(app, &options->run);
  add_console_options(app, &options->console);
  return [options] { return run_generate(*options); };
}

}  // namespace quern
