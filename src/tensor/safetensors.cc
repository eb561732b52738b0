#include "tensor/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/json.h"
#include "tensor/formats/dense.h"
#include "tensor/safetensors_header.h"

namespace quern {

static_assert(std::endian::native == std::endian::little, "safetensors are read in place");

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxIndexBytes = 100'000'000;
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

template <typename... Args>
Error wrong(std::string_view source, fmt::format_string<Args...> format, Args&&... args) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}: {}", source, fmt::format(format, std::forward<Args>(args)...))};
}

// The header's text, its length proven.
Result<std::string_view> header_text(std::span<const std::byte> bytes, std::string_view source) {
  if (bytes.size() < kLengthBytes) {
    return wrong(source, "truncated: {} bytes, fewer than the 8 of the header length",
                 bytes.size());
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kMaxSafetensorsHeaderBytes) {
    return wrong(source, "the header length is {}; at most {} are read", length,
                 kMaxSafetensorsHeaderBytes);
  }
  if (length > bytes.size() - kLengthBytes) {
    return wrong(source, "truncated: the header has {} bytes, but {} are left", length,
                 bytes.size() - kLengthBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (text.empty() || text.front() != '{')
    return wrong(source, "the header does not begin with '{{'");
  return text;
}

// Proves that shape, type and offsets of one entry agree.
Result<std::vector<int64_t>> proven_shape(const SafetensorsHeaderEntry& entry,
                                          std::string_view source) {
  CheckedSize size = static_cast<uint64_t>(dtype_bytes(entry.dtype));
  CheckedSize elements = 1;
  std::vector<int64_t> shape;
  for (const uint64_t dimension : entry.shape) {
    elements = elements * dimension;
    size = size * dimension;
    if (dimension > static_cast<uint64_t>(INT64_MAX) || !elements.fits(INT64_MAX)) {
      return wrong(source, "tensor \"{}\" has a dimension of {}: its size overflows", entry.name,
                   dimension);
    }
    shape.push_back(static_cast<int64_t>(dimension));
  }
  const auto [begin, end] = entry.data_offsets;
  if (begin > end) {
    return wrong(source, "tensor \"{}\" has data_offsets {} to {}; the end lies before the begin",
                 entry.name, begin, end);
  }
  if (!size.valid() || *size.value() != end - begin) {
    return wrong(source, "tensor \"{}\" has {} bytes by its data_offsets; its shape and {} need {}",
                 entry.name, end - begin, dtype_name(entry.dtype),
                 size.valid() ? std::to_string(*size.value()) : "more than 64 bits can say");
  }
  return shape;
}

}  // namespace

int64_t SafetensorsEntry::elements() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes,
                                               const std::string& source) {
  const std::string_view text = QUERN_TRY(header_text(bytes, source));
  SafetensorsHeader header = QUERN_TRY(parse_safetensors_header(text, source));
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + text.size());
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const auto& a, const auto& b) { return a.data_offsets < b.data_offsets; });
  SafetensorsFile file;
  file.metadata_ = std::move(header.metadata);
  file.entries_.reserve(header.entries.size());
  uint64_t expected = 0;
  for (SafetensorsHeaderEntry& entry : header.entries) {
    const auto [begin, end] = entry.data_offsets;
    std::vector<int64_t> shape = QUERN_TRY(proven_shape(entry, source));
    if (begin != expected) {
      return wrong(source, "tensor \"{}\" begins at {}, the one before ends at {}: {}", entry.name,
                   begin, expected, begin < expected ? "an overlap" : "a hole");
    }
    if (end > data.size()) {
      return wrong(source, "truncated: tensor \"{}\" ends at {} of a data section of {} bytes",
                   entry.name, end, data.size());
    }
    expected = end;
    file.entries_.push_back({.name = std::move(entry.name),
                             .dtype = entry.dtype,
                             .shape = std::move(shape),
                             .bytes = data.subspan(begin, end - begin),
                             .file = source});
  }
  if (expected != data.size()) {
    return wrong(source, "{} bytes follow the last tensor", data.size() - expected);
  }
  for (size_t i = 0; i < file.entries_.size(); ++i) file.index_.emplace(file.entries_[i].name, i);
  return file;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  MappedFile mapped = QUERN_TRY(MappedFile::open(path));
  SafetensorsFile file = QUERN_TRY(parse(mapped.bytes(), path.string()));
  file.file_ = std::move(mapped);
  return file;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

namespace {

using WeightMap = std::map<std::string, std::string>;  // tensor name to shard name

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

Result<WeightMap> read_index(const std::filesystem::path& path) {
  const std::string text = QUERN_TRY(read_file(path, kMaxIndexBytes));
  const Json json = QUERN_TRY(parse_json(text, path.string()));
  if (!json.is_object()) return wrong(path.string(), "expected an object");
  const auto found = json.find("weight_map");
  if (found == json.end() || !found->is_object()) {
    return wrong(path.string(), "\"weight_map\" is missing or no object");
  }
  WeightMap map;
  for (const auto& [name, shard] : found->items()) {
    if (!shard.is_string()) {
      return wrong(path.string(), "the shard of tensor \"{}\" is no string", name);
    }
    if (!is_plain_file_name(shard.get<std::string>())) {
      return wrong(path.string(),
                   "the shard of tensor \"{}\" is \"{}\"; expected a plain file name", name,
                   shard.get<std::string>());
    }
    map.emplace(name, shard.get<std::string>());
  }
  return map;
}

}  // namespace

Result<SafetensorsSet> SafetensorsSet::open(const std::filesystem::path& directory) {
  SafetensorsSet set;
  set.directory_ = directory.string();
  if (std::error_code ignored; std::filesystem::exists(directory / kSingleName, ignored)) {
    set.files_.push_back(QUERN_TRY(SafetensorsFile::open(directory / kSingleName)));
    set.add_entries();
    return set;
  }
  const std::filesystem::path index_path = directory / kIndexName;
  if (std::error_code ignored; !std::filesystem::exists(index_path, ignored)) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: holds neither {} nor {}", set.directory_,
                                                   kSingleName, kIndexName)};
  }
  const WeightMap map = QUERN_TRY(read_index(index_path));
  std::set<std::string> shards;
  for (const auto& [name, shard] : map) shards.insert(shard);
  for (const std::string& shard : shards) {
    set.files_.push_back(QUERN_TRY(SafetensorsFile::open(directory / shard)));
    for (const SafetensorsEntry& entry : set.files_.back().entries()) {
      const auto stated = map.find(entry.name);
      if (stated == map.end() || stated->second != shard) {
        return wrong(index_path.string(), "says that tensor \"{}\" is {}, but {} holds it",
                     entry.name, stated == map.end() ? "nowhere" : "in " + stated->second, shard);
      }
    }
  }
  set.add_entries();
  for (const auto& [name, shard] : map) {
    if (set.find(name) == nullptr) {
      return wrong(index_path.string(), "says that tensor \"{}\" is in {}, which lacks it", name,
                   shard);
    }
  }
  return set;
}

void SafetensorsSet::add_entries() {
  for (const SafetensorsFile& file : files_) {
    for (const SafetensorsEntry& entry : file.entries()) {
      entries_.push_back(&entry);
      index_.emplace(entry.name, &entry);
    }
  }
}

const SafetensorsEntry* SafetensorsSet::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : it->second;
}

Result<const SafetensorsEntry*> SafetensorsSet::get(std::string_view name) const {
  if (const SafetensorsEntry* entry = find(name)) return entry;
  return Error{ErrorCode::kNotFound, fmt::format("{}: no tensor \"{}\"", directory_, name)};
}

Result<DenseWeight> dense_weight(const SafetensorsEntry& entry) {
  if (!is_dense_float(entry.dtype) || entry.shape.empty() || entry.elements() == 0) {
    return wrong(entry.file,
                 "tensor \"{}\" is {} of rank {} with {} elements; expected a matrix or vector of "
                 "F32, F16 or BF16",
                 entry.name, dtype_name(entry.dtype), entry.shape.size(), entry.elements());
  }
  const int64_t columns = entry.shape.back();
  return make_dense_weight(entry.dtype, entry.bytes, {entry.elements() / columns, columns},
                           fmt::format("{}: tensor \"{}\"", entry.file, entry.name));
}

Result<std::vector<float>> read_floats(const SafetensorsEntry& entry) {
  if (!is_dense_float(entry.dtype)) {
    return wrong(entry.file, "tensor \"{}\" is {}; expected F32, F16 or BF16", entry.name,
                 dtype_name(entry.dtype));
  }
  std::vector<float> values(static_cast<size_t>(entry.elements()));
  widen_floats(entry.dtype, entry.bytes.data(), entry.elements(), values.data());
  return values;
}

namespace {

template <typename T>
std::vector<int64_t> widen_integers(std::span<const std::byte> bytes) {
  std::vector<int64_t> values(bytes.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
    values[i] = static_cast<int64_t>(value);  // NOLINT(bugprone-signed-char-misuse): I8 is a number
  }
  return values;
}

}  // namespace

Result<std::vector<int64_t>> read_integers(const SafetensorsEntry& entry) {
  switch (entry.dtype) {
    case DType::kI8:
      return widen_integers<int8_t>(entry.bytes);
    case DType::kU8:
      return widen_integers<uint8_t>(entry.bytes);
    case DType::kI16:
      return widen_integers<int16_t>(entry.bytes);
    case DType::kU16:
      return widen_integers<uint16_t>(entry.bytes);
    case DType::kI32:
      return widen_integers<int32_t>(entry.bytes);
    case DType::kU32:
      return widen_integers<uint32_t>(entry.bytes);
    case DType::kI64:
      return widen_integers<int64_t>(entry.bytes);
    case DType::kU64:
      break;
    default:
      return wrong(entry.file, "tensor \"{}\" is {}; expected integers", entry.name,
                   dtype_name(entry.dtype));
  }
  std::vector<int64_t> values = widen_integers<uint64_t>(entry.bytes);
  if (std::any_of(values.begin(), values.end(), [](int64_t x) { return x < 0; })) {
    return wrong(entry.file, "tensor \"{}\" holds a number beyond {}", entry.name, INT64_MAX);
  }
  return values;
}

}  // namespace quern
