#include "text/tokenizer_template.h"

#include <array>

#include <fmt/format.h>

#include "text/pipeline_json.h"
#include "text/vocabulary.h"

namespace quern {
namespace {

constexpr std::array<std::string_view, 5> kKnown = {
    "TemplateProcessing", "ByteLevel", "BertProcessing", "RobertaProcessing", "Sequence"};
constexpr size_t kMaxTemplateIds = 1024;

Error malformed(const std::string& source, const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", source, what)};
}

Result<int32_t> read_id(const Json& value, const std::string& source) {
  if (!value.is_number_integer() || value < 0 || value >= kMaxVocabularyIds) {
    return malformed(source, fmt::format("token id {} is outside [0, {})",
                                         value.dump(-1, ' ', true, Json::error_handler_t::replace),
                                         kMaxVocabularyIds));
  }
  return value.get<int32_t>();
}

// The ids of one {"SpecialToken": {"id": name}} by special_tokens[name].ids.
Result<Unit> append_special(const Json& token,
                            const JsonObject& object,
                            std::vector<int32_t>& ids) {
  const std::string& source = object.source();
  if (!token.is_object()) return malformed(source, "SpecialToken is no object");
  const std::string name = QUERN_TRY(JsonObject(token, source + " SpecialToken").string("id"));
  const Json* table = object.find("special_tokens");
  const bool listed = table != nullptr && table->is_object() && table->contains(name) &&
                      (*table)[name].is_object() && (*table)[name].contains("ids") &&
                      (*table)[name]["ids"].is_array();
  if (!listed) return malformed(source, fmt::format("special_tokens has no ids of \"{}\"", name));
  for (const Json& id : (*table)[name]["ids"]) {
    if (ids.size() >= kMaxTemplateIds)
      return malformed(source, fmt::format("has more than {} ids", kMaxTemplateIds));
    ids.push_back(QUERN_TRY(read_id(id, source)));
  }
  return Unit{};
}

Result<TextTemplate> read_template(const JsonObject& object) {
  TextTemplate result;
  const Json* single = object.find("single");
  if (single == nullptr || !single->is_array())
    return malformed(object.source(), "TemplateProcessing without a list \"single\"");
  int texts = 0;
  for (const Json& piece : *single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      ++texts;
    } else if (piece.is_object() && piece.contains("SpecialToken")) {
      QUERN_TRY(
          append_special(piece["SpecialToken"], object, texts == 0 ? result.before : result.after));
    } else {
      return malformed(object.source(), "\"single\" holds neither Sequence nor SpecialToken");
    }
  }
  if (texts != 1) {
    return malformed(object.source(),
                     fmt::format("\"single\" holds the text {} times; once is needed", texts));
  }
  return result;
}

// BertProcessing and RobertaProcessing: "cls" before, "sep" behind, each [token, id].
Result<TextTemplate> read_cls_sep(const JsonObject& object) {
  const auto id = [&](std::string_view key) -> Result<int32_t> {
    const Json* pair = object.find(key);
    if (pair == nullptr || !pair->is_array() || pair->size() != 2)
      return malformed(object.source(), fmt::format("\"{}\" needs to be [token, id]", key));
    return read_id((*pair)[1], object.source());
  };
  TextTemplate result;
  result.before = {QUERN_TRY(id("cls"))};
  result.after = {QUERN_TRY(id("sep"))};
  return result;
}

}  // namespace

Result<TextTemplate> TextTemplate::from_json(const Json& value, const std::string& source) {
  TextTemplate result;
  for (const Json* step : QUERN_TRY(flatten_sequence(value, "processors", source))) {
    const JsonObject object(*step, source);
    const std::string type = QUERN_TRY(object.string("type"));
    TextTemplate outer;
    if (type == "TemplateProcessing") {
      outer = QUERN_TRY(read_template(object));
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      outer = QUERN_TRY(read_cls_sep(object));
    } else if (type != "ByteLevel") {  // which only trims offsets
      return unknown_type(source, type, kKnown);
    }
    result.before.insert(result.before.begin(), outer.before.begin(), outer.before.end());
    result.after.insert(result.after.end(), outer.after.begin(), outer.after.end());
  }
  return result;
}

}  // namespace quern
