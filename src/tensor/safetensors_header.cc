#include "tensor/safetensors_header.h"

#include <unordered_set>

#include <fmt/format.h>

#include "base/json.h"

namespace quern {
namespace {

constexpr size_t kMaxRank = 64;

constexpr std::array kKnownTypes = {DType::kF32, DType::kF16,  DType::kBF16,   DType::kF64,
                                    DType::kI8,  DType::kU8,   DType::kI16,    DType::kI32,
                                    DType::kI64, DType::kBool, DType::kF8E4M3, DType::kF8E5M2,
                                    DType::kU16, DType::kU32,  DType::kU64};

std::string known_types() {
  std::string names;
  for (const DType dtype : kKnownTypes) {
    if (!names.empty()) names += ", ";
    names += dtype_name(dtype);
  }
  return names;
}

// Follows the parser's events through { name: { dtype, shape, data_offsets } }. The events of a
// field that nobody asks for are counted and dropped.
class HeaderEvents : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderEvents(std::string_view source) : source_(source) {}

  bool null() override { return state_ == State::kSkip ? scalar_skipped() : unexpected("null"); }

  bool boolean(bool) override {
    return state_ == State::kSkip ? scalar_skipped() : unexpected("a boolean");
  }

  bool number_integer(number_integer_t) override {
    return state_ == State::kSkip ? scalar_skipped() : unexpected("a negative number");
  }

  bool number_float(number_float_t, const string_t&) override {
    return state_ == State::kSkip ? scalar_skipped() : unexpected("a number with a fraction");
  }

  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kSkip) return scalar_skipped();
    if (!in_array_) return unexpected("a number");
    std::vector<uint64_t>& list = state_ == State::kShape ? entry_.shape : offsets_;
    const size_t limit = state_ == State::kShape ? kMaxRank : 2;
    if (list.size() == limit) return unexpected(fmt::format("more than {} numbers", limit));
    list.push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    switch (state_) {
      case State::kSkip:
        return scalar_skipped();
      case State::kDType:
        return dtype(value);
      case State::kMetadata:
        header_.metadata[key_] = std::move(value);
        return true;
      default:
        return unexpected("a string");
    }
  }

  bool key(string_t& value) override;
  bool start_object(size_t) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;

  bool parse_error(size_t position, const std::string&, const Json::exception& e) override {
    return fail(fmt::format("the header is not valid JSON at byte {}: {}", position, e.what()));
  }

  const Error& error() const { return error_; }

  SafetensorsHeader take() { return std::move(header_); }

 private:
  enum class State {
    kStart,     // before the header's '{'
    kNames,     // between tensors
    kName,      // behind a tensor's name
    kFields,    // in a tensor, between fields
    kDType,     // behind "dtype"
    kShape,     // behind "shape" or in its array
    kOffsets,   // behind "data_offsets" or in its array
    kSkip,      // in an unknown field, `skip_depth_` deep
    kMetadata,  // in __metadata__
    kEnd,
  };

  bool fail(std::string message, ErrorCode code = ErrorCode::kInvalidArgument) {
    error_ = {code, fmt::format("{}: {}", source_, message)};
    return false;
  }

  bool unexpected(std::string_view found);
  bool dtype(const std::string& value);
  bool finish_entry();

  bool scalar_skipped() {
    if (skip_depth_ == 0) state_ = State::kFields;
    return true;
  }

  bool enter_skipped() {
    if (++skip_depth_ <= kMaxJsonDepth) return true;
    return fail(
        fmt::format("tensor \"{}\" is nested deeper than {} levels", entry_.name, kMaxJsonDepth));
  }

  bool leave_skipped() {
    --skip_depth_;
    return scalar_skipped();
  }

  std::string_view source_;
  State state_ = State::kStart;
  std::string key_;
  bool in_array_ = false;  // of shape or data_offsets
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  int skip_depth_ = 0;
  SafetensorsHeaderEntry entry_;
  std::vector<uint64_t> offsets_;
  std::unordered_set<std::string> names_;
  SafetensorsHeader header_;
  Error error_{ErrorCode::kInvalidArgument, ""};
};

bool HeaderEvents::unexpected(std::string_view found) {
  switch (state_) {
    case State::kStart:
      return fail(fmt::format("the header is {}; expected an object", found));
    case State::kName:
      return fail(fmt::format("\"{}\" is {}; expected an object", key_, found));
    case State::kMetadata:
      return fail(fmt::format("__metadata__ holds {}; expected strings", found));
    case State::kDType:
      return fail(
          fmt::format("tensor \"{}\": \"dtype\" is {}; expected a string", entry_.name, found));
    case State::kShape:
      return fail(
          fmt::format("tensor \"{}\": \"shape\" has {}; expected an array of at most {} "
                      "numbers from 0",
                      entry_.name, found, kMaxRank));
    case State::kOffsets:
      return fail(
          fmt::format("tensor \"{}\": \"data_offsets\" has {}; expected an array of two "
                      "numbers from 0",
                      entry_.name, found));
    default:
      return fail(fmt::format("the header holds {} in the wrong place", found));
  }
}

bool HeaderEvents::dtype(const std::string& value) {
  const std::optional<DType> known = parse_dtype(value);
  if (!known) {
    return fail(fmt::format("tensor \"{}\" has the unknown dtype \"{}\"; known are {}", entry_.name,
                            value, known_types()),
                ErrorCode::kUnsupported);
  }
  entry_.dtype = *known;
  state_ = State::kFields;
  return true;
}

bool HeaderEvents::key(string_t& value) {
  key_ = value;
  if (state_ == State::kSkip) return true;
  if (state_ == State::kMetadata) {
    if (!header_.metadata.contains(key_)) return true;
    return fail(fmt::format("__metadata__ has the key \"{}\" twice", key_));
  }
  if (state_ == State::kNames) {
    if (!names_.insert(key_).second) return fail(fmt::format("the name \"{}\" comes twice", key_));
    state_ = State::kName;
    return true;
  }
  bool* seen = nullptr;
  if (key_ == "dtype") {
    state_ = State::kDType;
    seen = &has_dtype_;
  } else if (key_ == "shape") {
    state_ = State::kShape;
    seen = &has_shape_;
  } else if (key_ == "data_offsets") {
    state_ = State::kOffsets;
    seen = &has_offsets_;
  } else {
    state_ = State::kSkip;
    return true;
  }
  if (*seen) return fail(fmt::format("tensor \"{}\" has \"{}\" twice", entry_.name, key_));
  *seen = true;
  return true;
}

bool HeaderEvents::start_object(size_t) {
  if (state_ == State::kSkip) return enter_skipped();
  if (state_ == State::kStart) {
    state_ = State::kNames;
    return true;
  }
  if (state_ != State::kName) return unexpected("an object");
  if (key_ == "__metadata__") {
    state_ = State::kMetadata;
    return true;
  }
  entry_ = {};
  entry_.name = key_;
  offsets_.clear();
  has_dtype_ = has_shape_ = has_offsets_ = false;
  state_ = State::kFields;
  return true;
}

bool HeaderEvents::end_object() {
  switch (state_) {
    case State::kSkip:
      return leave_skipped();
    case State::kNames:
      state_ = State::kEnd;
      return true;
    case State::kMetadata:
      state_ = State::kNames;
      return true;
    default:
      return finish_entry();
  }
}

bool HeaderEvents::finish_entry() {
  for (const auto& [has, field] : {std::pair{has_dtype_, "dtype"}, std::pair{has_shape_, "shape"},
                                   std::pair{has_offsets_, "data_offsets"}}) {
    if (!has) return fail(fmt::format("tensor \"{}\" has no \"{}\"", entry_.name, field));
  }
  entry_.data_offsets = {offsets_[0], offsets_[1]};
  header_.entries.push_back(std::move(entry_));
  state_ = State::kNames;
  return true;
}

bool HeaderEvents::start_array(size_t) {
  if (state_ == State::kSkip) return enter_skipped();
  if (in_array_ || (state_ != State::kShape && state_ != State::kOffsets)) {
    return unexpected("an array");
  }
  in_array_ = true;
  return true;
}

bool HeaderEvents::end_array() {
  if (state_ == State::kSkip) return leave_skipped();
  if (state_ == State::kOffsets && offsets_.size() != 2) return unexpected("fewer than 2 numbers");
  in_array_ = false;
  state_ = State::kFields;
  return true;
}

}  // namespace

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DType dtype : kKnownTypes) {
    if (dtype_name(dtype) == name) return dtype;
  }
  return std::nullopt;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, std::string_view source) {
  HeaderEvents events(source);
  if (!Json::sax_parse(json, &events)) return events.error();
  return events.take();
}

}  // namespace quern
