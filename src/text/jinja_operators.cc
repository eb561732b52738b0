#include "text/jinja_operators.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "text/jinja_percent.h"
#include "text/jinja_text.h"

namespace quern::jinja {
namespace {

Error type_error(std::string_view op, const Value& a, const Value& b) {
  return template_error(
      fmt::format("'{}' is not defined between '{}' and '{}'", op, type_name(a), type_name(b)));
}

Error undefined_error(const Value& value) {
  return template_error(std::string(value.string->bytes));
}

bool ordered_alike(const Value& a, const Value& b) {
  if (a.is(Kind::kIterator) || b.is(Kind::kIterator)) return false;
  return a.kind == b.kind && a.is_sequence();
}

Result<bool> equal_sequences(Runtime& runtime, const Sequence& a, const Sequence& b) {
  if (a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!QUERN_TRY(equals(runtime, a.items[i], b.items[i]))) return false;
  }
  return true;
}

Result<bool> equal_dicts(Runtime& runtime, const Dict& a, const Dict& b) {
  if (a.pairs.size() != b.pairs.size()) return false;
  for (const Pair& pair : a.pairs) {
    const Value* other = QUERN_TRY(find_key(runtime, b, pair.key));
    if (other == nullptr || !QUERN_TRY(equals(runtime, pair.value, *other))) return false;
  }
  return true;
}

bool hashable(const Value& value) {
  switch (value.kind) {
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
    case Kind::kSlice:
      return false;
    case Kind::kTuple:
      return std::all_of(value.sequence->items.begin(), value.sequence->items.end(),
                         [](const Value& v) {
                           // Deeper tuples would need a nesting check for a case that no template
                           // has.
                           return !v.is(Kind::kTuple) && hashable(v);
                         });
    default:
      return true;
  }
}

Result<Value> integer_arithmetic(BinaryOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case BinaryOp::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case BinaryOp::kSub:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case BinaryOp::kMul:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    default:  // // and %: the quotient rounds down
      if (b == 0) return template_error("division by zero");
      if (a == INT64_MIN && b == -1) {
        overflow = op == BinaryOp::kFloorDiv;
        break;
      }
      result = op == BinaryOp::kFloorDiv ? a / b : a % b;
      if (a % b != 0 && (a < 0) != (b < 0)) result += op == BinaryOp::kFloorDiv ? -1 : b;
  }
  if (overflow) return template_error("the integer does not fit 64 bits");
  return Value::from(result);
}

Result<Value> integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return template_error("division by zero");
    return Value::from(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      return template_error("the integer does not fit 64 bits");
    }
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) {
      return template_error("the integer does not fit 64 bits");
    }
  }
  return Value::from(result);
}

Result<Value> real_arithmetic(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd:
      return Value::from(a + b);
    case BinaryOp::kSub:
      return Value::from(a - b);
    case BinaryOp::kMul:
      return Value::from(a * b);
    case BinaryOp::kPow: {
      if (a == 0 && b < 0) return template_error("division by zero");
      if (a < 0 && std::isfinite(b) && b != std::floor(b)) {
        return template_error("a negative number to a fractional power is not real");
      }
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
        return template_error("the number is too large");
      }
      return Value::from(result);
    }
    default:
      break;
  }
  if (b == 0) return template_error("division by zero");
  if (op == BinaryOp::kDiv) return Value::from(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == BinaryOp::kMod) return Value::from(remainder == 0 ? std::copysign(0.0, b) : remainder);
  const double quotient = std::floor((a - remainder) / b + 0.5);  // exact but for rounding
  return Value::from(std::isfinite(b) ? quotient : std::floor(a / b));
}

Result<Value> arithmetic(BinaryOp op, const Value& a, const Value& b) {
  if (!a.is_integer() || !b.is_integer() || op == BinaryOp::kDiv) {
    return real_arithmetic(op, a.as_real(), b.as_real());
  }
  if (op == BinaryOp::kPow) return integer_power(a.as_integer(), b.as_integer());
  return integer_arithmetic(op, a.as_integer(), b.as_integer());
}

Result<Value> joined(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is(Kind::kString)) {
    QUERN_TRY(runtime.read(a.string->bytes.size() + b.string->bytes.size()));
    TextBuilder text(runtime);
    text.append(*a.string);
    text.append(*b.string);
    return text.finish();
  }
  const auto left = a.sequence->items;
  const auto right = b.sequence->items;
  QUERN_TRY(runtime.step(static_cast<int64_t>(left.size() + right.size())));
  const auto all = QUERN_TRY(runtime.heap().make_array<Value>(left.size() + right.size()));
  std::copy(right.begin(), right.end(), std::copy(left.begin(), left.end(), all.begin()));
  return runtime.sequence_of(a.kind, all);
}

Result<Value> repeated(Runtime& runtime, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  const size_t unit =
      value.is(Kind::kString) ? value.string->bytes.size() : value.sequence->items.size();
  if (unit == 0) count = 0;
  int64_t total = 0;
  if (__builtin_mul_overflow(count, static_cast<int64_t>(unit), &total)) total = INT64_MAX / 2;
  if (value.is(Kind::kString)) {
    if (!runtime.heap().fits(static_cast<size_t>(total))) return runtime.heap().limit_error();
    QUERN_TRY(runtime.step(count));
    QUERN_TRY(runtime.read(static_cast<size_t>(total)));
    TextBuilder text(runtime);
    for (; count > 0 && !text.failed(); --count) text.append(*value.string);
    return text.finish();
  }
  QUERN_TRY(runtime.step(std::min(total, INT64_MAX / 4)));
  const auto all = QUERN_TRY(runtime.heap().make_array<Value>(static_cast<size_t>(total)));
  for (size_t i = 0; i < all.size(); ++i) all[i] = value.sequence->items[i % unit];
  return runtime.sequence_of(value.kind, all);
}

bool repeatable(const Value& value) {
  return value.is(Kind::kString) || value.is(Kind::kList) || value.is(Kind::kTuple);
}

std::string_view symbol(BinaryOp op) {
  static constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

// The bounds of a slice over `length` elements, as Python's slice.indices.
struct Range {
  int64_t start, step, count;
};

Result<Range> slice_range(const Slice& slice, int64_t length) {
  const auto part = [](const Value& v, int64_t fallback) -> Result<int64_t> {
    if (v.is(Kind::kNone)) return fallback;
    if (v.is_integer()) return v.as_integer();
    return template_error("slice indices must be integers or none");
  };
  const int64_t step = QUERN_TRY(part(slice.step, 1));
  if (step == 0) return template_error("a slice's step cannot be zero");
  const int64_t low = step > 0 ? 0 : -1;
  const int64_t high = step > 0 ? length : length - 1;
  const auto clamp = [&](int64_t i) { return std::clamp(i < 0 ? i + length : i, low, high); };
  int64_t start = step > 0 ? low : high;
  int64_t stop = step > 0 ? high : low;
  if (!slice.start.is(Kind::kNone)) start = clamp(QUERN_TRY(part(slice.start, 0)));
  if (!slice.stop.is(Kind::kNone)) stop = clamp(QUERN_TRY(part(slice.stop, 0)));
  int64_t count = 0;
  if (step > 0 && start < stop) count = 1 + (stop - start - 1) / step;
  if (step < 0 && start > stop) {
    const uint64_t stride = uint64_t{0} - static_cast<uint64_t>(step);
    count = 1 + static_cast<int64_t>(static_cast<uint64_t>(start - stop - 1) / stride);
  }
  return Range{start, step, count};
}

Result<Value> sliced(Runtime& runtime, const Value& object, const Slice& slice) {
  if (object.is(Kind::kString)) {
    const Str& text = *object.string;
    const Range range = QUERN_TRY(slice_range(slice, text.length));
    QUERN_TRY(runtime.read(text.bytes.size()));
    if (range.count == 0) return slice_bytes(runtime, text, 0, 0);
    if (range.step == 1) {
      const size_t begin = byte_offset(text, range.start);
      return slice_bytes(runtime, text, begin, byte_offset(text, range.start + range.count));
    }
    const std::vector<Value> all = QUERN_TRY(characters(runtime, text));
    TextBuilder builder(runtime);
    for (int64_t i = 0; i < range.count; ++i) {
      builder.append(*all[static_cast<size_t>(range.start + i * range.step)].string);
    }
    return builder.finish();
  }
  const auto items = object.sequence->items;
  const Range range = QUERN_TRY(slice_range(slice, static_cast<int64_t>(items.size())));
  if (range.step == 1) {
    return runtime.sequence_of(
        object.kind,
        items.subspan(static_cast<size_t>(range.count == 0 ? 0 : range.start),
                      static_cast<size_t>(range.count)),
        object.sequence->name);
  }
  QUERN_TRY(runtime.step(range.count));
  const auto part = QUERN_TRY(runtime.heap().make_array<Value>(static_cast<size_t>(range.count)));
  for (int64_t i = 0; i < range.count; ++i) {
    part[static_cast<size_t>(i)] = items[static_cast<size_t>(range.start + i * range.step)];
  }
  return runtime.sequence_of(object.kind, part, object.sequence->name);
}

// Python's lexicographic order of two lists or tuples.
Result<bool> less_sequences(Runtime& runtime, const Sequence& a, const Sequence& b) {
  const size_t shorter = std::min(a.items.size(), b.items.size());
  for (size_t i = 0; i < shorter; ++i) {
    if (QUERN_TRY(equals(runtime, a.items[i], b.items[i]))) continue;
    return less(runtime, a.items[i], b.items[i]);
  }
  return a.items.size() < b.items.size();
}

// True when `b` must come before `a`, that is when their order has to change.
Result<bool> out_of_order(Runtime& runtime, const Keyed& a, const Keyed& b) {
  for (size_t i = 0; i < a.keys.size(); ++i) {
    if (a.keys.size() > 1 && QUERN_TRY(equals(runtime, a.keys[i], b.keys[i]))) continue;
    return less(runtime, b.keys[i], a.keys[i]);
  }
  return false;
}

}  // namespace

bool truthy(const Value& value) {
  switch (value.kind) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.boolean;
    case Kind::kInt:
      return value.integer != 0;
    case Kind::kFloat:
      return value.real != 0;
    case Kind::kString:
      return !value.string->bytes.empty();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView:
      return !value.sequence->items.empty();
    case Kind::kDict:
      return !value.dict->pairs.empty();
    default:
      return true;
  }
}

bool identical(const Value& a, const Value& b) {
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kMissing:
    case Kind::kNone:
      return true;
    case Kind::kBool:
      return a.boolean == b.boolean;
    case Kind::kInt:
      return a.integer == b.integer;
    case Kind::kFloat:
      return a.real == b.real;
    case Kind::kString:
      return a.string->bytes == b.string->bytes;
    case Kind::kMethod:
      return false;
    default:
      return a.string == b.string;  // all others are pointers
  }
}

Result<bool> equals(Runtime& runtime, const Value& a, const Value& b) {
  const Runtime::Nesting nesting(runtime);
  QUERN_TRY(nesting.entered());
  QUERN_TRY(runtime.step());
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.as_integer() == b.as_integer();
    return a.as_real() == b.as_real();
  }
  if (a.kind != b.kind) return false;
  if (a.is(Kind::kUndefined)) return true;
  if (a.is(Kind::kString)) {
    QUERN_TRY(runtime.read(std::min(a.string->bytes.size(), b.string->bytes.size())));
    return a.string->bytes == b.string->bytes;
  }
  if (ordered_alike(a, b)) return equal_sequences(runtime, *a.sequence, *b.sequence);
  if (a.is(Kind::kDict)) return equal_dicts(runtime, *a.dict, *b.dict);
  return identical(a, b);
}

Result<bool> less(Runtime& runtime, const Value& a, const Value& b) {
  const Runtime::Nesting nesting(runtime);
  QUERN_TRY(nesting.entered());
  QUERN_TRY(runtime.step());
  if (a.is(Kind::kUndefined)) return undefined_error(a);
  if (b.is(Kind::kUndefined)) return undefined_error(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.as_integer() < b.as_integer();
    return a.as_real() < b.as_real();
  }
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    QUERN_TRY(runtime.read(std::min(a.string->bytes.size(), b.string->bytes.size())));
    return a.string->bytes < b.string->bytes;  // UTF-8 sorts as its code points do
  }
  if (a.kind == b.kind && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    return less_sequences(runtime, *a.sequence, *b.sequence);
  }
  return type_error("<", a, b);
}

Result<bool> contains(Runtime& runtime, const Value& haystack, const Value& needle) {
  if (haystack.is(Kind::kString)) {
    if (!needle.is(Kind::kString)) return type_error("in", needle, haystack);
    QUERN_TRY(runtime.read(haystack.string->bytes.size()));
    return find_bytes(haystack.string->bytes, needle.string->bytes, 0) != std::string_view::npos;
  }
  if (haystack.is(Kind::kDict)) {
    if (!hashable(needle)) return type_error("in", needle, haystack);
    return QUERN_TRY(find_key(runtime, *haystack.dict, needle)) != nullptr;
  }
  if (haystack.is(Kind::kUndefined)) return false;
  if (!haystack.is_sequence()) return type_error("in", needle, haystack);
  Sequence& sequence = *haystack.sequence;
  for (auto i = static_cast<size_t>(sequence.position); i < sequence.items.size(); ++i) {
    if (haystack.is(Kind::kIterator)) sequence.position = static_cast<int64_t>(i) + 1;
    if (QUERN_TRY(equals(runtime, sequence.items[i], needle))) return true;
  }
  return false;
}

Result<bool> compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::kEq:
      return equals(runtime, a, b);
    case CompareOp::kNe:
      return !QUERN_TRY(equals(runtime, a, b));
    case CompareOp::kLt:
      return less(runtime, a, b);
    case CompareOp::kGt:
      return less(runtime, b, a);
    case CompareOp::kLe:
    case CompareOp::kGe: {
      const bool below =
          QUERN_TRY(op == CompareOp::kLe ? less(runtime, a, b) : less(runtime, b, a));
      return below || QUERN_TRY(equals(runtime, a, b));
    }
    case CompareOp::kIn:
      return contains(runtime, b, a);
    case CompareOp::kNotIn:
      return !QUERN_TRY(contains(runtime, b, a));
  }
  return false;
}

Result<Value> binary(Runtime& runtime, BinaryOp op, const Value& a, const Value& b) {
  if (a.is(Kind::kString) && op == BinaryOp::kMod) return percent_format(runtime, *a.string, b);
  if (a.is(Kind::kUndefined)) return undefined_error(a);
  if (b.is(Kind::kUndefined)) return undefined_error(b);
  if (a.is_number() && b.is_number()) return arithmetic(op, a, b);
  if (op == BinaryOp::kAdd && a.kind == b.kind && repeatable(a)) return joined(runtime, a, b);
  if (op == BinaryOp::kMul && repeatable(a) && b.is_integer()) {
    return repeated(runtime, a, b.as_integer());
  }
  if (op == BinaryOp::kMul && repeatable(b) && a.is_integer()) {
    return repeated(runtime, b, a.as_integer());
  }
  return type_error(symbol(op), a, b);
}

Result<Value> negative(Runtime& runtime, const Value& value, UnaryOp op) {
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (!value.is_number()) {
    return template_error(fmt::format("'{}' has no sign", type_name(value)));
  }
  if (op == UnaryOp::kPositive) {
    return value.is(Kind::kBool) ? Value::from(value.as_integer()) : value;
  }
  if (value.is(Kind::kFloat)) return Value::from(-value.real);
  return binary(runtime, BinaryOp::kSub, Value::from(int64_t{0}), value);
}

Result<const Value*> find_key(Runtime& runtime, const Dict& dict, const Value& key) {
  QUERN_TRY(runtime.step(static_cast<int64_t>(dict.pairs.size() / 4)));
  for (const Pair& pair : dict.pairs) {
    if (key.is(Kind::kString)) {  // by far the most common key
      if (pair.key.is(Kind::kString) && pair.key.string->bytes == key.string->bytes) {
        return &pair.value;
      }
    } else if (QUERN_TRY(equals(runtime, pair.key, key))) {
      return &pair.value;
    }
  }
  return static_cast<const Value*>(nullptr);
}

const Value* find_key(const Dict& dict, std::string_view key) {
  for (const Pair& pair : dict.pairs) {
    if (pair.key.is(Kind::kString) && pair.key.string->bytes == key) return &pair.value;
  }
  return nullptr;
}

Result<Unit> set_key(Runtime& runtime, Dict& dict, const Value& key, const Value& value) {
  if (!hashable(key)) {
    return template_error(fmt::format("'{}' cannot be a key", type_name(key)));
  }
  if (const Value* found = QUERN_TRY(find_key(runtime, dict, key))) {
    *const_cast<Value*>(found) = value;  // the dict is ours to change, only the search is const
    return Unit{};
  }
  const size_t size = dict.pairs.size();
  if (size == dict.capacity) {
    const size_t grown = std::max<size_t>(4, size * 2);
    const auto pairs = QUERN_TRY(runtime.heap().make_array<Pair>(grown));
    std::copy(dict.pairs.begin(), dict.pairs.end(), pairs.begin());
    dict.pairs = pairs.first(size);
    dict.capacity = grown;
  }
  dict.pairs = std::span<Pair>(dict.pairs.data(), size + 1);
  dict.pairs.back() = {key, value};
  return Unit{};
}

Result<Value> item(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is(Kind::kUndefined)) return undefined_error(object);
  if (object.is(Kind::kDict)) {
    if (!hashable(key)) return Value{};
    const Value* found = QUERN_TRY(find_key(runtime, *object.dict, key));
    return found == nullptr ? Value{} : *found;
  }
  const bool sliceable = object.is(Kind::kString) || object.is(Kind::kList) ||
                         object.is(Kind::kTuple) || object.is(Kind::kRange);
  if (!sliceable) return Value{};
  if (key.is(Kind::kSlice)) return sliced(runtime, object, *key.slice);
  if (!key.is_integer()) return Value{};
  const int64_t size = QUERN_TRY(length(object));
  int64_t index = key.as_integer();
  if (index < 0) index += size;
  if (index < 0 || index >= size) return Value{};
  if (!object.is(Kind::kString)) return object.sequence->items[static_cast<size_t>(index)];
  const Str& text = *object.string;
  if (!text.ascii()) QUERN_TRY(runtime.read(text.bytes.size()));
  const size_t begin = byte_offset(text, index);
  size_t end = begin;
  next_code_point(text.bytes, end);
  return slice_bytes(runtime, text, begin, end);
}

bool is_iterable(const Value& value) {
  return value.is_sequence() || value.is(Kind::kString) || value.is(Kind::kDict) ||
         value.is(Kind::kUndefined);
}

Result<std::vector<Value>> elements(Runtime& runtime, const Value& value) {
  if (value.is(Kind::kUndefined)) return std::vector<Value>();
  if (value.is(Kind::kString)) return characters(runtime, *value.string);
  std::vector<Value> result;
  if (value.is(Kind::kDict)) {
    QUERN_TRY(runtime.step(static_cast<int64_t>(value.dict->pairs.size())));
    for (const Pair& pair : value.dict->pairs) result.push_back(pair.key);
    return result;
  }
  if (!value.is_sequence()) {
    return template_error(fmt::format("'{}' is not iterable", type_name(value)));
  }
  Sequence& sequence = *value.sequence;
  const auto rest = sequence.items.subspan(static_cast<size_t>(sequence.position));
  QUERN_TRY(runtime.step(static_cast<int64_t>(rest.size())));
  if (value.is(Kind::kIterator)) sequence.position = static_cast<int64_t>(sequence.items.size());
  result.assign(rest.begin(), rest.end());
  return result;
}

Result<int64_t> length(const Value& value) {
  if (value.is(Kind::kUndefined)) return int64_t{0};
  if (value.is(Kind::kString)) return int64_t{value.string->length};
  if (value.is(Kind::kDict)) return static_cast<int64_t>(value.dict->pairs.size());
  if (value.is_sequence() && !value.is(Kind::kIterator)) {
    return static_cast<int64_t>(value.sequence->items.size());
  }
  return template_error(fmt::format("'{}' has no length", type_name(value)));
}

// Bottom-up merge sort: the comparison may fail, which std::stable_sort has no way to pass on.
Result<Unit> sort_keyed(Runtime& runtime, std::vector<Keyed>& items) {
  std::vector<Keyed> merged(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size());
      const size_t end = std::min(begin + 2 * width, items.size());
      size_t left = begin;
      size_t right = middle;
      for (size_t out = begin; out < end; ++out) {
        const bool take_right =
            left == middle ||
            (right < end && QUERN_TRY(out_of_order(runtime, items[left], items[right])));
        merged[out] = std::move(items[take_right ? right++ : left++]);
      }
    }
    std::swap(items, merged);
  }
  return Unit{};
}

}  // namespace quern::jinja
