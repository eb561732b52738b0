// A conversation as a model reads it: messages through the chat template into token ids.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace quern {

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// The model's template with what it needs. Movable; borrows nothing.
class Conversation {
 public:
  // Errors: kNotFound when the model has no chat template, kInvalidArgument when it is broken; both
  // name the model.
  static Result<Conversation> open(const std::filesystem::path& model, const Tokenizer& tokenizer);

  // The ids of the messages and the opening of the assistant's answer. Text of messages never
  // becomes a special token. Errors: kInvalidArgument when the template refuses the messages.
  Result<std::vector<int32_t>> encode(const std::vector<Message>& messages,
                                      const Tokenizer& tokenizer) const;

 private:
  Conversation(ChatTemplate chat_template, std::string source, std::string bos, std::string eos);

  ChatTemplate template_;
  std::string source_;
  std::string bos_, eos_;
};

}  // namespace quern
