// Tokenizers: text to token ids and back, equal to Hugging Face `tokenizers` for every byte pair
// encoding, whichever file the vocabulary came in (tokenizer.json, tokenizer.model, tiktoken,
// GGUF).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace quern {

// Whether special-token strings inside a text become their ids. Added tokens that are not special
// (a tokenizer's runs of spaces, "<tool_call>" of Qwen) always do, as in Hugging Face `tokenizers`.
enum class SpecialTokens { kParse, kAsText };

enum class SpecialOutput { kSkip, kKeep };  // whether decoding leaves special tokens out

// Where decoded text begins: SentencePiece vocabularies write a space before the first word, which
// decoding takes off again at the start of a text, but not where a text goes on after a prompt.
enum class TextPosition { kStart, kContinuation };

// A part of a text to be encoded as one. Special tokens count only where they lie within one kParse
// segment; the text between them is encoded as a whole across segments.
struct TextSegment {
  std::string_view text;
  SpecialTokens special = SpecialTokens::kAsText;
};

// Plain data read from GGUF metadata (tokenizer.ggml.*).
struct GgufVocabulary {
  std::string source;  // the file's name, for errors
  std::string model;   // tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece)
  std::string pre;     // tokenizer.ggml.pre: "smollm", "qwen2", "llama-bpe", ...; empty: "default"
  std::vector<std::string> tokens;
  std::vector<float> scores;   // empty, or one for each token ("llama" only)
  std::vector<int32_t> types;  // 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  std::vector<std::string> merges;
  std::optional<int32_t> bos, eos, unk, pad;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

struct TokenizerData;

// Immutable after it is made: any number of threads may use one at once. Text that is not valid
// UTF-8 is encoded as if each maximal invalid part were U+FFFD, like Python's errors="replace".
class Tokenizer {
 public:
  // Reads tokenizer.json (with tokenizer_config.json and generation_config.json when they are
  // there), else tokenizer.model (SentencePiece or tiktoken), else the only *.tiktoken of the
  // directory. Errors: kNotFound without any of them, and those of the readers below.
  static Result<std::unique_ptr<Tokenizer>> from_directory(const std::filesystem::path& directory);

  // `source` names the text in errors; `config_json` is the text of tokenizer_config.json or empty.
  // Errors: kInvalidArgument for what is malformed or beyond a limit, kUnsupported for a valid
  // component that is not known (the message lists those that are).
  static Result<std::unique_ptr<Tokenizer>> from_json(std::string_view tokenizer_json,
                                                      std::string_view source,
                                                      std::string_view config_json = {});

  // A SentencePiece model (protobuf). Errors: kInvalidArgument, kUnsupported when it is no BPE.
  static Result<std::unique_ptr<Tokenizer>> from_sentencepiece(std::string_view bytes,
                                                               std::string_view source);

  // A tiktoken file: lines of base64 and rank. The special tokens and the expression are those of
  // the family whose vocabulary has that size (Llama 3, Llama 4, Qwen). Errors: kInvalidArgument,
  // kUnsupported for a vocabulary of another size.
  static Result<std::unique_ptr<Tokenizer>> from_tiktoken(std::string_view text,
                                                          std::string_view source);

  // Errors: kInvalidArgument, kUnsupported for an unknown model or pre (the known ones are listed).
  static Result<std::unique_ptr<Tokenizer>> from_gguf(const GgufVocabulary& vocabulary);

  explicit Tokenizer(std::unique_ptr<TokenizerData> data);
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  ~Tokenizer();

  // The ids of `text`, without those that a post-processor adds around it (BOS). A pretokenizer
  // expression that exceeds its match limit leaves the rest of its text unsplit.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const;

  // As above for text whose parts differ in origin, e.g. a rendered chat template.
  std::vector<int32_t> encode(std::span<const TextSegment> segments) const;

  // With what the post-processor adds, usually BOS: add_special_tokens=True of Hugging Face. For
  // plain completion prompts.
  std::vector<int32_t> encode_with_template(std::string_view text, SpecialTokens special) const;

  // The bytes that the ids stand for, which need not be valid UTF-8. Ids outside the vocabulary
  // stand for nothing.
  std::string decode(std::span<const int32_t> ids,
                     SpecialOutput special = SpecialOutput::kKeep,
                     TextPosition position = TextPosition::kStart) const;

  // The bytes that one token adds to a text that goes on (TextPosition::kContinuation).
  std::string_view token_bytes(int32_t id) const;

  // The bytes of a first token of a text (TextPosition::kStart).
  std::string_view first_token_bytes(int32_t id) const;

  // The token as the vocabulary writes it ("Ġthe", "▁the", "<0x0A>"). Empty outside the vocabulary.
  std::string_view token(int32_t id) const;

  bool is_special(int32_t id) const;

  // One more than the largest id; ids may have holes below it.
  int32_t vocabulary_size() const;

  std::optional<int32_t> id_of(std::string_view token) const;

  std::optional<int32_t> bos_id() const;

  // The tokens that end a text or a turn; the model's own eos first.
  const std::vector<int32_t>& eos_ids() const;

  // A Hugging Face tokenizer.json of this tokenizer.
  std::string to_json() const;

  // The tokenizer_config.json beside it; `chat_template` may be empty.
  std::string to_config_json(std::string_view chat_template) const;

 private:
  std::unique_ptr<const TokenizerData> data_;
};

}  // namespace quern
