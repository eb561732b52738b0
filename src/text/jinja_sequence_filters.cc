#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_attributes.h"
#include "text/jinja_case.h"
#include "text/jinja_filters.h"
#include "text/jinja_methods.h"
#include "text/jinja_operators.h"
#include "text/jinja_repr.h"
#include "text/jinja_tests.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

// What sort, min and others compare: texts without regard to case unless asked otherwise.
Result<Value> comparable(Runtime& runtime, const Value& value, const Value& case_sensitive) {
  if (!value.is(Kind::kString) || truthy(case_sensitive)) return value;
  return to_lower(runtime, *value.string);
}

Result<Value> filter_length(Runtime&, const Call& call) {
  QUERN_TRY(call.bind({""}, 1));
  return Value::from(QUERN_TRY(length(call.args[0])));
}

Result<Value> filter_list(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  return runtime.sequence(Kind::kList, QUERN_TRY(elements(runtime, call.args[0])));
}

Result<Value> filter_first(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"seq"}, 1));
  const Value& value = call.args[0];
  if (value.is(Kind::kIterator)) {  // takes one and leaves the rest
    Sequence& sequence = *value.sequence;
    if (sequence.position < static_cast<int64_t>(sequence.items.size())) {
      return sequence.items[static_cast<size_t>(sequence.position++)];
    }
  } else if (const int64_t size = is_iterable(value) ? QUERN_TRY(length(value)) : 0; size > 0) {
    if (value.is(Kind::kDict)) return value.dict->pairs.front().key;
    if (value.is(Kind::kString)) return item(runtime, value, Value::from(int64_t{0}));
    return value.sequence->items.front();
  } else if (!is_iterable(value)) {
    return template_error(fmt::format("'{}' is not iterable", type_name(value)));
  }
  return runtime.undefined("No first item, sequence was empty.");
}

Result<Value> filter_last(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"seq"}, 1));
  const Value& value = call.args[0];
  if (!is_iterable(value) || value.is(Kind::kIterator) || value.is(Kind::kUndefined)) {
    return template_error(fmt::format("'{}' has no last element", type_name(value)));
  }
  const int64_t size = QUERN_TRY(length(value));
  if (size == 0) return runtime.undefined("No last item, sequence was empty.");
  if (value.is(Kind::kDict)) return value.dict->pairs.back().key;
  if (value.is(Kind::kString)) return item(runtime, value, Value::from(int64_t{-1}));
  return value.sequence->items.back();
}

Result<Value> filter_join(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "d", "attribute"}, 1));
  const AttributePath path = QUERN_TRY(AttributePath::parse(runtime, a[2]));
  const Str empty{};
  const Value separator = a[1].given() ? QUERN_TRY(to_str(runtime, a[1])) : Value::from(&empty);
  TextBuilder out(runtime);
  bool first = true;
  for (const Value& element : QUERN_TRY(elements(runtime, a[0]))) {
    if (!first) out.append(*separator.string);
    first = false;
    const Value part = QUERN_TRY(path.get(runtime, element));
    QUERN_TRY(append_str(runtime, out, part));
    if (out.failed()) break;
  }
  return out.finish();
}

Result<Value> filter_reverse(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  std::vector<Value> all = QUERN_TRY(elements(runtime, call.args[0]));
  std::reverse(all.begin(), all.end());
  if (!call.args[0].is(Kind::kString)) return runtime.sequence(Kind::kIterator, all);
  TextBuilder out(runtime);
  for (const Value& character : all) out.append(*character.string);
  return out.finish();
}

Result<Value> filter_items(Runtime& runtime, const Call& call) {
  QUERN_TRY(call.bind({"value"}, 1));
  if (call.args[0].is(Kind::kUndefined)) return runtime.sequence(Kind::kIterator, {});
  if (!call.args[0].is(Kind::kDict)) return template_error("items takes a mapping");
  return runtime.sequence(Kind::kIterator, QUERN_TRY(dict_items(runtime, *call.args[0].dict)));
}

// Sorting keeps two entries with their keys for every element, outside the heap.
Result<Unit> room_to_sort(Runtime& runtime, size_t elements) {
  constexpr size_t kEntryBytes = 2 * (sizeof(Keyed) + 2 * sizeof(Value));
  if (elements > runtime.heap().room() / kEntryBytes) return runtime.heap().limit_error();
  return Unit{};
}

// The elements of `sorted`, last first when `reverse` holds; equal ones keep their order either
// way.
Result<Value> sorted_list(Runtime& runtime, std::vector<Keyed> keyed, const Value& reverse) {
  const bool descending = truthy(reverse);
  if (descending) std::reverse(keyed.begin(), keyed.end());
  QUERN_TRY(sort_keyed(runtime, keyed));
  if (descending) std::reverse(keyed.begin(), keyed.end());
  std::vector<Value> result;
  result.reserve(keyed.size());
  for (const Keyed& entry : keyed) result.push_back(entry.value);
  return runtime.sequence(Kind::kList, result);
}

Result<Value> filter_dictsort(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "case_sensitive", "by", "reverse"}, 1));
  const std::string_view by = a[2].is(Kind::kString) ? a[2].string->bytes : "key";
  if (!a[0].is(Kind::kDict)) return template_error("dictsort takes a mapping");
  if (by != "key" && by != "value") return template_error("dictsort(): by must be key or value");
  QUERN_TRY(room_to_sort(runtime, a[0].dict->pairs.size()));
  std::vector<Keyed> keyed;
  for (const Pair& pair : a[0].dict->pairs) {
    const Value key = QUERN_TRY(comparable(runtime, by == "key" ? pair.key : pair.value, a[1]));
    keyed.push_back({{key}, QUERN_TRY(runtime.tuple({pair.key, pair.value}))});
  }
  return sorted_list(runtime, std::move(keyed), a[3]);
}

Result<Value> filter_sort(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "reverse", "case_sensitive", "attribute"}, 1));
  const std::vector<AttributePath> paths = QUERN_TRY(AttributePath::parse_list(runtime, a[3]));
  const std::vector<Value> all = QUERN_TRY(elements(runtime, a[0]));
  QUERN_TRY(room_to_sort(runtime, all.size()));
  std::vector<Keyed> keyed;
  for (const Value& element : all) {
    Keyed entry;
    entry.value = element;
    for (const AttributePath& path : paths) {
      const Value key = QUERN_TRY(path.get(runtime, element));
      entry.keys.push_back(QUERN_TRY(comparable(runtime, key, a[2])));
    }
    keyed.push_back(std::move(entry));
  }
  return sorted_list(runtime, std::move(keyed), a[1]);
}

Result<Value> filter_unique(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "case_sensitive", "attribute"}, 1));
  const AttributePath path = QUERN_TRY(AttributePath::parse(runtime, a[2]));
  Dict seen;
  std::vector<Value> result;
  for (const Value& element : QUERN_TRY(elements(runtime, a[0]))) {
    const Value raw_key = QUERN_TRY(path.get(runtime, element));
    const Value key = QUERN_TRY(comparable(runtime, raw_key, a[1]));
    const size_t known = seen.pairs.size();
    QUERN_TRY(set_key(runtime, seen, key, Value::none()));
    if (seen.pairs.size() > known) result.push_back(element);
  }
  return runtime.sequence(Kind::kIterator, result);
}

enum class Extreme { kMin, kMax };

Result<Value> extreme(Runtime& runtime, const Call& call, Extreme wanted) {
  const auto a = QUERN_TRY(call.bind({"value", "case_sensitive", "attribute"}, 1));
  const AttributePath path = QUERN_TRY(AttributePath::parse(runtime, a[2]));
  Value best;
  Value best_key;
  for (const Value& element : QUERN_TRY(elements(runtime, a[0]))) {
    const Value raw_key = QUERN_TRY(path.get(runtime, element));
    const Value key = QUERN_TRY(comparable(runtime, raw_key, a[1]));
    const bool better =
        !best.given() || QUERN_TRY(wanted == Extreme::kMin ? less(runtime, key, best_key)
                                                           : less(runtime, best_key, key));
    if (!better) continue;
    best = element;
    best_key = key;
  }
  return best.given() ? best : runtime.undefined("No aggregated item, sequence was empty.");
}

Result<Value> filter_min(Runtime& r, const Call& c) { return extreme(r, c, Extreme::kMin); }
Result<Value> filter_max(Runtime& r, const Call& c) { return extreme(r, c, Extreme::kMax); }

Result<Value> filter_sum(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"iterable", "attribute", "start"}, 1));
  const AttributePath path = QUERN_TRY(AttributePath::parse(runtime, a[1]));
  Value total = a[2].given() ? a[2] : Value::from(int64_t{0});
  if (total.is(Kind::kString)) return template_error("sum() does not add texts: use join");
  for (const Value& element : QUERN_TRY(elements(runtime, a[0]))) {
    const Value part = QUERN_TRY(path.get(runtime, element));
    total = QUERN_TRY(binary(runtime, BinaryOp::kAdd, total, part));
  }
  return total;
}

Result<Value> filter_batch(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "linecount", "fill_with"}, 2));
  const int64_t size = QUERN_TRY(integer_argument(call, a[1], 0));
  if (size < 1) return template_error("batch() takes a positive number");
  std::vector<Value> batches;
  std::vector<Value> current;
  const std::vector<Value> all = QUERN_TRY(elements(runtime, a[0]));
  for (size_t i = 0; i < all.size(); ++i) {
    current.push_back(all[i]);
    const bool last = i + 1 == all.size();
    if (static_cast<int64_t>(current.size()) < size && !last) continue;
    const bool fills = a[2].given() && !a[2].is(Kind::kNone);
    for (auto n = static_cast<int64_t>(current.size()); fills && n < size; ++n) {
      QUERN_TRY(runtime.step());
      current.push_back(a[2]);
    }
    batches.push_back(QUERN_TRY(runtime.sequence(Kind::kList, current)));
    current.clear();
  }
  return runtime.sequence(Kind::kIterator, batches);
}

Result<Value> filter_slice(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "slices", "fill_with"}, 2));
  const int64_t slices = QUERN_TRY(integer_argument(call, a[1], 0));
  if (slices < 1) return template_error("slice() takes a positive number");
  const std::vector<Value> all = QUERN_TRY(elements(runtime, a[0]));
  const auto size = static_cast<int64_t>(all.size());
  const int64_t longer = size % slices;
  std::vector<Value> result;
  int64_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    QUERN_TRY(runtime.step());
    const int64_t count = size / slices + (i < longer ? 1 : 0);
    std::vector<Value> part(all.begin() + begin, all.begin() + begin + count);
    if (a[2].given() && !a[2].is(Kind::kNone) && i >= longer) part.push_back(a[2]);
    result.push_back(QUERN_TRY(runtime.sequence(Kind::kList, part)));
    begin += count;
  }
  return runtime.sequence(Kind::kIterator, result);
}

Result<Value> filter_groupby(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"value", "attribute", "default", "case_sensitive"}, 2));
  const AttributePath path = QUERN_TRY(AttributePath::parse(runtime, a[1]));
  const std::vector<Value> all = QUERN_TRY(elements(runtime, a[0]));
  QUERN_TRY(room_to_sort(runtime, all.size()));
  std::vector<Keyed> keyed;
  for (const Value& element : all) {
    const Value key = QUERN_TRY(path.get(runtime, element, a[2]));
    keyed.push_back({{QUERN_TRY(comparable(runtime, key, a[3]))}, element});
  }
  QUERN_TRY(sort_keyed(runtime, keyed));
  std::vector<Value> groups;
  for (size_t i = 0; i < keyed.size();) {
    std::vector<Value> members;
    const size_t first = i;
    for (; i < keyed.size(); ++i) {
      if (!QUERN_TRY(equals(runtime, keyed[i].keys[0], keyed[first].keys[0]))) break;
      members.push_back(keyed[i].value);
    }
    const Value grouper = QUERN_TRY(path.get(runtime, members.front(), a[2]));
    const Value pair[] = {grouper, QUERN_TRY(runtime.sequence(Kind::kList, members))};
    groups.push_back(QUERN_TRY(runtime.sequence(Kind::kTuple, {pair[0], pair[1]}, "group")));
  }
  return runtime.sequence(Kind::kList, groups);
}

// A filter or test by name with arguments of its own, the first of them to be filled in.
class NamedCall {
 public:
  NamedCall(const Function& function,
            std::span<const Value> rest,
            std::span<const NamedValue> named)
      : function_(function), args_(1), named_(named) {
    args_.insert(args_.end(), rest.begin(), rest.end());
  }

  Result<Value> operator()(Runtime& runtime, const Value& subject) {
    args_.front() = subject;
    return function_.body(runtime, Call{function_.name, args_, named_});
  }

 private:
  const Function& function_;
  std::vector<Value> args_;
  std::span<const NamedValue> named_;
};

Result<Value> filter_map_attribute(Runtime& runtime, const Call& call) {
  const auto a = QUERN_TRY(call.bind({"", "attribute", "default"}, 2));
  const AttributePath path = QUERN_TRY(AttributePath::parse(runtime, a[1]));
  std::vector<Value> result;
  for (const Value& element : QUERN_TRY(elements(runtime, a[0]))) {
    result.push_back(QUERN_TRY(path.get(runtime, element, a[2])));
  }
  return runtime.sequence(Kind::kIterator, result);
}

Result<Value> filter_map(Runtime& runtime, const Call& call) {
  const bool by_attribute =
      call.args.size() == 1 && std::any_of(call.named.begin(), call.named.end(),
                                           [](const auto& n) { return n.name == "attribute"; });
  if (!truthy(call.args[0])) return runtime.sequence(Kind::kIterator, {});
  if (by_attribute) return filter_map_attribute(runtime, call);
  if (call.args.size() < 2) return template_error("map takes the name of a filter");
  if (!call.args[1].is(Kind::kString)) return template_error("map takes the name of a filter");
  const std::string_view name = call.args[1].string->bytes;
  const Function* filter = find_filter(name);
  if (filter == nullptr) return template_error(fmt::format("no filter is named '{}'", name));
  NamedCall apply(*filter, call.args.subspan(2), call.named);
  const Runtime::Nesting nesting(runtime);
  QUERN_TRY(nesting.entered());
  std::vector<Value> result;
  for (const Value& element : QUERN_TRY(elements(runtime, call.args[0]))) {
    QUERN_TRY(runtime.step());
    result.push_back(QUERN_TRY(apply(runtime, element)));
  }
  return runtime.sequence(Kind::kIterator, result);
}

enum class Keep { kWhenTrue, kWhenFalse };

Result<Value> chosen(Runtime& runtime, const Call& call, Keep keep, bool by_attribute) {
  const size_t test_at = by_attribute ? 2 : 1;
  if (by_attribute && call.args.size() < 2) {
    return template_error(fmt::format("{} takes the name of an attribute", call.name));
  }
  if (!truthy(call.args[0])) return runtime.sequence(Kind::kIterator, {});
  const AttributePath path =
      QUERN_TRY(AttributePath::parse(runtime, by_attribute ? call.args[1] : Value{}));
  const Function* test = nullptr;
  if (call.args.size() > test_at) {
    const Value& name = call.args[test_at];
    if (name.is(Kind::kString)) test = find_test(name.string->bytes);
    if (test == nullptr) return template_error(fmt::format("{}: no such test", call.name));
  }
  const auto rest = call.args.subspan(std::min(test_at + 1, call.args.size()));
  std::vector<Value> result;
  for (const Value& element : QUERN_TRY(elements(runtime, call.args[0]))) {
    QUERN_TRY(runtime.step());
    Value subject = QUERN_TRY(path.get(runtime, element));
    if (test != nullptr) subject = QUERN_TRY(NamedCall(*test, rest, call.named)(runtime, subject));
    if (truthy(subject) == (keep == Keep::kWhenTrue)) result.push_back(element);
  }
  return runtime.sequence(Kind::kIterator, result);
}

Result<Value> filter_select(Runtime& r, const Call& c) {
  return chosen(r, c, Keep::kWhenTrue, false);
}
Result<Value> filter_reject(Runtime& r, const Call& c) {
  return chosen(r, c, Keep::kWhenFalse, false);
}
Result<Value> filter_selectattr(Runtime& r, const Call& c) {
  return chosen(r, c, Keep::kWhenTrue, true);
}
Result<Value> filter_rejectattr(Runtime& r, const Call& c) {
  return chosen(r, c, Keep::kWhenFalse, true);
}

constexpr Function kSequenceFilters[] = {
    {"batch", filter_batch},     {"count", filter_length},    {"dictsort", filter_dictsort},
    {"first", filter_first},     {"groupby", filter_groupby}, {"items", filter_items},
    {"join", filter_join},       {"last", filter_last},       {"length", filter_length},
    {"list", filter_list},       {"map", filter_map},         {"max", filter_max},
    {"min", filter_min},         {"reject", filter_reject},   {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse}, {"select", filter_select},   {"selectattr", filter_selectattr},
    {"slice", filter_slice},     {"sort", filter_sort},       {"sum", filter_sum},
    {"unique", filter_unique},
};

}  // namespace

std::span<const Function> sequence_filters() { return kSequenceFilters; }

const Function* find_filter(std::string_view name) {
  const Function* found = find_function(sequence_filters(), name);
  return found != nullptr ? found : find_function(text_filters(), name);
}

}  // namespace quern::jinja
