#include "tensor/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "base/checked.h"
#include "tensor/gguf_types.h"

namespace quern {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
constexpr uint64_t kMaxNameBytes = 65535;
constexpr uint64_t kMaxDimensions = 4;
constexpr int kMaxArrayDepth = 4;
// Of all arrays of a file together: 1 GiB of string views at most. A vocabulary has 2^18 entries
// and comes with three such arrays.
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 26;
constexpr uint64_t kMinPairBytes = 8 + 4 + 1;  // key length, type, value
constexpr uint64_t kMinTensorBytes =
    8 + 4 + 8 + 4 + 8;  // name length, rank, dimension, type, offset

enum ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// Bytes of a value of fixed size; of strings and arrays the least that they take; 0 when unknown.
uint64_t least_bytes(uint32_t type) {
  switch (type) {
    case kU8:
    case kI8:
    case kBool:
      return 1;
    case kU16:
    case kI16:
      return 2;
    case kU32:
    case kI32:
    case kF32:
      return 4;
    case kString:
    case kU64:
    case kI64:
    case kF64:
      return 8;
    case kArray:
      return 4 + 8;
    default:
      return 0;
  }
}

bool is_integer(uint32_t type) { return type <= kI32 || type == kU64 || type == kI64; }

bool is_float(uint32_t type) { return type == kF32 || type == kF64; }

}  // namespace

// Reads a file front to back; every read is checked against its end.
class GgufParser {
 public:
  GgufParser(std::span<const std::byte> bytes, std::string source) : bytes_(bytes) {
    file_.source_ = std::move(source);
  }

  Result<GgufFile> parse() {
    QUERN_TRY(header());
    QUERN_TRY(metadata());
    alignment_ = QUERN_TRY(alignment());
    QUERN_TRY(tensor_infos());
    QUERN_TRY(no_overlap());
    return std::move(file_);
  }

 private:
  template <typename... Args>
  Error wrong(fmt::format_string<Args...> format, Args&&... args) const {
    return {ErrorCode::kInvalidArgument,
            file_.source_ + ": " + fmt::format(format, std::forward<Args>(args)...)};
  }

  uint64_t left() const { return bytes_.size() - at_; }

  Error truncated(std::string_view what) const {
    return wrong("truncated: the file ends at byte {}, inside {}", bytes_.size(), what);
  }

  template <typename T>
  Result<T> number(std::string_view what) {
    if (left() < sizeof(T)) return truncated(what);
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  Result<std::string_view> string(std::string_view what, uint64_t max_bytes) {
    const auto size = QUERN_TRY(number<uint64_t>(what));
    if (size > left()) {
      return wrong("{} has {} bytes, but {} are left: truncated or damaged", what, size, left());
    }
    if (size > max_bytes)
      return wrong("{} has {} bytes; at most {} are read", what, size, max_bytes);
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return text;
  }

  Result<Unit> header();
  Result<Unit> metadata();
  Result<GgufValue> value(uint32_t type, std::string_view key, int depth);
  Result<GgufValue> array(std::string_view key, int depth);
  template <typename T, typename Read>
  Result<GgufValue> elements(uint64_t count, Read read);
  Result<int64_t> integer(uint32_t type, std::string_view key);
  Result<double> real(uint32_t type, std::string_view key);
  Result<bool> boolean(std::string_view key);
  Result<uint64_t> alignment() const;
  Result<Unit> tensor_infos();
  Result<GgufTensor> tensor_info();
  Result<std::vector<int64_t>> shape(std::string_view name);
  Result<Unit> locate(GgufTensor* tensor, uint64_t offset) const;
  Result<Unit> no_overlap() const;

  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  uint64_t array_elements_ = 0;  // so far, of all arrays
  uint64_t tensor_count_ = 0;
  uint64_t pair_count_ = 0;
  std::vector<uint64_t> offsets_;  // of each tensor, in the data section
  GgufFile file_;
};

Result<Unit> GgufParser::header() {
  if (QUERN_TRY(number<uint32_t>("the magic")) != kMagic) {
    return wrong("not a GGUF file: it does not begin with \"GGUF\"");
  }
  file_.version_ = QUERN_TRY(number<uint32_t>("the version"));
  if ((file_.version_ & 0xffffu) == 0 && file_.version_ != 0) {
    return wrong("a big-endian GGUF file; only little-endian files are read");
  }
  if (file_.version_ != 2 && file_.version_ != 3) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: GGUF version {}; versions 2 and 3 are read", file_.source_,
                             file_.version_)};
  }
  tensor_count_ = QUERN_TRY(number<uint64_t>("the tensor count"));
  pair_count_ = QUERN_TRY(number<uint64_t>("the metadata count"));
  if (pair_count_ > left() / kMinPairBytes) {
    return wrong("{} metadata entries do not fit the {} bytes left: truncated or damaged",
                 pair_count_, left());
  }
  if (tensor_count_ > left() / kMinTensorBytes) {
    return wrong("{} tensors do not fit the {} bytes left: truncated or damaged", tensor_count_,
                 left());
  }
  return Unit{};
}

Result<Unit> GgufParser::metadata() {
  for (uint64_t i = 0; i < pair_count_; ++i) {
    const auto key = QUERN_TRY(string("a metadata key", kMaxNameBytes));
    const auto type = QUERN_TRY(number<uint32_t>(key));
    if (!file_.keys_.emplace(key, file_.metadata_.size()).second) {
      return wrong("metadata key \"{}\" comes twice", key);
    }
    file_.metadata_.emplace_back(key, QUERN_TRY(value(type, key, 0)));
  }
  return Unit{};
}

Result<GgufValue> GgufParser::value(uint32_t type, std::string_view key, int depth) {
  if (is_integer(type)) return GgufValue{QUERN_TRY(integer(type, key))};
  if (is_float(type)) return GgufValue{QUERN_TRY(real(type, key))};
  if (type == kBool) return GgufValue{QUERN_TRY(boolean(key))};
  if (type == kString) return GgufValue{QUERN_TRY(string(key, UINT64_MAX))};
  if (type == kArray) return array(key, depth + 1);
  return wrong("metadata \"{}\" has type {}; types 0 to 12 are known", key, type);
}

Result<GgufValue> GgufParser::array(std::string_view key, int depth) {
  if (depth > kMaxArrayDepth) {
    return wrong("metadata \"{}\" nests arrays deeper than {} levels", key, kMaxArrayDepth);
  }
  const auto type = QUERN_TRY(number<uint32_t>(key));
  const auto count = QUERN_TRY(number<uint64_t>(key));
  const uint64_t least = least_bytes(type);
  if (least == 0) {
    return wrong("metadata \"{}\" has elements of type {}; types 0 to 12 are known", key, type);
  }
  if (count > left() / least) {
    return wrong("metadata \"{}\" has {} elements, but {} bytes are left: truncated or damaged",
                 key, count, left());
  }
  if (count > kMaxArrayElements - array_elements_) {
    return wrong("metadata \"{}\" has {} elements; all arrays together may have {}", key, count,
                 kMaxArrayElements);
  }
  array_elements_ += count;
  if (is_integer(type)) return elements<int64_t>(count, [&] { return integer(type, key); });
  if (is_float(type)) return elements<double>(count, [&] { return real(type, key); });
  if (type == kBool) return elements<bool>(count, [&] { return boolean(key); });
  if (type == kString) {
    return elements<std::string_view>(count, [&] { return string(key, UINT64_MAX); });
  }
  return elements<GgufValue>(count, [&] { return array(key, depth + 1); });
}

template <typename T, typename Read>
Result<GgufValue> GgufParser::elements(uint64_t count, Read read) {
  std::vector<T> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) values.push_back(QUERN_TRY(read()));
  return GgufValue{std::move(values)};
}

Result<int64_t> GgufParser::integer(uint32_t type, std::string_view key) {
  switch (type) {
    case kU8:
      return int64_t{QUERN_TRY(number<uint8_t>(key))};
    case kI8:
      return int64_t{QUERN_TRY(number<int8_t>(key))};
    case kU16:
      return int64_t{QUERN_TRY(number<uint16_t>(key))};
    case kI16:
      return int64_t{QUERN_TRY(number<int16_t>(key))};
    case kU32:
      return int64_t{QUERN_TRY(number<uint32_t>(key))};
    case kI32:
      return int64_t{QUERN_TRY(number<int32_t>(key))};
    case kI64:
      return QUERN_TRY(number<int64_t>(key));
    default:
      break;
  }
  const auto large = QUERN_TRY(number<uint64_t>(key));
  if (large > static_cast<uint64_t>(INT64_MAX)) {
    return wrong("metadata \"{}\" is {}; integers up to {} are read", key, large, INT64_MAX);
  }
  return static_cast<int64_t>(large);
}

Result<double> GgufParser::real(uint32_t type, std::string_view key) {
  if (type == kF64) return number<double>(key);
  return double{QUERN_TRY(number<float>(key))};
}

Result<bool> GgufParser::boolean(std::string_view key) {
  const auto byte = QUERN_TRY(number<uint8_t>(key));
  if (byte > 1)
    return wrong("metadata \"{}\" is a boolean of value {}; expected 0 or 1", key, byte);
  return byte == 1;
}

Result<uint64_t> GgufParser::alignment() const {
  const auto value = QUERN_TRY(
      file_.integer("general.alignment", int64_t{kDefaultAlignment}, 1, int64_t{kMaxAlignment}));
  if (!std::has_single_bit(static_cast<uint64_t>(value))) {
    return wrong("\"general.alignment\" is {}; expected a power of two", value);
  }
  return static_cast<uint64_t>(value);
}

Result<Unit> GgufParser::tensor_infos() {
  // The counts were held against what was left before the metadata: hold them again.
  if (tensor_count_ > left() / kMinTensorBytes) {
    return wrong("{} tensors do not fit the {} bytes left: truncated or damaged", tensor_count_,
                 left());
  }
  file_.tensors_.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) {
    GgufTensor tensor = QUERN_TRY(tensor_info());
    if (!file_.names_.emplace(tensor.name, file_.tensors_.size()).second) {
      return wrong("tensor \"{}\" comes twice", tensor.name);
    }
    file_.tensors_.push_back(std::move(tensor));
  }
  for (size_t i = 0; i < offsets_.size(); ++i) QUERN_TRY(locate(&file_.tensors_[i], offsets_[i]));
  return Unit{};
}

Result<GgufTensor> GgufParser::tensor_info() {
  GgufTensor tensor;
  tensor.file = file_.source_;
  tensor.name = QUERN_TRY(string("a tensor name", kMaxNameBytes));
  tensor.shape = QUERN_TRY(shape(tensor.name));
  tensor.type = QUERN_TRY(number<uint32_t>(tensor.name));
  tensor.format = find_format(tensor.type);
  offsets_.push_back(QUERN_TRY(number<uint64_t>(tensor.name)));
  return tensor;
}

Result<std::vector<int64_t>> GgufParser::shape(std::string_view name) {
  const auto rank = QUERN_TRY(number<uint32_t>(name));
  if (rank < 1 || rank > kMaxDimensions) {
    return wrong("tensor \"{}\" has {} dimensions; expected 1 to {}", name, rank, kMaxDimensions);
  }
  std::vector<int64_t> shape;
  CheckedSize elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    const auto dimension = QUERN_TRY(number<uint64_t>(name));
    elements = elements * dimension;
    if (dimension == 0 || !elements.fits(INT64_MAX)) {
      return wrong(
          "tensor \"{}\" has a dimension of {}; expected at least 1 and {} elements in all", name,
          dimension, INT64_MAX);
    }
    shape.push_back(static_cast<int64_t>(dimension));
  }
  std::reverse(shape.begin(), shape.end());  // the file states the fastest dimension first
  return shape;
}

Result<Unit> GgufParser::locate(GgufTensor* tensor, uint64_t offset) const {
  if (offset % alignment_ != 0) {
    return wrong("tensor \"{}\" begins at {}; expected a multiple of the alignment {}",
                 tensor->name, offset, alignment_);
  }
  const CheckedSize begin = CheckedSize(at_).align(alignment_) + offset;
  const GgmlType* type = find_ggml_type(tensor->type);
  uint64_t bytes = 0;
  if (type != nullptr) {
    if (tensor->columns() % type->block_elements != 0) {
      return wrong("tensor \"{}\" has rows of {} elements; {} needs a multiple of {}", tensor->name,
                   tensor->columns(), type->name, type->block_elements);
    }
    const CheckedSize size = CheckedSize(static_cast<uint64_t>(tensor->elements()) /
                                         static_cast<uint64_t>(type->block_elements)) *
                             static_cast<uint64_t>(type->block_bytes);
    if (!size.valid()) return wrong("tensor \"{}\" has a size beyond 64 bits", tensor->name);
    bytes = *size.value();
  }
  if (!(begin + bytes).fits(bytes_.size())) {
    return wrong(
        "tensor \"{}\" has {} bytes at offset {} of the data, beyond the file's {}: "
        "truncated or damaged",
        tensor->name, bytes, offset, bytes_.size());
  }
  tensor->bytes = bytes_.subspan(*begin.value(), bytes);
  return Unit{};
}

Result<Unit> GgufParser::no_overlap() const {
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& tensor : file_.tensors_) {
    if (!tensor.bytes.empty()) order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->bytes.data() < b->bytes.data(); });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->bytes.data() + order[i - 1]->bytes.size() > order[i]->bytes.data()) {
      return wrong("tensors \"{}\" and \"{}\" overlap", order[i - 1]->name, order[i]->name);
    }
  }
  return Unit{};
}

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

Result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  MappedFile mapped = QUERN_TRY(MappedFile::open(path));
  GgufFile file = QUERN_TRY(parse(mapped.bytes(), path.string()));
  file.file_ = std::move(mapped);
  return file;
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string source) {
  return GgufParser(bytes, std::move(source)).parse();
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = keys_.find(key);
  return it == keys_.end() ? nullptr : &metadata_[it->second].second;
}

const GgufTensor* GgufFile::tensor(std::string_view name) const {
  const auto it = names_.find(name);
  return it == names_.end() ? nullptr : &tensors_[it->second];
}

Error GgufFile::missing(std::string_view key) const {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: metadata \"{}\" is missing", source_, key)};
}

Error GgufFile::wrong(std::string_view key, std::string_view expected) const {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}: metadata \"{}\" has another type or value; expected {}", source_, key,
                      expected)};
}

Result<int64_t> GgufFile::integer(std::string_view key,
                                  std::optional<int64_t> fallback,
                                  int64_t min,
                                  int64_t max) const {
  const GgufValue* found = find(key);
  if (found == nullptr) {
    if (fallback) return *fallback;
    return missing(key);
  }
  const auto* value = std::get_if<int64_t>(&found->value);
  if (value == nullptr || *value < min || *value > max) {
    return wrong(key, fmt::format("an integer from {} to {}", min, max));
  }
  return *value;
}

Result<double> GgufFile::number(std::string_view key, std::optional<double> fallback) const {
  const GgufValue* found = find(key);
  if (found == nullptr) {
    if (fallback) return *fallback;
    return missing(key);
  }
  if (const auto* whole = std::get_if<int64_t>(&found->value)) return static_cast<double>(*whole);
  const auto* value = std::get_if<double>(&found->value);
  if (value == nullptr || !std::isfinite(*value)) return wrong(key, "a finite number");
  return *value;
}

Result<bool> GgufFile::boolean(std::string_view key, std::optional<bool> fallback) const {
  const GgufValue* found = find(key);
  if (found == nullptr) {
    if (fallback) return *fallback;
    return missing(key);
  }
  const auto* value = std::get_if<bool>(&found->value);
  if (value == nullptr) return wrong(key, "true or false");
  return *value;
}

Result<std::string> GgufFile::string(std::string_view key,
                                     std::optional<std::string> fallback) const {
  const GgufValue* found = find(key);
  if (found == nullptr) {
    if (fallback) return *std::move(fallback);
    return missing(key);
  }
  const auto* value = std::get_if<std::string_view>(&found->value);
  if (value == nullptr) return wrong(key, "a string");
  return std::string(*value);
}

template <typename T>
Result<std::span<const T>> GgufFile::array(std::string_view key, std::string_view expected) const {
  const GgufValue* found = find(key);
  if (found == nullptr) return missing(key);
  const auto* values = std::get_if<std::vector<T>>(&found->value);
  if (values == nullptr) return wrong(key, expected);
  return std::span<const T>(*values);
}

Result<std::span<const int64_t>> GgufFile::integers(std::string_view key) const {
  return array<int64_t>(key, "an array of integers");
}

Result<std::span<const double>> GgufFile::numbers(std::string_view key) const {
  return array<double>(key, "an array of floats");
}

Result<std::span<const std::string_view>> GgufFile::strings(std::string_view key) const {
  return array<std::string_view>(key, "an array of strings");
}

}  // namespace quern
