// POST /v1/embeddings.
#include <bit>
#include <cmath>
#include <iterator>
#include <utility>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/check.h"
#include "serve/api_endpoints.h"
#include "serve/api_exchange.h"
#include "serve/api_fields.h"
#include "serve/api_json.h"
#include "serve/api_task.h"

namespace quern {
namespace {

constexpr int64_t kMaxInputs = 2048;  // of one call; OpenAI's

}  // namespace

Schema embeddings_request_schema() {
  const Schema ids = array_schema(integer_schema(0, INT32_MAX), 1);
  const Schema input =
      described(union_schema({string_schema(1), ids, array_schema(string_schema(1), 1, kMaxInputs),
                              array_schema(ids, 1, kMaxInputs)}),
                "A text, its token ids, or several of either.");
  return object_schema(
      SchemaMembers{model_member(),
                    required("input", input),
                    {"encoding_format", described(constant_schema({"float", "base64"}),
                                                  "base64: of little-endian 32-bit floats.")},
                    {"dimensions", described(integer_schema(1, 1 << 20),
                                             "Keeps the first so many numbers, scaled to unit "
                                             "length again.")},
                    {"user", described(string_schema(0, kMaxIdBytes), "Not used.")}} +
      placement_members());
}

Schema embeddings_response_schema() {
  const Schema count = integer_schema(0, INT64_MAX);
  const Schema vector = union_schema({array_schema(number_schema(-1, 1)), string_schema()});
  return object_schema(
      {required("object", constant_schema({"list"})), required("model", string_schema()),
       required("data", array_schema(object_schema(
                            {required("object", constant_schema({"embedding"})),
                             required("index", count), required("embedding", vector)}))),
       required("usage", object_schema({required("prompt_tokens", count),
                                        required("total_tokens", count)}))});
}

namespace {

enum class EncodingFormat : uint8_t { kFloat, kBase64 };

struct EmbeddingsTask {
  const ServedModel* model = nullptr;
  EncodingFormat format = EncodingFormat::kFloat;
  int64_t dimensions = 0;
  std::optional<int64_t> truncate_prompt;
};

// --- Answers ------------------------------------------------------------------------------------

// The first `dimensions` numbers, of length 1 together; zeros stay.
void shorten(std::vector<float>& vector, int64_t dimensions) {
  vector.resize(static_cast<size_t>(dimensions));
  double squares = 0;
  for (const float x : vector) squares += static_cast<double>(x) * static_cast<double>(x);
  if (squares == 0) return;
  const double length = std::sqrt(squares);
  for (float& x : vector) x = static_cast<float>(static_cast<double>(x) / length);
}

std::string base64(const std::vector<float>& vector) {
  std::vector<unsigned char> bytes;
  for (const float x : vector) {
    const auto bits = std::bit_cast<uint32_t>(x);
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<unsigned char>(bits >> shift & 0xff));
    }
  }
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // EVP_EncodeBlock ends it with a zero
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes.data(),
                                   static_cast<int>(bytes.size()));
  QUERN_CHECK(size >= 0 && static_cast<size_t>(size) + 1 == text.size());
  text.pop_back();
  return text;
}

// As JSON. Numbers have as many digits as tell the float from all others.
std::string embedding_json(const std::vector<float>& vector, EncodingFormat format) {
  if (format == EncodingFormat::kBase64) return '"' + base64(vector) + '"';
  return fmt::format("[{}]", fmt::join(vector, ","));
}

// Each vector becomes text when it comes, so that the end of a large call costs little.
class EmbeddingsExchange final : public Exchange {
 public:
  EmbeddingsExchange(const EmbeddingsTask& task, std::vector<Request> requests)
      : task_(task), requests_(std::move(requests)), embeddings_(requests_.size()) {}

  const ServedModel* model() const override { return task_.model; }

  std::vector<Request> take_requests() override { return std::move(requests_); }

  bool streams() const override { return false; }

  void on_event(size_t index, const Event& event, std::string&) override {
    if (const auto* embedding = std::get_if<EmbeddingEvent>(&event)) {
      std::vector<float> vector = embedding->embedding;
      shorten(vector, task_.dimensions);
      embeddings_[index] = embedding_json(vector, task_.format);
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      prompt_tokens_ += finished->usage.prompt_tokens;
      if (finished->reason == FinishReason::kStop) return;
      failure_ = server_error("the embedding was not finished: " +
                              std::string(finish_reason_name(finished->reason)));
    }
  }

  void end(std::string& out) override {
    if (failure_) {
      out += error(*failure_);
      return;
    }
    out += R"({"object":"list","model":)";
    append_json_string(task_.model->id, out);
    out += R"(,"data":[)";
    for (size_t i = 0; i < embeddings_.size(); ++i) {
      fmt::format_to(std::back_inserter(out), R"({}{{"object":"embedding","index":{},"embedding":)",
                     i == 0 ? "" : ",", i);
      out += embeddings_[i];
      out += '}';
    }
    fmt::format_to(std::back_inserter(out),
                   R"(],"usage":{{"prompt_tokens":{0},"total_tokens":{0}}}}})", prompt_tokens_);
  }

  std::string error(const ApiError& error) const override { return dump(openai_error_json(error)); }

  int status() const override { return failure_ ? failure_->status : 200; }

 private:
  EmbeddingsTask task_;
  std::vector<Request> requests_;
  std::vector<std::string> embeddings_;  // as JSON, by request
  int64_t prompt_tokens_ = 0;
  std::optional<ApiError> failure_;
};

// --- Reading ------------------------------------------------------------------------------------

ApiResult<EmbeddingsTask> read_task(const CheckedCall& call) {
  EmbeddingsTask task;
  task.model = QUERN_TRY(find_model(call.models, call.body));
  if (text_or(call.body, "encoding_format", "float") == "base64") {
    task.format = EncodingFormat::kBase64;
  }
  task.dimensions = integer_or(call.body, "dimensions", task.model->hidden);
  if (task.dimensions > task.model->hidden) {
    return invalid_request("dimensions",
                           fmt::format("dimensions is {}; embeddings of this model have {}",
                                       task.dimensions, task.model->hidden));
  }
  if (const OrderedJson* keep = find(call.body, "truncate_prompt_tokens")) {
    task.truncate_prompt = as_integer(*keep);
  }
  return task;
}

std::vector<int32_t> input_tokens(const OrderedJson& input, const Tokenizer& tokenizer) {
  if (input.is_string()) {
    return tokenizer.encode_with_template(input.get_ref<const std::string&>(),
                                          SpecialTokens::kParse);
  }
  std::vector<int32_t> tokens;
  for (const OrderedJson& id : input) tokens.push_back(static_cast<int32_t>(as_integer(id)));
  return tokens;
}

ApiResult<Request> make_request(const CheckedCall& call,
                                const EmbeddingsTask& task,
                                const OrderedJson& input,
                                std::string field) {
  Request request = QUERN_TRY(read_request(call.body, *task.model, call.call.seed));
  request.embedding = task.model->pooling;
  const LengthOptions lengths{.truncate_prompt = task.truncate_prompt,
                              .prompt_field = std::move(field)};
  QUERN_TRY(set_prompt(request, input_tokens(input, *task.model->tokenizer), lengths,
                       task.model->limits));
  return request;
}

}  // namespace

OpenedExchange open_embeddings(const CheckedCall& call) {
  const EmbeddingsTask task = QUERN_TRY(read_task(call));
  const OrderedJson& input = call.body["input"];
  std::vector<Request> requests;
  if (input.is_string() || input.front().is_number()) {
    requests.push_back(QUERN_TRY(make_request(call, task, input, "input")));
  } else {
    for (size_t i = 0; i < input.size(); ++i) {
      requests.push_back(
          QUERN_TRY(make_request(call, task, input[i], fmt::format("input[{}]", i))));
    }
  }
  return std::make_unique<EmbeddingsExchange>(task, std::move(requests));
}

}  // namespace quern
