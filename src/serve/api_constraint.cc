#include "serve/api_constraint.h"

#include <vector>

#include <fmt/format.h>

#include "serve/api_json.h"
#include "text/grammar.h"

namespace quern {
namespace {

// A choice is the expression of its alternatives.
std::string choice_expression(const OrderedJson& choices) {
  constexpr std::string_view kSpecial = R"(\^$.|?*+()[]{})";
  std::string expression = "(?:";
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) expression += '|';
    for (const char c : choices[i].get_ref<const std::string&>()) {
      if (kSpecial.find(c) != std::string_view::npos) expression += '\\';
      expression += c;
    }
  }
  return expression + ")";
}

OutputForm schema_form(const OrderedJson& schema, std::string field) {
  return {FormKind::kJsonSchema, schema.is_string() ? schema.get<std::string>() : dump(schema),
          std::move(field)};
}

struct FormField {
  std::string_view field;
  OutputForm (*read)(const OrderedJson& value, std::string field);
};

OutputForm read_expression(const OrderedJson& value, std::string field) {
  return {FormKind::kExpression, value.get<std::string>(), std::move(field)};
}

OutputForm read_choice(const OrderedJson& value, std::string field) {
  return {FormKind::kExpression, choice_expression(value), std::move(field)};
}

OutputForm read_grammar(const OrderedJson& value, std::string field) {
  return {FormKind::kGrammar, value.get<std::string>(), std::move(field)};
}

OutputForm read_json_object(const OrderedJson&, std::string field) {
  return {FormKind::kJson, {}, std::move(field)};
}

constexpr FormField kStructured[] = {{"json", schema_form},
                                     {"regex", read_expression},
                                     {"choice", read_choice},
                                     {"grammar", read_grammar},
                                     {"json_object", read_json_object}};

constexpr FormField kGuided[] = {{"guided_json", schema_form},
                                 {"guided_regex", read_expression},
                                 {"guided_choice", read_choice},
                                 {"guided_grammar", read_grammar}};

void read_members(const OrderedJson& object,
                  std::span<const FormField> fields,
                  const std::string& prefix,
                  std::vector<OutputForm>& forms) {
  for (const FormField& field : fields) {
    const OrderedJson* value = find(object, field.field);
    if (value == nullptr || *value == false) continue;
    forms.push_back(field.read(*value, fmt::format("{}{}", prefix, field.field)));
  }
}

}  // namespace

std::optional<OutputForm> read_response_format(const OrderedJson& format, std::string field) {
  const std::string type = format["type"].get<std::string>();
  if (type == "json_object") return OutputForm{FormKind::kJson, {}, std::move(field)};
  if (type != "json_schema") return std::nullopt;
  // /v1/responses has the members of json_schema beside the type.
  const OrderedJson* nested = find(format, "json_schema");
  const OrderedJson* schema = find(nested == nullptr ? format : *nested, "schema");
  if (schema == nullptr) return OutputForm{FormKind::kJson, {}, std::move(field)};
  return schema_form(*schema, std::move(field));
}

ApiResult<std::optional<OutputForm>> read_output_form(const OrderedJson& body) {
  std::vector<OutputForm> forms;
  if (const OrderedJson* format = find(body, "response_format")) {
    if (auto form = read_response_format(*format, "response_format")) {
      forms.push_back(*std::move(form));
    }
  }
  if (const OrderedJson* structured = find(body, "structured_outputs")) {
    const size_t before = forms.size();
    read_members(*structured, kStructured, "structured_outputs.", forms);
    if (forms.size() == before) {
      return invalid_request("structured_outputs",
                             "structured_outputs has none of json, regex, choice, grammar and "
                             "json_object; it must have one");
    }
  }
  read_members(body, kGuided, "", forms);
  if (forms.empty()) return std::optional<OutputForm>();
  if (forms.size() > 1) {
    return invalid_request(forms[1].field,
                           fmt::format("{} and {} exclude each other: an answer is held to one "
                                       "form",
                                       forms[0].field, forms[1].field));
  }
  return std::optional<OutputForm>(std::move(forms.front()));
}

ApiResult<std::unique_ptr<TokenConstraint>> make_form_constraint(const ServedModel& model,
                                                                 const OutputForm& form) {
  const auto compile = [&](const GrammarCompiler& compiler) {
    switch (form.kind) {
      case FormKind::kJsonSchema:
        return compiler.json_schema(form.source);
      case FormKind::kExpression:
        return compiler.regex(form.source);
      case FormKind::kGrammar:
        return compiler.ebnf(form.source);
      default:
        return compiler.json_object();
    }
  };
  const std::string key = fmt::format("{} {}", static_cast<int>(form.kind), form.source);
  auto grammar = model.grammars->get(*model.tokenizer, key, compile);
  if (!grammar) {
    return invalid_request(form.field, fmt::format("{}: {}", form.field, grammar.error().message));
  }
  return make_constraint(*std::move(grammar));
}

}  // namespace quern
