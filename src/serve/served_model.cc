#include "serve/served_model.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"

namespace quern {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;

struct Bounds {
  double above = 0;  // the value may equal it but for `open`
  double most = 0;
  std::string_view bracket = "[";
};

Result<std::optional<float>> read_number(const JsonObject& json,
                                         std::string_view key,
                                         const Bounds& bounds) {
  if (json.find(key) == nullptr) return std::optional<float>();
  const double value = QUERN_TRY(json.number(key));
  const bool open = bounds.bracket == "(";
  const bool above = open ? value > bounds.above : value >= bounds.above;
  if (above && value <= bounds.most) return std::optional<float>(static_cast<float>(value));
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: \"{}\" is {}; expected a number in {}{}, {}]", json.source(), key,
                           value, bounds.bracket, bounds.above, bounds.most)};
}

}  // namespace

Result<GenerationDefaults> parse_generation_defaults(std::string_view text,
                                                     std::string_view source) {
  const Json json = QUERN_TRY(parse_json(text, source));
  if (!json.is_object()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: not a JSON object", source)};
  }
  const JsonObject object(json, std::string(source));
  GenerationDefaults defaults;
  defaults.temperature = QUERN_TRY(read_number(object, "temperature", {0, 100}));
  defaults.top_p = QUERN_TRY(read_number(object, "top_p", {0, 1, "("}));
  defaults.min_p = QUERN_TRY(read_number(object, "min_p", {0, 1}));
  defaults.repetition_penalty = QUERN_TRY(read_number(object, "repetition_penalty", {0, 10, "("}));
  if (object.find("top_k") != nullptr) {
    const int64_t top_k = QUERN_TRY(object.integer("top_k", std::nullopt, -1, INT32_MAX));
    defaults.top_k = static_cast<int32_t>(std::max<int64_t>(top_k, 0));
  }
  if (!QUERN_TRY(object.boolean("do_sample", true))) defaults.temperature = 0.0f;
  return defaults;
}

Result<GenerationDefaults> read_generation_defaults(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "generation_config.json";
  if (!std::filesystem::is_regular_file(path)) return GenerationDefaults{};
  const std::string text = QUERN_TRY(read_file(path, kMaxConfigBytes));
  return parse_generation_defaults(text, path.string());
}

const ServedModel* ServedModels::find(std::string_view id) const {
  const auto found = std::find_if(models.begin(), models.end(),
                                  [&](const ServedModel* model) { return model->id == id; });
  return found == models.end() ? nullptr : *found;
}

std::string default_model_id(const std::string& model) {
  std::filesystem::path path(model);
  if (!path.has_filename()) path = path.parent_path();
  const std::string name = path.extension() == ".gguf" ? path.stem() : path.filename();
  return name.empty() ? model : name;
}

void set_template_tokens(ServedModel& model) {
  const Tokenizer& tokenizer = *model.tokenizer;
  const auto text = [&](std::optional<int32_t> id) {
    return id ? std::string(tokenizer.token(*id)) : std::string();
  };
  model.bos_token = text(tokenizer.bos_id());
  model.eos_token = tokenizer.eos_ids().empty() ? "" : text(tokenizer.eos_ids().front());
}

}  // namespace quern
