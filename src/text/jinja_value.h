// The values of a template: Python's types as far as Jinja2's sandbox lets a template see them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "text/jinja_heap.h"

namespace quern::jinja {

// A half-open range of bytes that came from the caller.
struct MarkRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// Immutable UTF-8 text that knows which of its bytes came from the caller. Borrows bytes and marks.
struct Str {
  std::string_view bytes;
  std::span<const MarkRange> marks;  // ascending, disjoint, not touching
  uint32_t length = 0;               // in code points

  bool ascii() const { return length == bytes.size(); }
};

enum class Kind : uint8_t {
  kMissing,  // an argument that was not given; never seen by a template
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kRange,
  kView,      // dict.keys(), values() and items()
  kIterator,  // what lazy filters return: can be walked once
  kDict,
  kSlice,
  kNamespace,
  kMacro,
  kFunction,
  kMethod,
  kLoop,
  kCycler,
  kJoiner,
};

struct Sequence;
struct Dict;
struct Slice;
struct Macro;
struct Function;
struct Method;
struct Loop;
struct Cycler;
struct Joiner;

// Two words, copied freely; what it points to lives in the Heap of the rendering.
struct Value {
  Kind kind = Kind::kMissing;
  union {
    bool boolean;
    int64_t integer = 0;
    double real;
    const Str* string;  // kString; kUndefined: why it is undefined
    Sequence* sequence;
    Dict* dict;  // kDict and kNamespace
    const Slice* slice;
    const Macro* macro;
    const Function* function;
    const Method* method;
    Loop* loop;
    Cycler* cycler;
    Joiner* joiner;
  };

  static Value none() { return of(Kind::kNone); }

  static Value from(bool v) {
    Value r = of(Kind::kBool);
    r.boolean = v;
    return r;
  }

  static Value from(int64_t v) {
    Value r = of(Kind::kInt);
    r.integer = v;
    return r;
  }

  static Value from(double v) {
    Value r = of(Kind::kFloat);
    r.real = v;
    return r;
  }

  static Value from(const Str* v) {
    Value r = of(Kind::kString);
    r.string = v;
    return r;
  }

  static Value undefined(const Str* reason) {
    Value r = of(Kind::kUndefined);
    r.string = reason;
    return r;
  }

  static Value from(Kind kind, Sequence* v) {
    Value r = of(kind);
    r.sequence = v;
    return r;
  }

  static Value from(Kind kind, Dict* v) {
    Value r = of(kind);
    r.dict = v;
    return r;
  }

  bool is(Kind k) const { return kind == k; }

  bool given() const { return kind != Kind::kMissing; }

  // bool, int or float: what Python counts among its numbers.
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }

  bool is_integer() const { return is(Kind::kBool) || is(Kind::kInt); }

  bool is_sequence() const {
    return is(Kind::kList) || is(Kind::kTuple) || is(Kind::kRange) || is(Kind::kView) ||
           is(Kind::kIterator);
  }

  // Requires is_integer().
  int64_t as_integer() const { return is(Kind::kBool) ? int64_t{boolean} : integer; }

  // Requires is_number().
  double as_real() const { return is(Kind::kFloat) ? real : static_cast<double>(as_integer()); }

 private:
  static Value of(Kind kind) {
    Value r;
    r.kind = kind;
    return r;
  }
};

// The elements of a list, tuple, range, view or iterator.
struct Sequence {
  std::span<const Value> items;
  std::string_view name =
      {};  // views: as Python prints them, e.g. "dict_keys"; tuples of groupby: "group"
  int64_t position = 0;  // iterators: how many were taken
};

struct Pair {
  Value key;
  Value value;
};

// Pairs in order of insertion. Only namespaces change after they were made.
struct Dict {
  std::span<Pair> pairs;  // the used part of `capacity`
  size_t capacity = 0;
};

struct Slice {
  Value start, stop, step;
};

struct Cycler {
  std::span<const Value> items;
  int64_t position = 0;
};

struct Joiner {
  Value separator;
  int64_t calls = 0;
};

// The name of the type as Python's messages have it: "str", "list", "NoneType", ...
std::string_view type_name(const Value& value);

}  // namespace quern::jinja
