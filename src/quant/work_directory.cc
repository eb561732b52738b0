#include "quant/work_directory.h"

#include <cstring>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/file.h"
#include "base/float16.h"
#include "base/random.h"
#include "quant/report.h"
#include "quant/rounding.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_writer.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJobFile = "job.json";
constexpr std::string_view kBlockPrefix = "block-";
constexpr size_t kBlockDigits = 5;
constexpr const char* kUnnamedJobFile = "job.json.part";  // while it is written
constexpr const char* kReportKey = "report";
constexpr uint64_t kMaxJobBytes = 4096;

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// Two codes a byte, the even column in the low half. Groups have an even size.
std::vector<uint8_t> pack_pairs(const std::vector<uint8_t>& codes) {
  std::vector<uint8_t> pairs(codes.size() / 2);
  for (size_t i = 0; i < pairs.size(); ++i)
    pairs[i] = static_cast<uint8_t>(codes[2 * i] | (codes[2 * i + 1] << 4));
  return pairs;
}

std::vector<uint16_t> to_halves(const std::vector<float>& scales) {
  std::vector<uint16_t> halves(scales.size());
  for (size_t i = 0; i < scales.size(); ++i) halves[i] = f32_to_f16(scales[i]);
  return halves;
}

// One tensor on its way into a file.
struct Item {
  SafetensorsPlan plan;
  std::vector<std::byte> bytes;
};

template <typename T>
Item item(std::string name, DType dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
  const auto bytes = bytes_of(values);
  return {{std::move(name), dtype, std::move(shape)}, {bytes.begin(), bytes.end()}};
}

std::vector<Item> items_of(const QuantizedBlock& block) {
  std::vector<Item> items;
  if (!block.norm.empty()) {
    items.push_back(
        item("norm", DType::kF32, {static_cast<int64_t>(block.norm.size())}, block.norm));
  }
  for (size_t i = 0; i < block.linears.size(); ++i) {
    const GroupedWeight& w = block.linears[i];
    const std::string at = std::to_string(i);
    items.push_back(item("codes." + at, DType::kU8, {w.rows, w.columns / 2}, pack_pairs(w.codes)));
    items.push_back(item("scales." + at, DType::kF16, {w.rows, w.groups()}, to_halves(w.scales)));
    items.push_back(item("zeros." + at, DType::kU8, {w.rows, w.groups()}, w.zeros));
    if (block.biases.size() <= i || block.biases[i].empty()) continue;
    const auto& bias = block.biases[i];
    items.push_back(item("bias." + at, DType::kF32, {static_cast<int64_t>(bias.size())}, bias));
  }
  return items;
}

template <typename T>
std::vector<T> values_of(const SafetensorsEntry& entry) {
  std::vector<T> values(entry.bytes.size() / sizeof(T));
  std::memcpy(values.data(), entry.bytes.data(), values.size() * sizeof(T));
  return values;
}

// Nothing when the three tensors of layer `index` are not there in shapes that fit.
std::optional<GroupedWeight> grouped_of(const SafetensorsFile& file, size_t index) {
  const std::string at = std::to_string(index);
  const SafetensorsEntry* codes = file.find("codes." + at);
  const SafetensorsEntry* scales = file.find("scales." + at);
  const SafetensorsEntry* zeros = file.find("zeros." + at);
  if (codes == nullptr || scales == nullptr || zeros == nullptr) return std::nullopt;
  if (codes->shape.size() != 2 || scales->shape.size() != 2 || zeros->shape != scales->shape ||
      codes->dtype != DType::kU8 || scales->dtype != DType::kF16 || zeros->dtype != DType::kU8 ||
      codes->shape[0] != scales->shape[0] || scales->shape[1] < 1)
    return std::nullopt;
  const int64_t columns = codes->shape[1] * 2;
  if (columns % scales->shape[1] != 0) return std::nullopt;
  GroupedWeight w =
      empty_grouped(codes->shape[0], columns, static_cast<int>(columns / scales->shape[1]));
  const std::vector<uint8_t> pairs = values_of<uint8_t>(*codes);
  for (size_t i = 0; i < pairs.size(); ++i) {
    w.codes[2 * i] = pairs[i] & 15u;
    w.codes[2 * i + 1] = static_cast<uint8_t>(pairs[i] >> 4);
  }
  const std::vector<uint16_t> halves = values_of<uint16_t>(*scales);
  for (size_t i = 0; i < halves.size(); ++i) w.scales[i] = f16_to_f32(halves[i]);
  w.zeros = values_of<uint8_t>(*zeros);
  return w;
}

std::vector<float> floats_of(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsEntry* entry = file.find(name);
  return entry == nullptr ? std::vector<float>() : values_of<float>(*entry);
}

// "block-00012".
bool is_block_name(std::string_view name) {
  if (!name.starts_with(kBlockPrefix)) return false;
  name.remove_prefix(kBlockPrefix.size());
  return name.size() == kBlockDigits && name.find_first_not_of("0123456789") == name.npos;
}

// Whether everything in a directory was written here, as when a run was killed while it made or
// removed the directory.
bool holds_work_alone(const fs::path& directory) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    const bool ours = entry.is_directory() ? is_block_name(name) : name == kUnnamedJobFile;
    if (!ours) return false;
  }
  return true;
}

}  // namespace

void WorkKey::add(std::span<const std::byte> bytes) {
  a_ = mix64(a_ ^ bytes.size());
  b_ = mix64(b_ + bytes.size());
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    a_ = mix64(a_ ^ word);
    b_ = mix64(b_ + word);
  }
}

std::string WorkKey::text() const { return fmt::format("{:016x}{:016x}", a_, b_); }

Result<WorkDirectory> WorkDirectory::open(fs::path path, const std::string& key) {
  WorkDirectory work(std::move(path));
  const std::string job = "{\"key\": \"" + key + "\"}\n";
  if (fs::exists(work.path_)) {
    const fs::path file = work.path_ / kJobFile;
    if (!fs::is_directory(work.path_) || (!fs::exists(file) && !holds_work_alone(work.path_))) {
      return Error{ErrorCode::kInvalidArgument,
                   work.path_.string() +
                       " is no work directory of quern quantize; it would be "
                       "overwritten. Remove it or name another one"};
    }
    if (fs::exists(file) && QUERN_TRY(read_file(file, kMaxJobBytes)) == job) return work;
    fs::remove_all(work.path_);
  }
  fs::create_directories(work.path_);
  write_file(work.path_ / kJobFile, job);
  return work;
}

fs::path WorkDirectory::block_path(int64_t index) const {
  return path_ / fmt::format("{}{:0{}}", kBlockPrefix, index, kBlockDigits);
}

std::optional<QuantizedBlock> WorkDirectory::load(int64_t index) const {
  const fs::path path = block_path(index) / "model.safetensors";
  if (!fs::exists(path)) return std::nullopt;
  const auto file = SafetensorsFile::open(path);
  if (!file) return std::nullopt;
  const auto text = file->metadata().find(kReportKey);
  if (text == file->metadata().end()) return std::nullopt;
  const auto json = parse_json(text->second, "report");
  if (!json) return std::nullopt;
  auto report = block_report_from_json(*json);
  if (!report) return std::nullopt;
  QuantizedBlock block;
  block.report = std::move(*report);
  block.report.resumed = true;
  block.norm = floats_of(*file, "norm");
  for (size_t i = 0; i < block.report.linears.size(); ++i) {
    std::optional<GroupedWeight> weight = grouped_of(*file, i);
    if (!weight) return std::nullopt;
    block.linears.push_back(std::move(*weight));
    block.biases.push_back(floats_of(*file, "bias." + std::to_string(i)));
  }
  return block;
}

void WorkDirectory::save(int64_t index, const QuantizedBlock& block) const {
  const std::vector<Item> items = items_of(block);
  std::vector<SafetensorsPlan> plan;
  plan.reserve(items.size());
  for (const Item& i : items) plan.push_back(i.plan);
  fs::create_directories(block_path(index));
  auto writer = SafetensorsWriter::create(
      block_path(index), std::move(plan),
      {.max_shard_bytes = UINT64_MAX,
       .metadata = {{kReportKey, block_report_to_json(block.report).dump()}}});
  QUERN_CHECK(writer.has_value());
  for (const Item& i : items) writer->write(i.plan.name, i.bytes);
  writer->finish();
}

void WorkDirectory::remove() const { fs::remove_all(path_); }

}  // namespace quern
