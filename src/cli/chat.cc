#include <algorithm>
#include <iostream>
#include <memory>

#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/conversation.h"
#include "cli/sampling_options.h"
#include "cli/session.h"
#include "cli/store.h"
#include "engine/generate.h"

namespace quern {
namespace {

constexpr int64_t kPrefillRows = 512;

struct ChatOptions {
  ConsoleOptions console;
  RunOptions run;
  SamplingOptions sampling;
  std::string model;
  std::string system;
  int64_t max_tokens = 1024;
  int64_t context = 8192;
};

// What a chat holds for as long as it lasts.
struct Chat {
  const ChatOptions& options;
  Session& session;
  const Tokenizer& tokenizer;
  const Conversation& conversation;
  Engine& engine;
  std::vector<Message> messages;

  void reset() {
    messages.clear();
    if (!options.system.empty()) messages.push_back({"system", options.system});
  }
};

constexpr const char* kHelp =
    "  /new      forget the conversation\n"
    "  /system TEXT   start again with this system message\n"
    "  /help     this list\n"
    "  /exit     leave (also Ctrl-D)\n";

// One answer, streamed. Errors end the chat only when the engine refuses the conversation outright.
Result<Unit> answer(Chat& chat) {
  const std::vector<int32_t> prompt =
      QUERN_TRY(chat.conversation.encode(chat.messages, chat.tokenizer));
  const int64_t room = chat.engine.max_request_tokens() - std::ssize(prompt);
  if (room < 1) {
    return Error{
        ErrorCode::kExhausted,
        fmt::format("the conversation has {} tokens and the context {}; /new starts again, "
                    "--context makes room",
                    prompt.size(), chat.engine.max_request_tokens())};
  }
  Request request{
      .prompt = prompt,
      .sampling = QUERN_TRY(sampling_params(chat.options.sampling, *chat.session.checkpoint)),
      .max_tokens = std::min(chat.options.max_tokens, room),
      .stop_tokens = stop_tokens(chat.session.model->spec(), chat.tokenizer)};
  const Completion completion =
      QUERN_TRY(generate(chat.engine, std::move(request), [&](size_t, const TokenEvent& event) {
        check_interrupt();
        fmt::print("{}", event.text);
        std::fflush(stdout);
        return GenerateFlow::kContinue;
      }));
  fmt::print("\n");
  if (completion.reason == FinishReason::kError) {
    return Error{ErrorCode::kInvalidArgument, completion.error};
  }
  const Timing& t = completion.timing;
  const double seconds = static_cast<double>(t.finished_ns - t.first_token_ns) * 1e-9;
  if (!chat.options.console.quiet && seconds > 0) {
    fmt::print(stderr, "[{} tokens, {:.1f} tokens/s, context {} of {}]\n",
               completion.usage.completion_tokens,
               static_cast<double>(completion.usage.completion_tokens) / seconds,
               completion.usage.prompt_tokens + completion.usage.completion_tokens,
               chat.engine.max_request_tokens());
  }
  chat.messages.push_back({"assistant", completion.text});
  return Unit{};
}

enum class LineResult { kGoOn, kLeave };

LineResult handle(Chat& chat, const std::string& line) {
  if (line.empty()) return LineResult::kGoOn;
  if (line == "/exit" || line == "/quit") return LineResult::kLeave;
  if (line == "/help") {
    fmt::print(stderr, "{}", kHelp);
  } else if (line == "/new") {
    chat.reset();
  } else if (line.starts_with("/system ")) {
    chat.messages = {{"system", line.substr(8)}};
  } else if (line[0] == '/') {
    fmt::print(stderr, "{}: no such command\n{}", line, kHelp);
  } else {
    chat.messages.push_back({"user", line});
    const Result<Unit> answered = answer(chat);
    if (!answered) {
      chat.messages.pop_back();
      fmt::print(stderr, "quern: {}\n", answered.error().message);
    }
  }
  return LineResult::kGoOn;
}

Result<Unit> run_chat(const ChatOptions& options) {
  const auto path = QUERN_TRY(resolve_model(options.model));
  const auto tokenizer = QUERN_TRY(open_tokenizer(path));
  const Conversation conversation = QUERN_TRY(Conversation::open(path, *tokenizer));
  const auto backend = QUERN_TRY(open_backend(options.run));
  const LoadOptions load{.precision = precision_by_name(options.run.precision),
                         .head = head_format(options.run),
                         .limits = {.max_batch_tokens = kPrefillRows,
                                    .max_logit_rows = 1,
                                    .kv_blocks = kv_blocks_for(1, options.context),
                                    .kv_dtype = kv_dtype(options.run)}};
  Session session = QUERN_TRY(load_session(options.model, *backend, load, options.console));
  const SteadyClock clock;
  Engine engine(*session.model, tokenizer.get(), {}, clock);
  Chat chat{options, session, *tokenizer, conversation, engine, {}};
  chat.reset();
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (terminal) fmt::print(stderr, "{}: /help lists commands, Ctrl-D leaves\n", options.model);
  std::string line;
  while (true) {
    if (terminal) fmt::print(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (handle(chat, line) == LineResult::kLeave) break;
    check_interrupt();
  }
  check_interrupt();
  return Unit{};
}

}  // namespace

Action declare_chat(CLI::App& app) {
  auto options = std::make_shared<ChatOptions>();
  app.add_option("model", options->model, "Directory, GGUF file or fetched name")->required();
  app.add_option("--system", options->system, "System message");
  app.add_option("--max-tokens", options->max_tokens, "At most this many tokens an answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--context", options->context, "Tokens of conversation to keep room for")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 24))
      ->capture_default_str();
  add_sampling_options(app, &options->sampling);
  add_run_options(app, &options->run);
  app.add_flag("-q,--quiet", options->console.quiet, "No progress and no speed on standard error");
  return [options] { return run_chat(*options); };
}

}  // namespace quern
