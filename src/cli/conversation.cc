#include "cli/conversation.h"

#include <ctime>

#include <fmt/format.h>

#include "cli/session.h"

namespace quern {

Conversation::Conversation(ChatTemplate chat_template,
                           std::string source,
                           std::string bos,
                           std::string eos)
    : template_(std::move(chat_template)),
      source_(std::move(source)),
      bos_(std::move(bos)),
      eos_(std::move(eos)) {}

Result<Conversation> Conversation::open(const std::filesystem::path& model,
                                        const Tokenizer& tokenizer) {
  const std::string text = QUERN_TRY(open_chat_template(model));
  Result<ChatTemplate> parsed = ChatTemplate::parse(text);
  if (!parsed) {
    return Error{parsed.error().code,
                 fmt::format("{}: the chat template: {}", model.string(), parsed.error().message)};
  }
  const auto token = [&](std::optional<int32_t> id) {
    return id ? std::string(tokenizer.token(*id)) : std::string();
  };
  std::optional<int32_t> eos;
  if (!tokenizer.eos_ids().empty()) eos = tokenizer.eos_ids().front();
  return Conversation(std::move(*parsed), model.string(), token(tokenizer.bos_id()), token(eos));
}

Result<std::vector<int32_t>> Conversation::encode(const std::vector<Message>& messages,
                                                  const Tokenizer& tokenizer) const {
  ChatTemplateInput input;
  for (const Message& message : messages) {
    input.messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  input.add_generation_prompt = true;
  input.bos_token = bos_;
  input.eos_token = eos_;
  const std::time_t now = std::time(nullptr);
  ::localtime_r(&now, &input.now);
  const auto rendered = template_.render(input);
  if (!rendered) {
    return Error{rendered.error().code,
                 fmt::format("{}: the chat template: {}", source_, rendered.error().message)};
  }
  std::vector<TextSegment> segments;
  for (const TemplateSegment& segment : *rendered) {
    segments.push_back({segment.text, segment.origin == TextOrigin::kTemplate
                                          ? SpecialTokens::kParse
                                          : SpecialTokens::kAsText});
  }
  return tokenizer.encode(segments);
}

}  // namespace quern
