#include "text/jinja_callables.h"

#include <algorithm>

namespace quern::jinja {

const Binding* Scope::find(NameId name, int64_t& looked_at) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent) {
    looked_at += 1 + static_cast<int64_t>(scope->bindings.size());
    for (const Binding& binding : scope->bindings) {
      if (binding.name == name) return &binding;
    }
  }
  return nullptr;
}

Result<Unit> Scope::bind(Heap& heap, NameId name, const Value& value) {
  for (Binding& binding : bindings) {
    if (binding.name == name) {
      binding.value = value;
      return Unit{};
    }
  }
  const size_t size = bindings.size();
  if (size == capacity) {
    const size_t grown = std::max<size_t>(4, size * 2);
    const auto larger = QUERN_TRY(heap.make_array<Binding>(grown));
    std::copy(bindings.begin(), bindings.end(), larger.begin());
    bindings = larger;
    capacity = grown;
  }
  bindings = std::span<Binding>(bindings.data(), size + 1);
  bindings.back() = {name, value};
  return Unit{};
}

}  // namespace quern::jinja
