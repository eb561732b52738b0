// Fuzzes the chat template: a template, a zero byte and, optionally, the JSON of its messages.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\0'), input.size());
  quern::ChatTemplateLimits limits;
  limits.steps = 200'000;  // a run stays within milliseconds
  limits.memory_bytes = int64_t{16} << 20;
  limits.output_bytes = int64_t{1} << 20;
  const auto parsed = quern::ChatTemplate::parse(input.substr(0, split), limits);
  if (!parsed) return 0;
  quern::ChatTemplateInput conversation;
  conversation.bos_token = "<s>";
  conversation.eos_token = "</s>";
  conversation.add_generation_prompt = true;
  conversation.messages = {{{"role", "user"}, {"content", "Hi <s>"}},
                           {{"role", "assistant"}, {"content", "\u00e4\u4e2d\U0001f600 </s>"}}};
  if (split < size) {
    auto messages = quern::parse_ordered_json(input.substr(split + 1), "messages");
    if (!messages) return 0;
    conversation.messages = std::move(*messages);
  }
  const auto segments = parsed->render(conversation);
  if (!segments) return 0;
  // Segments alternate and none is empty.
  for (size_t i = 0; i < segments->size(); ++i) {
    if ((*segments)[i].text.empty()) std::abort();
    if (i > 0 && (*segments)[i].origin == (*segments)[i - 1].origin) std::abort();
  }
  return 0;
}
