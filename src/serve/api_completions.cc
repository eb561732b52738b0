// POST /v1/completions.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "serve/api_constraint.h"
#include "serve/api_endpoints.h"
#include "serve/api_exchange.h"
#include "serve/api_fields.h"
#include "serve/api_json.h"
#include "serve/api_task.h"

namespace quern {
namespace {

constexpr int64_t kMaxAnswersOfCall = 128;  // prompts times n
constexpr int64_t kDefaultMaxTokens = 16;   // OpenAI's

Schema prompt_schema() {
  const Schema ids = array_schema(integer_schema(0, INT32_MAX), 1);
  return described(
      union_schema({string_schema(), ids, array_schema(string_schema(), 1, kMaxPrompts),
                    array_schema(ids, 1, kMaxPrompts)}),
      "A text, its token ids, or several of either.");
}

Schema legacy_logprobs_schema() {
  const Schema logprob = nullable_schema(number_schema(-9999, 0));
  return object_schema({required("text_offset", array_schema(integer_schema(0, INT64_MAX))),
                        required("token_logprobs", array_schema(logprob)),
                        required("tokens", array_schema(string_schema())),
                        required("top_logprobs", array_schema(nullable_schema(
                                                     map_schema(number_schema(-9999, 0)))))});
}

}  // namespace

Schema completions_request_schema() {
  return object_schema(
      SchemaMembers{model_member(), required("prompt", prompt_schema())} + sampling_members() +
      answer_members() +
      SchemaMembers{
          {"logprobs", integer_schema(0, kMaxLogprobs)},
          {"echo", described(boolean_schema(), "The text begins with the prompt.")},
          {"add_special_tokens", described(boolean_schema(), "Whether a prompt gets its BOS.")},
          {"best_of", constant_schema({1})},
          {"suffix", refused_schema("this server does not fill in the middle of a text")}} +
      structured_output_members() + placement_members() + no_op_members());
}

Schema completions_response_schema() {
  const Schema choice =
      object_schema(SchemaMembers{required("index", integer_schema(0, INT32_MAX)),
                                  required("text", string_schema()),
                                  required("logprobs", nullable_schema(legacy_logprobs_schema())),
                                  required("finish_reason", constant_schema({"stop", "length"}))} +
                    choice_extension_members());
  return object_schema(
      {required("id", string_schema()), required("object", constant_schema({"text_completion"})),
       required("created", integer_schema(0, INT64_MAX)), required("model", string_schema()),
       required("system_fingerprint", string_schema()),
       required("choices", array_schema(choice, 1)), required("usage", usage_schema())});
}

namespace {

struct Prompt {
  std::vector<int32_t> tokens;
  std::string text;  // what echo writes
};

std::vector<int32_t> token_ids(const OrderedJson& ids) {
  std::vector<int32_t> tokens;
  for (const OrderedJson& id : ids) tokens.push_back(static_cast<int32_t>(as_integer(id)));
  return tokens;
}

Prompt prompt_of_text(const std::string& text,
                      const OrderedJson& body,
                      const Tokenizer& tokenizer) {
  const OrderedJson* add = find(body, "add_special_tokens");
  const bool plain = add != nullptr && *add == false;
  return {plain ? tokenizer.encode(text, SpecialTokens::kParse)
                : tokenizer.encode_with_template(text, SpecialTokens::kParse),
          text};
}

std::vector<Prompt> read_prompts(const OrderedJson& body, const Tokenizer& tokenizer) {
  const OrderedJson& prompt = body["prompt"];
  std::vector<Prompt> prompts;
  const auto add_ids = [&](const OrderedJson& ids) {
    std::vector<int32_t> tokens = token_ids(ids);
    std::string text = tokenizer.decode(tokens);
    prompts.push_back({std::move(tokens), std::move(text)});
  };
  if (prompt.is_string()) {
    prompts.push_back(prompt_of_text(prompt.get<std::string>(), body, tokenizer));
  } else if (prompt.front().is_number()) {
    add_ids(prompt);
  } else {
    for (const OrderedJson& item : prompt) {
      if (item.is_array()) {
        add_ids(item);
      } else {
        prompts.push_back(prompt_of_text(item.get<std::string>(), body, tokenizer));
      }
    }
  }
  return prompts;
}

// --- Answers ------------------------------------------------------------------------------------

// The four lists of a completion's logprobs, which grow by tokens.
class LogprobLists {
 public:
  explicit LogprobLists(int64_t offset = 0) : offset_(offset) {}

  void add(const Tokenizer& tokenizer, int32_t token, const Logprobs* logprobs) {
    const std::string text = token_text(tokenizer, token);
    offsets_.push_back(offset_);
    offset_ += code_points(text);
    tokens_.push_back(text);
    if (logprobs == nullptr) {
      chosen_.push_back(nullptr);
      top_.push_back(nullptr);
      return;
    }
    chosen_.push_back(finite_logprob(logprobs->chosen));
    OrderedJson alternatives = OrderedJson::object();
    for (const TokenLogprob& other : logprobs->top) {
      alternatives.emplace(token_text(tokenizer, other.token), finite_logprob(other.logprob));
    }
    top_.push_back(std::move(alternatives));
  }

  int64_t offset() const { return offset_; }

  OrderedJson json() const {
    return {{"text_offset", offsets_},
            {"token_logprobs", chosen_},
            {"tokens", tokens_},
            {"top_logprobs", top_}};
  }

 private:
  static int64_t code_points(std::string_view text) {
    return std::count_if(text.begin(), text.end(),
                         [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
  }

  int64_t offset_;
  OrderedJson offsets_ = OrderedJson::array();
  OrderedJson chosen_ = OrderedJson::array();
  OrderedJson tokens_ = OrderedJson::array();
  OrderedJson top_ = OrderedJson::array();
};

struct CompletionsPrepared {
  PreparedAnswers answers;
  std::vector<std::string> echoes;  // by answer; empty where nothing is echoed
  bool echo_logprobs = false;
  bool prompt_logprobs = false;  // the field of that name, beside the echo's
};

class CompletionsExchange final : public AnswersExchange {
 public:
  explicit CompletionsExchange(CompletionsPrepared prepared)
      : AnswersExchange(std::move(prepared.answers)),
        echoes_(std::move(prepared.echoes)),
        echo_logprobs_(prepared.echo_logprobs),
        prompt_logprobs_(prepared.prompt_logprobs),
        started_(answer_count(), false),
        offsets_(answer_count(), 0) {}

 protected:
  void write_step(size_t index, const AnswerStep& step, std::string& out) override;
  void write_stream_end(std::string& out) override;
  OrderedJson body() const override;

 private:
  OrderedJson head() const;
  OrderedJson choice_json(size_t index) const;
  void write_chunk(OrderedJson choice, std::string& out) const;
  void write_start(size_t index, std::string& out);
  void add_prompt(const Answer& answer, LogprobLists& lists) const;
  void add_prompt_fields(const Answer& answer, OrderedJson& choice) const;

  std::vector<std::string> echoes_;
  bool echo_logprobs_;
  bool prompt_logprobs_;
  std::vector<bool> started_;
  std::vector<int64_t> offsets_;  // of the next token, by answer
};

OrderedJson text_choice(size_t index, std::string text) {
  return {{"index", index},
          {"text", std::move(text)},
          {"logprobs", nullptr},
          {"finish_reason", nullptr}};
}

OrderedJson CompletionsExchange::head() const {
  return {{"id", prepared().id},
          {"object", "text_completion"},
          {"created", prepared().created_unix_s},
          {"model", model()->id},
          {"system_fingerprint", model()->fingerprint}};
}

void CompletionsExchange::add_prompt(const Answer& answer, LogprobLists& lists) const {
  for (size_t i = 0; i < answer.prompt().size(); ++i) {
    const bool known = i > 0 && i - 1 < answer.prompt_logprobs().size();
    lists.add(tokenizer(), answer.prompt()[i], known ? &answer.prompt_logprobs()[i - 1] : nullptr);
  }
}

void CompletionsExchange::add_prompt_fields(const Answer& answer, OrderedJson& choice) const {
  if (options().token_ids) choice["prompt_token_ids"] = answer.prompt();
  if (prompt_logprobs_) choice["prompt_logprobs"] = prompt_logprobs_json(tokenizer(), answer);
}

void CompletionsExchange::write_chunk(OrderedJson choice, std::string& out) const {
  OrderedJson chunk = head();
  chunk["choices"] = OrderedJson::array({std::move(choice)});
  if (options().continuous_usage) {
    chunk["usage"] = usage_json(total_usage());
  } else if (options().include_usage) {
    chunk["usage"] = nullptr;
  }
  append_data(chunk, out);
}

void CompletionsExchange::write_start(size_t index, std::string& out) {
  started_[index] = true;
  OrderedJson choice = text_choice(index, echoes_[index]);
  if (echo_logprobs_) {
    LogprobLists lists;
    add_prompt(answer(index), lists);
    offsets_[index] = lists.offset();
    choice["logprobs"] = lists.json();
  }
  add_prompt_fields(answer(index), choice);
  if (choice.size() > 4 || !echoes_[index].empty()) write_chunk(std::move(choice), out);
}

void CompletionsExchange::write_step(size_t index, const AnswerStep& step, std::string& out) {
  if (!started_[index]) write_start(index, out);
  std::string text;
  for (const AnswerPiece& piece : step.pieces) text += piece.text;
  OrderedJson choice = text_choice(index, text);
  if (step.token == nullptr) {
    choice["finish_reason"] = openai_finish_reason(answer(index));
    choice["stop_reason"] = stop_reason_json(answer(index));
    return write_chunk(std::move(choice), out);
  }
  if (step.token->logprobs) {
    LogprobLists lists(offsets_[index]);
    lists.add(tokenizer(), step.token->token, &*step.token->logprobs);
    offsets_[index] = lists.offset();
    choice["logprobs"] = lists.json();
  }
  if (options().token_ids) choice["token_ids"] = OrderedJson::array({step.token->token});
  if (text.empty() && !step.token->logprobs && !options().token_ids) return;
  write_chunk(std::move(choice), out);
}

void CompletionsExchange::write_stream_end(std::string& out) {
  if (options().include_usage) {
    OrderedJson chunk = head();
    chunk["choices"] = OrderedJson::array();
    chunk["usage"] = usage_json(total_usage());
    append_data(chunk, out);
  }
  out += "data: [DONE]\n\n";
}

OrderedJson CompletionsExchange::choice_json(size_t index) const {
  const Answer& it = answer(index);
  OrderedJson choice = text_choice(index, echoes_[index] + it.content());
  LogprobLists lists;
  if (echo_logprobs_) add_prompt(it, lists);
  bool wanted = false;
  for (const AnswerToken& token : it.tokens()) {
    wanted = token.logprobs.has_value();
    if (wanted) lists.add(tokenizer(), token.token, &*token.logprobs);
  }
  if (wanted) choice["logprobs"] = lists.json();
  choice["finish_reason"] = openai_finish_reason(it);
  choice["stop_reason"] = stop_reason_json(it);
  if (options().token_ids) {
    OrderedJson& ids = choice["token_ids"] = OrderedJson::array();
    for (const AnswerToken& token : it.tokens()) ids.push_back(token.token);
  }
  add_prompt_fields(it, choice);
  return choice;
}

OrderedJson CompletionsExchange::body() const {
  OrderedJson body = head();
  OrderedJson& choices = body["choices"] = OrderedJson::array();
  for (size_t i = 0; i < answer_count(); ++i) choices.push_back(choice_json(i));
  body["usage"] = usage_json(total_usage());
  return body;
}

// --- Reading ------------------------------------------------------------------------------------

ApiResult<Unit> check_answers(const OrderedJson& body,
                              const AnswerOptions& options,
                              size_t prompts) {
  if (!options.stream && find(body, "stream_options") != nullptr) {
    return invalid_request("stream_options", "stream_options needs stream to be true");
  }
  const int64_t answers = options.answers * static_cast<int64_t>(prompts);
  if (answers <= kMaxAnswersOfCall) return Unit{};
  return invalid_request("n", fmt::format("{} prompts with n {} are {} answers; at most {} are "
                                          "allowed in one call",
                                          prompts, options.answers, answers, kMaxAnswersOfCall));
}

LengthOptions read_lengths(const OrderedJson& body) {
  LengthOptions lengths;
  lengths.prompt_field = "prompt";
  lengths.fallback = kDefaultMaxTokens;
  if (const OrderedJson* tokens = find(body, "max_tokens"))
    lengths.max_tokens = as_integer(*tokens);
  if (const OrderedJson* keep = find(body, "truncate_prompt_tokens")) {
    lengths.truncate_prompt = as_integer(*keep);
  }
  return lengths;
}

struct CompletionsTask {
  const ServedModel* model = nullptr;
  AnswerOptions options;
  LengthOptions lengths;
  std::optional<OutputForm> form;
  std::optional<int32_t> logprobs;
  bool echo = false;
};

ApiResult<Request> make_request(const CheckedCall& call,
                                const CompletionsTask& task,
                                std::vector<int32_t> prompt,
                                int64_t stream) {
  Request request = QUERN_TRY(read_request(call.body, *task.model, call.call.seed));
  request.sampling.stream = static_cast<uint64_t>(stream);
  request.top_logprobs = task.logprobs;
  if (task.echo && task.logprobs && !request.prompt_logprobs) {
    request.prompt_logprobs = task.logprobs;
  }
  QUERN_TRY(set_prompt(request, std::move(prompt), task.lengths, task.model->limits));
  if (task.form) request.constraint = QUERN_TRY(make_form_constraint(*task.model, *task.form));
  return request;
}

ApiResult<CompletionsTask> read_task(const CheckedCall& call) {
  CompletionsTask task;
  task.model = QUERN_TRY(find_model(call.models, call.body));
  task.options = read_answer_options(call.body);
  task.lengths = read_lengths(call.body);
  task.form = QUERN_TRY(read_output_form(call.body));
  if (const OrderedJson* count = find(call.body, "logprobs")) {
    task.logprobs = static_cast<int32_t>(as_integer(*count));
  }
  task.echo = is_true(call.body, "echo");
  return task;
}

ApiResult<CompletionsPrepared> prepare(const CheckedCall& call) {
  const CompletionsTask task = QUERN_TRY(read_task(call));
  const std::vector<Prompt> prompts = read_prompts(call.body, *task.model->tokenizer);
  QUERN_TRY(check_answers(call.body, task.options, prompts.size()));
  CompletionsPrepared prepared;
  PreparedAnswers& answers = prepared.answers;
  answers.model = task.model;
  answers.options = task.options;
  answers.answers_per_prompt = task.options.answers;
  answers.id = fmt::format("cmpl-{}", id_suffix(call.call.request_id));
  answers.created_unix_s = call.call.created_unix_s;
  prepared.echo_logprobs = task.echo && task.logprobs.has_value();
  prepared.prompt_logprobs = find(call.body, "prompt_logprobs") != nullptr;
  for (const Prompt& prompt : prompts) {
    for (int64_t i = 0; i < task.options.answers; ++i) {
      Request request = QUERN_TRY(make_request(call, task, prompt.tokens, i));
      answers.answers.emplace_back(AnswerSetup{.reader = nullptr,
                                               .call_id_prefix = {},
                                               .prompt = request.prompt,
                                               .stop_tokens = request.stop_tokens,
                                               .include_stop = task.options.include_stop});
      answers.requests.push_back(std::move(request));
      prepared.echoes.push_back(task.echo ? prompt.text : "");
    }
  }
  return prepared;
}

}  // namespace

OpenedExchange open_completions(const CheckedCall& call) {
  return std::make_unique<CompletionsExchange>(QUERN_TRY(prepare(call)));
}

}  // namespace quern
