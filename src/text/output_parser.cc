#include "text/output_parser.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>

#include "text/output_parser_call.h"

namespace quern {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kThinkEnd = "</think>";
constexpr std::string_view kToolCall = "<tool_call>";
constexpr std::string_view kToolCallEnd = "</tool_call>";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kToolCalls = "[TOOL_CALLS]";
constexpr std::string_view kArgs = "[ARGS]";
constexpr std::string_view kCallId = "[CALL_ID]";
constexpr std::string_view kChannel = "<|channel|>";
constexpr std::string_view kMessage = "<|message|>";
constexpr std::string_view kStart = "<|start|>";
constexpr std::string_view kEnd = "<|end|>";
constexpr std::string_view kCall = "<|call|>";
constexpr std::string_view kReturn = "<|return|>";

constexpr size_t kMaxHeaderBytes = 512;  // of a harmony message; longer ones are text
constexpr size_t kMaxNameBytes = 128;    // of a function before [ARGS]

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

// What begins with `from` up to the next space or marker.
std::string_view word_behind(std::string_view text, std::string_view from) {
  const size_t at = text.find(from);
  if (at == text.npos) return {};
  const std::string_view rest = text.substr(at + from.size());
  return rest.substr(0, rest.find_first_of(" \n\t<"));
}

}  // namespace

class OutputParser::Machine {
 public:
  explicit Machine(OutputDialect dialect);

  void step(char c);
  void finish();
  std::vector<OutputDelta> take() { return std::exchange(out_, {}); }
  int32_t calls() const { return calls_; }

 private:
  enum class Mode {
    kStart,       // before any text: reasoning or a bare call may begin
    kReasoning,   // until </think>
    kContent,     // until a marker
    kBehindCall,  // where another bare call may begin
    kJson,        // one call as JSON
    kJsonEnd,     // </tool_call>
    kToolCalls,   // behind [TOOL_CALLS]
    kListNext,    // between the calls of a list
    kName,        // a name before [ARGS]
    kNameMarker,  // [ARGS] or [CALL_ID]
    kCallId,
    kArguments,  // until their object closes
    kHeader,     // of a harmony message
    kBody,
  };

  void emit(OutputKind kind, std::string_view text);
  void emit_begin(const std::string& name, const std::string& id);
  void say(OutputKind kind, std::string_view text);
  void content(std::string_view text) { say(OutputKind::kContent, text); }
  void become(Mode mode);
  void fail();
  void fail_with(char c);
  void end_call();
  int match(char c, std::initializer_list<std::string_view> markers, std::string& text);

  void step_start(char c);
  void step_reasoning(char c);
  void step_content(char c);
  void step_behind_call(char c);
  void begin_json(CallScanner::NoArguments without);
  void step_json(char c);
  void step_json_end(char c);
  void step_tool_calls(char c);
  void step_list_next(char c);
  void step_name(char c);
  void step_name_marker(char c);
  void step_call_id(char c);
  void begin_arguments();
  void step_arguments(char c);
  void step_header(char c);
  void end_header();
  void step_body(char c);

  OutputDialect dialect_;
  Mode mode_ = Mode::kStart;
  std::vector<OutputDelta> out_;
  int32_t calls_ = 0;
  std::string held_;       // the start of what may be a marker
  std::string space_;      // white space that counts only if text of its kind follows
  bool fresh_ = false;     // white space is left out until text follows
  bool reasoned_ = false;  // <think> has had its place
  std::string raw_;        // what becomes content should the call turn out to be none
  std::optional<CallScanner> call_;
  ObjectScanner object_;
  bool open_ = false;     // the object of bare arguments has begun
  bool in_list_ = false;  // of [TOOL_CALLS][...]
  bool tagged_ = false;   // the call stands in <tool_call>
  std::string name_;
  std::string id_;
  OutputKind body_ = OutputKind::kContent;  // of a harmony message
};

OutputParser::Machine::Machine(OutputDialect dialect) : dialect_(dialect) {
  if (dialect.tools == ToolDialect::kHarmony) {
    mode_ = Mode::kHeader;
  } else if (dialect.reasoning == ReasoningStyle::kThinkOpened) {
    mode_ = Mode::kReasoning;
    fresh_ = true;
  }
}

void OutputParser::Machine::emit(OutputKind kind, std::string_view text) {
  if (text.empty()) return;
  const int32_t index = kind == OutputKind::kToolArguments ? calls_ - 1 : 0;
  if (!out_.empty() && out_.back().kind == kind && out_.back().index == index) {
    out_.back().text += text;
  } else {
    out_.push_back({kind, std::string(text), index, {}});
  }
}

void OutputParser::Machine::emit_begin(const std::string& name, const std::string& id) {
  space_.clear();
  raw_.clear();
  out_.push_back({OutputKind::kToolBegin, name, calls_++, id});
}

// Content or reasoning; white space waits for what follows it.
void OutputParser::Machine::say(OutputKind kind, std::string_view text) {
  if (fresh_) {
    text.remove_prefix(std::min(text.find_first_not_of(" \n\r\t"), text.size()));
    if (text.empty()) return;
    fresh_ = false;
  }
  const size_t last = text.find_last_not_of(" \n\r\t");
  if (last != text.npos) {
    emit(kind, std::exchange(space_, {}));
    emit(kind, text.substr(0, last + 1));
    text.remove_prefix(last + 1);
  }
  space_ += text;
}

void OutputParser::Machine::become(Mode mode) {
  mode_ = mode;
  held_.clear();
}

// Collects markers. The index of the one that is complete, or -1 while one may still come or none
// does; what is text after all is added to `text`.
int OutputParser::Machine::match(char c,
                                 std::initializer_list<std::string_view> markers,
                                 std::string& text) {
  held_ += c;
  while (!held_.empty()) {
    int index = 0;
    for (const std::string_view marker : markers) {
      if (marker == held_) {
        held_.clear();
        return index;
      }
      if (marker.starts_with(held_)) return -1;
      ++index;
    }
    text += held_[0];
    held_.erase(0, 1);
  }
  return -1;
}

// What was read of a call is content.
void OutputParser::Machine::fail() {
  std::string text = std::exchange(raw_, {});
  if (call_) text += call_->raw();
  text += held_;
  call_.reset();
  in_list_ = tagged_ = false;
  become(Mode::kContent);
  content(text);
}

// As above, and the byte may begin something else.
void OutputParser::Machine::fail_with(char c) {
  fail();
  step_content(c);
}

void OutputParser::Machine::end_call() {
  call_.reset();
  raw_.clear();
  fresh_ = true;
  if (in_list_) return become(Mode::kListNext);
  if (tagged_) return become(Mode::kJsonEnd);
  become(dialect_.tools == ToolDialect::kLlama3 ? Mode::kBehindCall : Mode::kContent);
}

void OutputParser::Machine::step(char c) {
  switch (mode_) {
    case Mode::kStart:
      return step_start(c);
    case Mode::kReasoning:
      return step_reasoning(c);
    case Mode::kContent:
      return step_content(c);
    case Mode::kBehindCall:
      return step_behind_call(c);
    case Mode::kJson:
      return step_json(c);
    case Mode::kJsonEnd:
      return step_json_end(c);
    case Mode::kToolCalls:
      return step_tool_calls(c);
    case Mode::kListNext:
      return step_list_next(c);
    case Mode::kName:
      return step_name(c);
    case Mode::kNameMarker:
      return step_name_marker(c);
    case Mode::kCallId:
      return step_call_id(c);
    case Mode::kArguments:
      return step_arguments(c);
    case Mode::kHeader:
      return step_header(c);
    case Mode::kBody:
      return step_body(c);
  }
}

// <think> counts at the very start only: later it is something the answer speaks of.
void OutputParser::Machine::step_start(char c) {
  if (held_.empty() && is_space(c)) return content(std::string_view(&c, 1));
  const bool may_reason = dialect_.reasoning != ReasoningStyle::kNone && !reasoned_;
  if (may_reason && kThink.starts_with(held_ + c)) {
    held_ += c;
    if (held_ != kThink) return;
    space_.clear();
    fresh_ = true;
    return become(Mode::kReasoning);
  }
  if (held_.empty() && dialect_.tools == ToolDialect::kLlama3 && c == '{') {
    begin_json(CallScanner::NoArguments::kNoCall);
    return step_json(c);
  }
  const std::string held = held_;
  become(Mode::kContent);
  for (const char h : held) step_content(h);
  step(c);
}

void OutputParser::Machine::step_reasoning(char c) {
  std::string text;
  const bool ended = match(c, {kThinkEnd}, text) >= 0;
  say(OutputKind::kReasoning, text);
  if (!ended) return;
  space_.clear();
  fresh_ = true;
  reasoned_ = true;
  become(Mode::kStart);
}

void OutputParser::Machine::step_content(char c) {
  std::string text;
  int found = -1;
  switch (dialect_.tools) {
    case ToolDialect::kHermes:
      found = match(c, {kToolCall}, text);
      break;
    case ToolDialect::kMistral:
      found = match(c, {kToolCalls}, text);
      break;
    case ToolDialect::kLlama3:
      found = match(c, {kPythonTag}, text);
      break;
    case ToolDialect::kNone:
    case ToolDialect::kHarmony:
      text = c;
      break;
  }
  content(text);
  if (found < 0) return;
  if (dialect_.tools == ToolDialect::kMistral) {
    raw_ = kToolCalls;
    return become(Mode::kToolCalls);
  }
  tagged_ = dialect_.tools == ToolDialect::kHermes;
  raw_ = tagged_ ? kToolCall : kPythonTag;
  begin_json(CallScanner::NoArguments::kCall);
}

// Llama 3 writes calls one behind the other, with or without a semicolon between them.
void OutputParser::Machine::step_behind_call(char c) {
  if (is_space(c) || (c == ';' && raw_.find(';') == raw_.npos)) {
    raw_ += c;
    return;
  }
  if (c == '{') {
    begin_json(CallScanner::NoArguments::kNoCall);
    return step_json(c);
  }
  fail_with(c);
}

void OutputParser::Machine::begin_json(CallScanner::NoArguments without) {
  call_.emplace(without);
  become(Mode::kJson);
}

void OutputParser::Machine::step_json(char c) {
  const CallStep found = call_->feed(c);
  if (found.status == CallStep::Status::kFailed) return fail_with(c);
  if (found.begins) emit_begin(call_->name(), call_->id());
  emit(OutputKind::kToolArguments, found.arguments);
  if (found.status == CallStep::Status::kDone) end_call();
}

void OutputParser::Machine::step_json_end(char c) {
  if (held_.empty() && is_space(c)) return;
  if (!kToolCallEnd.starts_with(held_ + c)) return fail_with(c);
  held_ += c;
  if (held_ != kToolCallEnd) return;
  tagged_ = false;
  become(Mode::kContent);
}

void OutputParser::Machine::step_tool_calls(char c) {
  if (c == '{') {
    begin_json(CallScanner::NoArguments::kCall);
    return step_json(c);
  }
  if (c != '[' && !is_space(c) && !is_name_character(c)) return fail_with(c);
  raw_ += c;
  if (c == '[') {
    in_list_ = true;
    begin_json(CallScanner::NoArguments::kCall);
  } else if (!is_space(c)) {
    name_ = c;
    id_.clear();
    become(Mode::kName);
  }
}

void OutputParser::Machine::step_list_next(char c) {
  if (c != ',' && c != ']' && !is_space(c)) return fail_with(c);
  raw_ += c;
  if (c == ',') begin_json(CallScanner::NoArguments::kCall);
  if (c != ']') return;
  in_list_ = false;
  raw_.clear();
  become(Mode::kContent);
}

void OutputParser::Machine::step_name(char c) {
  if (c == '{') {
    begin_arguments();
    return step_arguments(c);
  }
  if (c == '[') {
    become(Mode::kNameMarker);
    held_ = c;
    return;
  }
  if (!is_name_character(c) || name_.size() == kMaxNameBytes) return fail_with(c);
  name_ += c;
  raw_ += c;
}

void OutputParser::Machine::step_name_marker(char c) {
  held_ += c;
  if (!kArgs.starts_with(held_) && !kCallId.starts_with(held_)) {
    held_.pop_back();
    return fail_with(c);
  }
  if (held_ != kArgs && held_ != kCallId) return;
  raw_ += held_;
  if (held_ == kArgs) return begin_arguments();
  become(Mode::kCallId);
}

void OutputParser::Machine::step_call_id(char c) {
  if (c == '[') {
    become(Mode::kNameMarker);
    held_ = c;
    return;
  }
  if (!is_name_character(c) || id_.size() == kMaxNameBytes) return fail_with(c);
  id_ += c;
  raw_ += c;
}

void OutputParser::Machine::begin_arguments() {
  object_ = {};
  open_ = false;
  become(Mode::kArguments);
}

void OutputParser::Machine::step_arguments(char c) {
  if (!open_) {
    if (is_space(c)) {
      raw_ += c;
      return;
    }
    if (c != '{') return fail_with(c);
    open_ = true;
    emit_begin(name_, id_);
  }
  emit(OutputKind::kToolArguments, std::string_view(&c, 1));
  if (object_.feed(c)) end_call();
}

// A header is kept until it is known to be one: it begins with a marker or a recipient.
void OutputParser::Machine::step_header(char c) {
  raw_ += c;
  if (raw_.ends_with(kMessage)) return end_header();
  const auto begins = [&](std::string_view start) {
    return start.starts_with(raw_) || raw_.starts_with(start);
  };
  const bool header = begins(kChannel) || begins(kStart) || begins(" to=");
  if (header && raw_.size() <= kMaxHeaderBytes) return;
  raw_.pop_back();
  const std::string text = std::exchange(raw_, {});
  body_ = OutputKind::kContent;
  become(Mode::kBody);
  content(text);
  step_body(c);
}

void OutputParser::Machine::end_header() {
  const std::string header = std::exchange(raw_, {});
  std::string_view recipient = word_behind(header, "to=");
  constexpr std::string_view kFunctions = "functions.";
  if (recipient.starts_with(kFunctions)) recipient.remove_prefix(kFunctions.size());
  const std::string_view channel = word_behind(header, kChannel);
  space_.clear();
  become(Mode::kBody);
  body_ = channel == "analysis" ? OutputKind::kReasoning : OutputKind::kContent;
  if (recipient.empty()) return;
  body_ = OutputKind::kToolArguments;
  emit_begin(std::string(recipient), {});
}

void OutputParser::Machine::step_body(char c) {
  std::string text;
  const int found = match(c, {kEnd, kCall, kReturn, kStart, kChannel}, text);
  if (body_ == OutputKind::kToolArguments) {
    emit(body_, text);
  } else {
    say(body_, text);
  }
  if (found < 0) return;
  if (found < 3) space_.clear();
  become(Mode::kHeader);
  if (found == 3) raw_ = kStart;
  if (found == 4) raw_ = kChannel;
}

void OutputParser::Machine::finish() {
  const bool reasoning = mode_ == Mode::kReasoning;
  const OutputKind kind = mode_ == Mode::kBody ? body_
                          : reasoning          ? OutputKind::kReasoning
                                               : OutputKind::kContent;
  if (mode_ == Mode::kReasoning || mode_ == Mode::kBody) {
    if (kind == OutputKind::kToolArguments) {
      emit(kind, std::exchange(held_, {}));
    } else {
      say(kind, std::exchange(held_, {}));
    }
  } else {
    fail();
  }
  if (!fresh_) emit(kind, std::exchange(space_, {}));
}

OutputParser::OutputParser(OutputDialect dialect) : machine_(std::make_unique<Machine>(dialect)) {}
OutputParser::OutputParser(OutputParser&&) noexcept = default;
OutputParser& OutputParser::operator=(OutputParser&&) noexcept = default;
OutputParser::~OutputParser() = default;

std::vector<OutputDelta> OutputParser::feed(std::string_view piece) {
  for (const char c : piece) machine_->step(c);
  return machine_->take();
}

std::vector<OutputDelta> OutputParser::finish() {
  machine_->finish();
  return machine_->take();
}

int32_t OutputParser::tool_calls() const { return machine_->calls(); }

}  // namespace quern
