// What the calls that run a model have in common: requests out, events in, a stream or a body.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_answer.h"
#include "serve/api_sampling.h"
#include "serve/exchange.h"
#include "serve/served_model.h"

namespace quern {

// A call that is ready to run: one request and one answer for each choice.
struct PreparedAnswers {
  const ServedModel* model = nullptr;
  AnswerOptions options;
  std::vector<Request> requests;
  std::vector<Answer> answers;
  int64_t answers_per_prompt = 1;
  std::string id;  // of the answer: "chatcmpl-..."
  int64_t created_unix_s = 0;
};

// Keeps the answers; what is derived from it writes them.
class AnswersExchange : public Exchange {
 public:
  explicit AnswersExchange(PreparedAnswers prepared);

  const ServedModel* model() const final { return prepared_.model; }

  std::vector<Request> take_requests() final { return std::move(prepared_.requests); }

  bool streams() const final { return options().stream; }

  void on_event(size_t index, const Event& event, std::string& out) final;
  void end(std::string& out) final;
  std::string error(const ApiError& error) const final;

  int status() const final { return failure_ ? failure_->status : 200; }

 protected:
  const AnswerOptions& options() const { return prepared_.options; }

  const PreparedAnswers& prepared() const { return prepared_; }

  const Answer& answer(size_t index) const { return prepared_.answers[index]; }

  size_t answer_count() const { return prepared_.answers.size(); }

  UsageTotal total_usage() const;

  const Tokenizer& tokenizer() const { return *prepared_.model->tokenizer; }

  // A stream: what a step of an answer adds; `step.token` is nullptr when the answer has finished.
  virtual void write_step(size_t index, const AnswerStep& step, std::string& out) = 0;
  virtual void write_stream_end(std::string& out) = 0;

  // The frames that end a stream on an error.
  virtual std::string stream_error(const ApiError& error) const;

  // No stream: the whole.
  virtual OrderedJson body() const = 0;

  virtual OrderedJson error_body(const ApiError& error) const;

 private:
  void add(size_t index, const AnswerStep& step, std::string& out);
  void fail(const ApiError& error, std::string& out);

  PreparedAnswers prepared_;
  bool begun_ = false;  // the stream has bytes
  std::optional<ApiError> failure_;
};

// "data: {...}\n\n"
void append_data(const OrderedJson& value, std::string& out);

// "event: NAME\ndata: {...}\n\n"
void append_event(std::string_view name, const OrderedJson& value, std::string& out);

// {"error": {message, type, param, code}}
OrderedJson openai_error_json(const ApiError& error);

// "req-abc" as the end of an id: "abc".
std::string_view id_suffix(std::string_view request_id);

// An answer that needs no model.
class FixedExchange final : public Exchange {
 public:
  explicit FixedExchange(OrderedJson body) : body_(std::move(body)) {}

  std::vector<Request> take_requests() override { return {}; }

  bool streams() const override { return false; }

  void on_event(size_t, const Event&, std::string&) override {}

  void end(std::string& out) override;
  std::string error(const ApiError& error) const override;

  int status() const override { return 200; }

 private:
  OrderedJson body_;
};

}  // namespace quern
