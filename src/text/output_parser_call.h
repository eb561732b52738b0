// Reads one tool call as JSON, a byte at a time: {"name": ..., "arguments": {...}}.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quern {

// Follows one JSON object by its brackets and strings, without judging what is inside.
class ObjectScanner {
 public:
  // True with the byte that closes the object. The first byte is `{`.
  bool feed(char c);

 private:
  int64_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

// What a byte made known.
struct CallStep {
  enum class Status {
    kMore,
    kDone,    // the object is closed
    kFailed,  // no tool call; the byte is not part of it
  };

  Status status = Status::kMore;
  bool begins = false;    // the name is known and arguments follow: name() and id()
  std::string arguments;  // more of their text
};

// Keys may come in any order: arguments before the name are kept until it is known. Accepted are
// "name" or "function" (strings), "arguments" or "parameters" (an object, or a string that holds
// one), "id" and "type" (strings), each once.
class CallScanner {
 public:
  // What an object without arguments is.
  enum class NoArguments {
    kCall,    // of a function without parameters
    kNoCall,  // some other object
  };

  explicit CallScanner(NoArguments without) : without_(without) {}

  CallStep feed(char c);

  bool begun() const { return begun_; }
  const std::string& name() const { return name_; }
  const std::string& id() const { return id_; }  // empty: none was given

  // What was read since the arguments ended, or since the start where no call has begun.
  const std::string& raw() const { return raw_; }

 private:
  enum class State {
    kOpen,
    kFirstKey,
    kNextKey,
    kKey,
    kColon,
    kValue,
    kText,
    kArguments,
    kArgumentsText,
    kAfterValue,
  };
  enum class Key { kName, kArguments, kId, kType };

  CallStep failed() const { return {CallStep::Status::kFailed, false, {}}; }
  CallStep more() const { return {}; }
  CallStep start_key(char c);
  CallStep start_value(char c);
  CallStep end_key();
  CallStep end_text();
  CallStep begin();
  CallStep more_arguments(char c);
  CallStep after_value(char c);
  bool text(char c);
  std::optional<std::string> decoded() const;

  NoArguments without_;
  State state_ = State::kOpen;
  Key key_ = Key::kName;
  std::string text_;  // of the string being read, escapes as written
  bool escaped_ = false;
  ObjectScanner object_;
  bool has_arguments_ = false;
  bool has_name_ = false;
  bool begun_ = false;
  std::string name_;
  std::string id_;
  std::string early_;  // arguments that came before the name
  std::string raw_;
};

}  // namespace quern
