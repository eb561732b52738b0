#include <iostream>
#include <iterator>
#include <memory>

#include <fmt/format.h>

#include "base/file.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/session.h"
#include "cli/store.h"

namespace quern {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

struct TokenizeOptions {
  ConsoleOptions console;
  std::string model;
  std::string text_file;
  bool special = false;
  bool add_special = false;
};

Result<std::string> read_text(const std::string& file) {
  if (!file.empty()) return read_file(file, kMaxTextBytes);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

// One line a token: id, and its bytes with control characters escaped.
std::string listing(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::string out;
  for (const int32_t id : ids) {
    const std::string bytes(tokenizer.token_bytes(id));
    const std::string quoted =
        nlohmann::json(bytes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    out += fmt::format("{:>8}  {}\n", id, quoted);
  }
  return out;
}

Result<Unit> run_tokenize(const TokenizeOptions& options) {
  const auto path = QUERN_TRY(resolve_model(options.model));
  const auto tokenizer = QUERN_TRY(open_tokenizer(path));
  const std::string text = QUERN_TRY(read_text(options.text_file));
  const SpecialTokens special = options.special ? SpecialTokens::kParse : SpecialTokens::kAsText;
  const std::vector<int32_t> ids = options.add_special
                                       ? tokenizer->encode_with_template(text, special)
                                       : tokenizer->encode(text, special);
  if (options.console.json) {
    print_json({{"token_ids", ids}});
  } else {
    fmt::print("{}{} tokens\n", listing(*tokenizer, ids), format_count(std::ssize(ids)));
  }
  return Unit{};
}

}  // namespace

Action declare_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  app.add_option("model", options->model, "Directory, GGUF file or fetched name")->required();
  app.add_option("--text", options->text_file, "Text file (default: standard input)");
  app.add_flag("--special", options->special, "Special tokens in the text become their ids");
  app.add_flag("--add-special", options->add_special,
               "Put in front and behind what the tokenizer's template adds (BOS, EOS)");
  add_console_options(app, &options->console);
  return [options] { return run_tokenize(*options); };
}

}  // namespace quern
