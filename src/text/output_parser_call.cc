#include "text/output_parser_call.h"

#include <nlohmann/json.hpp>

namespace quern {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

}  // namespace

bool ObjectScanner::feed(char c) {
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
    }
    return false;
  }
  if (c == '"') in_string_ = true;
  if (c == '{' || c == '[') ++depth_;
  if (c == '}' || c == ']') --depth_;
  return depth_ <= 0;
}

// True with the closing quote; text_ is then whole.
bool CallScanner::text(char c) {
  if (!escaped_ && c == '"') return true;
  escaped_ = !escaped_ && c == '\\';
  text_ += c;
  return false;
}

std::optional<std::string> CallScanner::decoded() const {
  const auto value = nlohmann::json::parse("\"" + text_ + "\"", nullptr, false);
  if (!value.is_string()) return std::nullopt;
  return value.get<std::string>();
}

CallStep CallScanner::feed(char c) {
  CallStep out;
  switch (state_) {
    case State::kOpen:
      if (c == '{') {
        state_ = State::kFirstKey;
      } else if (!is_space(c)) {
        return failed();
      }
      break;
    case State::kFirstKey:
    case State::kNextKey:
      out = start_key(c);
      break;
    case State::kKey:
      if (text(c)) out = end_key();
      break;
    case State::kColon:
      if (c == ':') {
        state_ = State::kValue;
      } else if (!is_space(c)) {
        return failed();
      }
      break;
    case State::kValue:
      out = start_value(c);
      break;
    case State::kText:
    case State::kArgumentsText:
      if (text(c)) out = end_text();
      break;
    case State::kArguments:
      return more_arguments(c);
    case State::kAfterValue:
      out = after_value(c);
      break;
  }
  if (out.status != CallStep::Status::kFailed) raw_ += c;
  if (out.begins || !out.arguments.empty()) raw_.clear();
  return out;
}

CallStep CallScanner::start_key(char c) {
  if (is_space(c)) return more();
  if (c != '"') return failed();
  text_.clear();
  state_ = State::kKey;
  return more();
}

CallStep CallScanner::end_key() {
  if (text_ == "name" || text_ == "function") {
    if (has_name_) return failed();
    key_ = Key::kName;
  } else if (text_ == "arguments" || text_ == "parameters") {
    if (has_arguments_) return failed();
    key_ = Key::kArguments;
  } else if (text_ == "id") {
    key_ = Key::kId;
  } else if (text_ == "type") {
    key_ = Key::kType;
  } else {
    return failed();
  }
  state_ = State::kColon;
  return more();
}

CallStep CallScanner::start_value(char c) {
  if (is_space(c)) return more();
  if (c == '"') {
    text_.clear();
    state_ = key_ == Key::kArguments ? State::kArgumentsText : State::kText;
    return more();
  }
  if (key_ != Key::kArguments || c != '{') return failed();
  has_arguments_ = true;
  state_ = State::kArguments;
  object_ = {};
  object_.feed(c);
  CallStep out = has_name_ ? begin() : more();
  if (has_name_) {
    out.arguments += c;
  } else {
    early_ += c;
  }
  return out;
}

CallStep CallScanner::more_arguments(char c) {
  if (object_.feed(c)) state_ = State::kAfterValue;
  if (begun_) return {CallStep::Status::kMore, false, std::string(1, c)};
  early_ += c;
  raw_ += c;
  return more();
}

CallStep CallScanner::begin() {
  begun_ = true;
  return {CallStep::Status::kMore, true, std::move(early_)};
}

CallStep CallScanner::end_text() {
  const std::optional<std::string> value = decoded();
  if (!value) return failed();
  const bool arguments = state_ == State::kArgumentsText;
  state_ = State::kAfterValue;
  if (arguments) {
    has_arguments_ = true;
    early_ = value->empty() ? "{}" : *value;
    return has_name_ ? begin() : more();
  }
  if (key_ == Key::kId && !begun_) id_ = *value;
  if (key_ != Key::kName) return more();
  if (value->empty()) return failed();
  name_ = *value;
  has_name_ = true;
  return has_arguments_ ? begin() : more();
}

CallStep CallScanner::after_value(char c) {
  if (is_space(c)) return more();
  if (c == ',') {
    state_ = State::kNextKey;
    return more();
  }
  if (c != '}') return failed();
  CallStep out;
  if (!begun_) {
    if (!has_name_ || without_ == NoArguments::kNoCall) return failed();
    early_ = "{}";
    out = begin();
  }
  out.status = CallStep::Status::kDone;
  return out;
}

}  // namespace quern
