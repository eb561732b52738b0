// What the interpreter calls back into: scopes, macros and loops.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"

namespace quern::jinja {

struct Binding {
  NameId name = -1;
  Value value;
};

// The names that one body binds. Lives in the Heap, so that macros may keep the scope they were
// made in.
struct Scope {
  Scope* parent = nullptr;
  std::span<Binding> bindings = {};  // the used part of `capacity`
  size_t capacity = 0;

  // The binding in this scope or the nearest one around it, or nullptr. Adds what it looked at to
  // `looked_at`.
  const Binding* find(NameId name, int64_t& looked_at) const;
  // Forgets its bindings but keeps their room.
  void clear() { bindings = std::span<Binding>(bindings.data(), 0); }

  // Errors: memory.
  Result<Unit> bind(Heap& heap, NameId name, const Value& value);
};

struct Macro {
  const MacroStmt* definition;
  Scope* scope;

  std::string_view name() const { return definition->shown_name; }
};

// The `loop` of a running for statement.
struct Loop {
  const ForStmt* statement;
  Scope* scope;                  // around the statement
  std::span<const Value> items;  // not yet looked at from `taken` on
  size_t taken = 0;
  int64_t length = -1;  // -1: not known until the condition has met all items
  int64_t index0 = -1;
  int64_t depth0 = 0;
  Value previous = {}, current = {}, next = {};  // `next` is kMissing until looked ahead
  Scope* body_scope = nullptr;  // used again by the next iteration unless a macro keeps it
  Scope* condition_scope = nullptr;
  Value changed = {};  // the last arguments of changed()
};

}  // namespace quern::jinja
