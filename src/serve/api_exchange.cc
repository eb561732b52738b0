#include "serve/api_exchange.h"

#include "serve/api_json.h"

namespace quern {

AnswersExchange::AnswersExchange(PreparedAnswers prepared) : prepared_(std::move(prepared)) {}

void AnswersExchange::on_event(size_t index, const Event& event, std::string& out) {
  if (failure_) return;
  Answer& answer = prepared_.answers[index];
  if (const auto* prompt = std::get_if<PromptLogprobsEvent>(&event)) {
    answer.set_prompt_logprobs(prompt->logprobs);
  } else if (const auto* token = std::get_if<TokenEvent>(&event)) {
    add(index, answer.add(*token), out);
  } else {
    const AnswerStep step = answer.add(std::get<FinishedEvent>(event));
    if (const auto failure = answer.failure()) return fail(*failure, out);
    add(index, step, out);
  }
}

void AnswersExchange::add(size_t index, const AnswerStep& step, std::string& out) {
  if (!streams()) return;
  const size_t before = out.size();
  write_step(index, step, out);
  begun_ = begun_ || out.size() > before;
}

void AnswersExchange::fail(const ApiError& error, std::string& out) {
  failure_ = error;
  if (begun_) out += stream_error(error);
}

void AnswersExchange::end(std::string& out) {
  if (failure_) {
    if (!begun_) out += dump(error_body(*failure_));
  } else if (streams()) {
    write_stream_end(out);
  } else {
    out += dump(body());
  }
}

std::string AnswersExchange::error(const ApiError& error) const {
  return begun_ ? stream_error(error) : dump(error_body(error));
}

std::string AnswersExchange::stream_error(const ApiError& error) const {
  std::string out;
  append_data(openai_error_json(error), out);
  return out;
}

OrderedJson AnswersExchange::error_body(const ApiError& error) const {
  return openai_error_json(error);
}

UsageTotal AnswersExchange::total_usage() const {
  UsageTotal total;
  for (size_t i = 0; i < answer_count(); ++i) {
    const Usage& usage = answer(i).usage();
    if (static_cast<int64_t>(i) % prepared_.answers_per_prompt == 0) {
      total.usage.prompt_tokens += usage.prompt_tokens;
      total.usage.cached_tokens += usage.cached_tokens;
    }
    total.usage.completion_tokens += usage.completion_tokens;
    total.reasoning_tokens += answer(i).reasoning_tokens();
  }
  return total;
}

void append_data(const OrderedJson& value, std::string& out) {
  out += "data: ";
  out += dump(value);
  out += "\n\n";
}

void append_event(std::string_view name, const OrderedJson& value, std::string& out) {
  out += "event: ";
  out += name;
  out += '\n';
  append_data(value, out);
}

OrderedJson openai_error_json(const ApiError& error) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
  };
  return {{"error",
           {{"message", error.message},
            {"type", error.type},
            {"param", or_null(error.param)},
            {"code", or_null(error.code)}}}};
}

std::string_view id_suffix(std::string_view request_id) {
  constexpr std::string_view kPrefix = "req-";
  return request_id.starts_with(kPrefix) ? request_id.substr(kPrefix.size()) : request_id;
}

void FixedExchange::end(std::string& out) { out += dump(body_); }

std::string FixedExchange::error(const ApiError& error) const {
  return dump(openai_error_json(error));
}

}  // namespace quern
