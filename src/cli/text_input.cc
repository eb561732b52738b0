#include "cli/text_input.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "engine/generate.h"

namespace quern {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 32;

// The text of one line of a JSON-lines file.
Result<std::string> line_text(const Json& line, const std::string& source) {
  if (line.is_object()) {
    const JsonObject object(line, source);
    if (object.find("text") != nullptr) return object.string("text");
    const Json* messages = object.find("messages");
    if (messages != nullptr && messages->is_array()) {
      std::string text;
      for (const Json& message : *messages) {
        if (!message.is_object()) break;
        text += QUERN_TRY(JsonObject(message, source).string("content")) + "\n";
      }
      return text;
    }
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: expected an object with \"text\" or \"messages\"", source)};
}

Result<std::vector<int32_t>> json_lines_ids(const std::string& content,
                                            const std::string& file,
                                            const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  int64_t number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string_view line(content.data() + begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string source = fmt::format("{}:{}", file, number);
    const Json json = QUERN_TRY(parse_json(line, source));
    const std::vector<int32_t> more =
        tokenizer.encode(QUERN_TRY(line_text(json, source)), SpecialTokens::kAsText);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

}  // namespace

Result<std::vector<int32_t>> read_token_ids(const std::filesystem::path& file,
                                            const Tokenizer& tokenizer) {
  const std::string content = QUERN_TRY(read_file(file, kMaxTextBytes));
  const std::string name = file.string();
  std::vector<int32_t> ids = file.extension() == ".jsonl"
                                 ? QUERN_TRY(json_lines_ids(content, name, tokenizer))
                                 : tokenizer.encode(content, SpecialTokens::kAsText);
  if (ids.empty()) return Error{ErrorCode::kInvalidArgument, fmt::format("{}: no text", name)};
  return ids;
}

std::vector<std::vector<int32_t>> spaced_windows(const std::vector<int32_t>& ids,
                                                 int64_t count,
                                                 int64_t length) {
  const int64_t whole = std::ssize(ids) / length;
  count = std::min(count, whole);
  std::vector<std::vector<int32_t>> windows;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = count == 1 ? 0 : i * (std::ssize(ids) - length) / (count - 1);
    windows.emplace_back(ids.begin() + begin, ids.begin() + begin + length);
  }
  return windows;
}

namespace {

// Where window `index` begins: at BOS, or at a token drawn from the vocabulary.
int32_t first_token(const ModelSpec& spec, uint64_t seed, int64_t index) {
  if (spec.bos_token) return *spec.bos_token;
  const uint64_t bits = random_bits(seed, 0, static_cast<uint64_t>(index));
  return static_cast<int32_t>(bits % static_cast<uint64_t>(spec.vocabulary));
}

}  // namespace

Result<std::vector<std::vector<int32_t>>> self_generated_windows(Model& model,
                                                                 const SelfTextOptions& options,
                                                                 const ConsoleOptions& console) {
  const SteadyClock clock;
  Engine engine(model, nullptr, {.max_waiting = options.windows}, clock);
  std::vector<Request> requests;
  for (int64_t i = 0; i < options.windows; ++i) {
    requests.push_back({.prompt = {first_token(model.spec(), options.seed, i)},
                        .sampling = {.seed = options.seed, .stream = static_cast<uint64_t>(i)},
                        .max_tokens = options.length - 1,
                        .eos = EosTokens::kIgnore});
  }
  std::vector<std::vector<int32_t>> windows;
  windows.reserve(requests.size());
  for (const Request& request : requests) windows.push_back(request.prompt);
  if (options.length < 2) return windows;
  Progress progress("write own text", options.windows * options.length, "tokens", clock,
                    console.progress());
  int64_t tokens = 0;
  const auto completions =
      QUERN_TRY(generate_all(engine, std::move(requests), [&](size_t, const TokenEvent&) {
        check_interrupt();
        progress.update(++tokens);
        return GenerateFlow::kContinue;
      }));
  for (size_t i = 0; i < completions.size(); ++i) {
    const Completion& completion = completions[i];
    if (completion.reason == FinishReason::kError) {
      return Error{ErrorCode::kInvalidArgument, completion.error};
    }
    windows[i].insert(windows[i].end(), completion.tokens.begin(), completion.tokens.end());
  }
  return windows;
}

}  // namespace quern
