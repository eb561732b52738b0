// Reads tiktoken files: a line of base64 and a rank for each token. The file holds neither special
// tokens nor the expression; both follow from the family, which the number of ranks tells.
#include <array>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "text/bpe.h"
#include "text/tokenizer_base64.h"
#include "text/tokenizer_spec.h"

namespace quern {
namespace {

constexpr int32_t kLlama3Ranks = 128'000;
constexpr int32_t kLlama4Ranks = 200'000;
constexpr int32_t kQwenRanks = 151'643;

std::vector<std::string> reserved(std::string_view prefix, int first, int count) {
  std::vector<std::string> names;
  for (int i = first; i < first + count; ++i)
    names.push_back(fmt::format("<|{}reserved_special_token_{}|>", prefix, i));
  return names;
}

void append(std::vector<std::string>& names, const std::vector<std::string>& more) {
  names.insert(names.end(), more.begin(), more.end());
}

std::vector<std::string> llama3_special_tokens() {
  std::vector<std::string> names = {"<|begin_of_text|>",
                                    "<|end_of_text|>",
                                    "<|reserved_special_token_0|>",
                                    "<|reserved_special_token_1|>",
                                    "<|finetune_right_pad_id|>",
                                    "<|step_id|>",
                                    "<|start_header_id|>",
                                    "<|end_header_id|>",
                                    "<|eom_id|>",
                                    "<|eot_id|>",
                                    "<|python_tag|>",
                                    "<|image|>"};
  append(names, reserved("", 2, 256 - static_cast<int>(names.size())));
  return names;
}

std::vector<std::string> llama4_special_tokens() {
  constexpr int kCount = 2048;
  std::vector<std::string> names = {
      "<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
      "<|header_start|>",  "<|header_end|>",  "<|eom|>",        "<|eot|>",        "<|step|>"};
  append(names, reserved("text_post_train_", 0, 6));
  append(names, {"<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"});
  append(names, reserved("text_post_train_", 8, 61));
  append(names, {"<|image_start|>", "<|image_end|>"});
  append(names, reserved("vision_", 0, 2));
  append(names, {"<|tile_x_separator|>", "<|tile_y_separator|>"});
  append(names, reserved("vision_", 2, 4));
  append(names, {"<|image|>"});
  append(names, reserved("vision_", 6, 1));
  append(names, {"<|patch|>"});
  append(names, reserved("vision_", 7, 1041));
  append(names, reserved("reasoning_", 0, 8));
  append(names, {"<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"});
  append(names, reserved("", 0, kCount - static_cast<int>(names.size())));
  return names;
}

std::vector<std::string> qwen_special_tokens() {
  std::vector<std::string> names = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (int i = 0; i < 205; ++i) names.push_back(fmt::format("<|extra_{}|>", i));
  return names;
}

class TiktokenReader {
 public:
  explicit TiktokenReader(std::string_view source) { spec_.source = std::string(source); }

  Result<TokenizerSpec> read(std::string_view text) {
    size_t line = 0;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      QUERN_TRY(read_line(text.substr(0, end), ++line));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    spec_.vocabulary.index();
    if (!has_byte_alphabet(spec_.vocabulary))
      return malformed("is no tiktoken file: not every byte has a rank");
    QUERN_TRY(set_family());
    std::vector<int32_t> ranks(static_cast<size_t>(spec_.vocabulary.size()));
    for (size_t id = 0; id < ranks.size(); ++id) ranks[id] = static_cast<int32_t>(id);
    Result<std::vector<Merge>> merges = merges_of_ranks(spec_.vocabulary, ranks);
    if (!merges) return malformed(merges.error().message);
    spec_.merges = std::move(*merges);
    spec_.ignore_merges = true;
    spec_.decoder = byte_level_step(true);
    return std::move(spec_);
  }

 private:
  Error malformed(const std::string& what) const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", spec_.source, what)};
  }

  Result<Unit> read_line(std::string_view line, size_t number) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) return Unit{};
    const size_t space = line.find(' ');
    const std::optional<std::string> token = decode_base64(line.substr(0, space));
    const std::string_view digits =
        space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    constexpr size_t kMaxDigits = 9;
    int64_t rank = digits.empty() || digits.size() > kMaxDigits ? -1 : 0;
    for (const char c : digits) {
      if (rank < 0) break;
      rank = c >= '0' && c <= '9' ? rank * 10 + (c - '0') : -1;
    }
    if (!token || token->empty() || rank < 0) {
      return malformed(fmt::format(
          "line {} is no tiktoken entry; base64, a space and a rank are needed", number));
    }
    const Result<Unit> added = spec_.vocabulary.add(rank, to_byte_alphabet(*token));
    if (!added) return malformed(fmt::format("line {}: {}", number, added.error().message));
    return Unit{};
  }

  Result<Unit> set_family() {
    const int32_t ranks = spec_.vocabulary.size();
    if (ranks == kLlama3Ranks) {
      set(expressions::kLlama3, llama3_special_tokens(),
          {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"});
    } else if (ranks == kLlama4Ranks) {
      set(expressions::kO200k, llama4_special_tokens(), {"<|end_of_text|>", "<|eot|>", "<|eom|>"});
    } else if (ranks == kQwenRanks) {
      spec_.normalizer = {{"type", "NFC"}};
      set(expressions::kQwen2, qwen_special_tokens(), {"<|im_end|>", "<|endoftext|>"});
    } else {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{}: a tiktoken file of {} ranks; known are {} (Llama 3), {} (Llama "
                               "4) and {} (Qwen)",
                               spec_.source, ranks, kLlama3Ranks, kLlama4Ranks, kQwenRanks)};
    }
    return Unit{};
  }

  void set(std::string_view expression,
           const std::vector<std::string>& special,
           const std::vector<std::string>& eos) {
    spec_.pre_tokenizer =
        sequence_step("pretokenizers", {split_step(expression), byte_level_step(false)});
    int32_t id = spec_.vocabulary.size();
    for (const std::string& name : special) {
      AddedToken token;
      token.id = id++;
      token.content = name;
      token.special = true;
      if (name == "<|begin_of_text|>") spec_.bos = token.id;
      spec_.added.push_back(std::move(token));
    }
    for (const std::string& name : eos) {
      for (const AddedToken& token : spec_.added) {
        if (token.content == name) spec_.eos.push_back(token.id);
      }
    }
    spec_.post_processor = template_processing(spec_, spec_.bos, std::nullopt);
  }

  TokenizerSpec spec_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_tiktoken(std::string_view text,
                                                            std::string_view source) {
  return make_tokenizer(QUERN_TRY(TiktokenReader(source).read(text)));
}

}  // namespace quern
