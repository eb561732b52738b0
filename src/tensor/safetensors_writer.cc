#include "tensor/safetensors_writer.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <system_error>
#include <unordered_set>

#include <fmt/format.h>

#include "base/check.h"
#include "base/checked.h"
#include "base/json.h"
#include "tensor/safetensors.h"

namespace quern {
namespace {

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr uint64_t kDataAlignment = 8;

Error wrong(const std::filesystem::path& directory, std::string message) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", directory.string(), message)};
}

Result<std::vector<uint64_t>> plan_bytes(const std::filesystem::path& directory,
                                         const std::vector<SafetensorsPlan>& plan) {
  std::unordered_set<std::string_view> names;
  std::vector<uint64_t> sizes;
  CheckedSize total;
  for (const SafetensorsPlan& tensor : plan) {
    if (tensor.name.empty() || tensor.name == "__metadata__") {
      return wrong(directory, fmt::format("\"{}\" cannot name a tensor", tensor.name));
    }
    if (!names.insert(tensor.name).second) {
      return wrong(directory, fmt::format("tensor \"{}\" is planned twice", tensor.name));
    }
    CheckedSize size = static_cast<uint64_t>(dtype_bytes(tensor.dtype));
    for (const int64_t dimension : tensor.shape) {
      if (dimension < 0) {
        return wrong(directory, fmt::format("tensor \"{}\" has a dimension of {}; expected at "
                                            "least 0",
                                            tensor.name, dimension));
      }
      size = size * static_cast<uint64_t>(dimension);
    }
    total = total + size;
    if (!total.fits(INT64_MAX)) {
      return wrong(directory,
                   fmt::format("tensor \"{}\" makes the total size overflow", tensor.name));
    }
    sizes.push_back(*size.value());
  }
  return sizes;
}

// Indices of the plan's tensors for each shard, filled in order.
std::vector<std::vector<size_t>> split_shards(const std::vector<uint64_t>& sizes,
                                              uint64_t max_bytes) {
  std::vector<std::vector<size_t>> shards(1);
  uint64_t bytes = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (!shards.back().empty() && (bytes > max_bytes || sizes[i] > max_bytes - bytes)) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(i);
    bytes += sizes[i];
  }
  return shards;
}

// Length and JSON, padded with spaces so that the data begins aligned.
std::string header_bytes(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::strict);
  text.resize((text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment, ' ');
  const uint64_t length = text.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + text;
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::create(const std::filesystem::path& directory,
                                                    std::vector<SafetensorsPlan> plan,
                                                    SafetensorsWriterOptions options) {
  const std::vector<uint64_t> sizes = QUERN_TRY(plan_bytes(directory, plan));
  const auto shards = split_shards(sizes, options.max_shard_bytes);
  if (shards.size() > kMaxSafetensorsShards) {
    return wrong(directory,
                 fmt::format("shards of {} bytes make {} files; at most {} are written",
                             options.max_shard_bytes, shards.size(), kMaxSafetensorsShards));
  }
  SafetensorsWriter writer;
  writer.directory_ = directory;
  options.metadata["format"] = "pt";
  Json weight_map = Json::object();
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string name =
        shards.size() == 1 ? kSingleName
                           : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
    QUERN_TRY(writer.add_shard(name, shards[s], plan, sizes, options.metadata));
    for (const size_t i : shards[s]) weight_map[plan[i].name] = name;
  }
  if (shards.size() > 1) {
    const uint64_t total = std::accumulate(sizes.begin(), sizes.end(), uint64_t{0});
    writer.index_json_ =
        Json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2) + "\n";
  }
  return writer;
}

// The widest types come first, so that every tensor is aligned for its own.
Result<Unit> SafetensorsWriter::add_shard(const std::string& name,
                                          std::vector<size_t> order,
                                          const std::vector<SafetensorsPlan>& plan,
                                          const std::vector<uint64_t>& sizes,
                                          const std::map<std::string, std::string>& metadata) {
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return dtype_bytes(plan[a].dtype) > dtype_bytes(plan[b].dtype);
  });
  Json json = Json::object();
  json["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const size_t i : order) {
    json[plan[i].name] = {{"dtype", dtype_name(plan[i].dtype)},
                          {"shape", plan[i].shape},
                          {"data_offsets", {offset, offset + sizes[i]}}};
    offset += sizes[i];
  }
  std::string header;
  try {
    header = header_bytes(json);
  } catch (const Json::exception&) {
    return wrong(directory_ / name, "a tensor's name or a metadata value is not valid UTF-8");
  }
  if (header.size() > kMaxSafetensorsHeaderBytes) {
    return wrong(directory_ / name, fmt::format("the header has {} bytes; at most {} are written",
                                                header.size(), kMaxSafetensorsHeaderBytes));
  }
  uint64_t at = header.size();
  for (const size_t i : order) {
    slots_[plan[i].name] = {.shard = shards_.size(), .offset = at, .bytes = sizes[i]};
    at += sizes[i];
  }
  Shard shard{.name = name, .file = std::make_unique<AtomicFile>(directory_ / name), .bytes = at};
  shard.file->write(header);
  shards_.push_back(std::move(shard));
  return Unit{};
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto it = slots_.find(std::string(name));
  QUERN_CHECK(it != slots_.end());
  Slot& slot = it->second;
  QUERN_CHECK(bytes.size() <= slot.bytes - slot.written);
  shards_[slot.shard].file->write_at(slot.offset + slot.written, bytes);
  slot.written += bytes.size();
}

void SafetensorsWriter::finish() {
  for (const auto& [name, slot] : slots_) QUERN_CHECK(slot.written == slot.bytes);
  const bool single = index_json_.empty();
  size_t done = 0;
  try {
    for (; done < shards_.size(); ++done) shards_[done].file->commit();
    if (!single) write_file(directory_ / kIndexName, index_json_);
  } catch (...) {
    // Shards without their index are half a checkpoint.
    std::error_code ignored;
    for (size_t i = 0; i < done; ++i) {
      std::filesystem::remove(directory_ / shards_[i].name, ignored);
    }
    throw;
  }
  std::filesystem::remove(directory_ / (single ? kIndexName : kSingleName));
  shards_.clear();
  slots_.clear();
}

uint64_t SafetensorsWriter::total_bytes() const {
  return std::accumulate(shards_.begin(), shards_.end(), uint64_t{0},
                         [](uint64_t sum, const Shard& shard) { return sum + shard.bytes; });
}

}  // namespace quern
