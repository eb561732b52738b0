// What every built-in of a template needs: memory, budgets, the time, and how arguments are bound.
#pragma once

#include <array>
#include <cstdint>
#include <ctime>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/jinja_heap.h"
#include "text/jinja_value.h"

namespace quern::jinja {

Error template_error(std::string message);

class Runtime {
 public:
  Runtime(const ChatTemplateLimits& limits, const std::tm& now)
      : heap_(limits.memory_bytes), limits_(limits), now_(now) {}

  Heap& heap() { return heap_; }

  const ChatTemplateLimits& limits() const { return limits_; }

  const std::tm& now() const { return now_; }

  // Spends `count` steps. Errors: kInvalidArgument when steps or memory are used up.
  Result<Unit> step(int64_t count = 1);

  // Spends the steps of an operation that reads `bytes` bytes of text.
  Result<Unit> read(size_t bytes) { return step(1 + static_cast<int64_t>(bytes / 32)); }

  // One level of nesting for the lifetime of the object; entered() fails when there are too many.
  class Nesting {
   public:
    explicit Nesting(Runtime& runtime) : runtime_(runtime) { ++runtime_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    ~Nesting() { --runtime_.depth_; }

    Result<Unit> entered() const;

   private:
    Runtime& runtime_;
  };

  // Text of the template's own. Errors: when memory is used up.
  Result<Value> text(std::string_view bytes);

  // Undefined, with the reason that an error on its use states. `reason` outlives the rendering.
  Value undefined(std::string_view reason);
  // Undefined because `owner` has no `name`.
  Result<Value> undefined(const Value& owner, std::string_view name);

  Result<Value> sequence(Kind kind, const std::vector<Value>& items, std::string_view name = {});
  Value sequence_of(Kind kind, std::span<const Value> items, std::string_view name = {});
  Result<Value> tuple(std::initializer_list<Value> items);

 private:
  Heap heap_;
  ChatTemplateLimits limits_;
  std::tm now_;
  int64_t steps_ = 0;
  int64_t depth_ = 0;
};

struct NamedValue {
  std::string_view name;
  Value value;
};

// The arguments of one call; for a filter, test or method the first is what it is applied to.
struct Call {
  std::string_view name;
  std::span<const Value> args;
  std::span<const NamedValue> named = {};

  // The arguments in the order of `parameters`, kMissing where not given. A parameter written as ""
  // takes no keyword. Errors: too many, unknown or doubled ones, or fewer than `required`.
  template <size_t n>
  Result<std::array<Value, n>> bind(const std::string_view (&parameters)[n],
                                    size_t required) const {
    std::array<Value, n> bound{};
    QUERN_TRY(bind_into(bound, parameters, required));
    return bound;
  }

 private:
  Result<Unit> bind_into(std::span<Value> bound,
                         std::span<const std::string_view> parameters,
                         size_t required) const;
};

using Builtin = Result<Value> (*)(Runtime&, const Call&);

struct Function {
  std::string_view name;
  Builtin body;
};

struct Method {
  Value self;
  Function function;
};

// The entry named `name` of a table, or nullptr.
const Function* find_function(std::span<const Function> table, std::string_view name);

// An integer argument, `fallback` when missing. Errors: not an integer.
Result<int64_t> integer_argument(const Call& call, const Value& value, int64_t fallback);

}  // namespace quern::jinja
