#include "quant/export.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "base/check.h"
#include "base/file.h"
#include "base/float16.h"
#include "tensor/formats/awq.h"
#include "tensor/formats/compressed_tensors.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_writer.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kCodesPerWord = 8;

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

Error differs(const std::string& name) {
  return Error{ErrorCode::kInvalidArgument,
               name + " was read back with other numbers than were written"};
}

// A dense matrix that Quern itself writes, because the source is no safetensors checkpoint.
struct DenseTable {
  std::string module;
  int64_t rows = 0;
  int64_t columns = 0;
};

// Everything that the result holds, in the order of writing.
struct Contents {
  std::vector<std::string> quantised;                 // module paths
  std::map<std::string, std::vector<float>> vectors;  // written by Quern
  std::vector<DenseTable> tables;                     // likewise, as F16
  std::vector<const SafetensorsEntry*> passed;        // byte for byte
};

// Whether `name` is the matrix of a quantised module, in any form.
bool is_replaced(const std::string& name, const Replacements& replacements) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || name.substr(dot) == ".bias") return false;
  return replacements.matrices.contains(name.substr(0, dot));
}

// A tied head that becomes a matrix of its own has no tensor in the source to stand in for.
Result<Contents> contents_of_set(const ExportJob& job, const SafetensorsSet& set) {
  Contents contents;
  for (const auto& [module, slot] : job.replacements.matrices) contents.quantised.push_back(module);
  contents.vectors = job.replacements.vectors;
  for (const SafetensorsEntry* entry : set.entries()) {
    if (is_replaced(entry->name, job.replacements)) continue;
    if (contents.vectors.contains(entry->name)) continue;
    contents.passed.push_back(entry);
  }
  return contents;
}

Result<Unit> add_vector(Contents& contents, const Checkpoint& checkpoint, const std::string& name) {
  if (contents.vectors.contains(name)) return Unit{};
  contents.vectors[name] = QUERN_TRY(checkpoint.vector(name));
  return Unit{};
}

// Names of the norms and biases of a block.
std::vector<std::string> vector_names(const BlockSpec& block) {
  std::vector<std::string> names{block.norm.name + ".weight"};
  if (const auto* attention = std::get_if<AttentionSpec>(&block.mixer)) {
    if (attention->q_norm) names.push_back(attention->q_norm->name + ".weight");
    if (attention->k_norm) names.push_back(attention->k_norm->name + ".weight");
  }
  for (const LinearSpec* linear : linears(block)) {
    if (linear->has_bias) names.push_back(linear->name + ".bias");
  }
  return names;
}

Result<Contents> contents_of_spec(const ExportJob& job) {
  Contents contents;
  for (const auto& [module, slot] : job.replacements.matrices) contents.quantised.push_back(module);
  contents.vectors = job.replacements.vectors;
  for (const BlockSpec& block : job.spec.blocks) {
    for (const std::string& name : vector_names(block))
      QUERN_TRY(add_vector(contents, job.checkpoint, name));
  }
  QUERN_TRY(add_vector(contents, job.checkpoint, job.spec.final_norm.name + ".weight"));
  const ModelSpec& spec = job.spec;
  for (const BlockSpec& block : spec.blocks) {
    for (const LinearSpec* linear : linears(block)) {
      if (!job.replacements.matrices.contains(linear->name))
        contents.tables.push_back({linear->name, linear->out, linear->in});
    }
  }
  if (!job.replacements.matrices.contains(spec.embedding))
    contents.tables.push_back({spec.embedding, spec.vocabulary, spec.hidden});
  if (spec.tied_head()) return contents;
  if (!job.replacements.matrices.contains(spec.head.name))
    contents.tables.push_back({spec.head.name, spec.head.out, spec.head.in});
  if (spec.head.has_bias) QUERN_TRY(add_vector(contents, job.checkpoint, spec.head.name + ".bias"));
  return contents;
}

// F16 where that is exact, else F32.
DType vector_dtype(const std::vector<float>& values) {
  const bool exact = std::all_of(values.begin(), values.end(),
                                 [](float v) { return f16_to_f32(f32_to_f16(v)) == v; });
  return exact ? DType::kF16 : DType::kF32;
}

void plan_matrix(std::vector<SafetensorsPlan>& plan,
                 const std::string& module,
                 const Replacements::Slot& slot,
                 const QuantizeOptions& options) {
  const int64_t n = slot.rows;
  const int64_t k = slot.columns;
  const int64_t groups = k / options.group_size;
  if (options.format == QuantFormat::kAwq) {
    plan.push_back({module + ".qweight", DType::kI32, {k, n / kCodesPerWord}});
    plan.push_back({module + ".qzeros", DType::kI32, {groups, n / kCodesPerWord}});
    plan.push_back({module + ".scales", DType::kF16, {groups, n}});
    return;
  }
  const int64_t words = (n + kCodesPerWord - 1) / kCodesPerWord;
  plan.push_back({module + ".weight_packed", DType::kI32, {n, k / kCodesPerWord}});
  plan.push_back({module + ".weight_scale", DType::kF16, {n, groups}});
  plan.push_back({module + ".weight_zero_point", DType::kI32, {words, groups}});
  plan.push_back({module + ".weight_shape", DType::kI64, {2}});
}

std::vector<SafetensorsPlan> plan_of(const ExportJob& job, const Contents& contents) {
  std::vector<SafetensorsPlan> plan;
  for (const std::string& module : contents.quantised)
    plan_matrix(plan, module, job.replacements.matrices.at(module), job.options);
  for (const auto& [name, values] : contents.vectors)
    plan.push_back({name, vector_dtype(values), {static_cast<int64_t>(values.size())}});
  for (const DenseTable& table : contents.tables)
    plan.push_back({table.module + ".weight", DType::kF16, {table.rows, table.columns}});
  for (const SafetensorsEntry* entry : contents.passed)
    plan.push_back({entry->name, entry->dtype, entry->shape});
  return plan;
}

Result<Unit> write_matrix(SafetensorsWriter& writer,
                          const std::string& module,
                          const GroupedWeight& weight,
                          QuantFormat format) {
  if (format == QuantFormat::kAwq) {
    const AwqPacked packed = QUERN_TRY(pack_awq(weight, module));
    writer.write(module + ".qweight", bytes_of(packed.qweight));
    writer.write(module + ".qzeros", bytes_of(packed.qzeros));
    writer.write(module + ".scales", bytes_of(packed.scales));
    return Unit{};
  }
  const CompressedTensorsPacked packed = QUERN_TRY(pack_compressed_tensors(
      weight, module, {.scale_dtype = DType::kF16, .zero_points = ZeroPoints::kAsymmetric}));
  writer.write(module + ".weight_packed", bytes_of(packed.weight_packed));
  writer.write(module + ".weight_scale", packed.weight_scale);
  writer.write(module + ".weight_zero_point", bytes_of(packed.weight_zero_point));
  writer.write(module + ".weight_shape", std::as_bytes(std::span(packed.weight_shape)));
  return Unit{};
}

void write_vector(SafetensorsWriter& writer,
                  const std::string& name,
                  const std::vector<float>& values) {
  if (vector_dtype(values) == DType::kF32) return writer.write(name, bytes_of(values));
  std::vector<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = f32_to_f16(values[i]);
  writer.write(name, bytes_of(halves));
}

Result<Unit> write_table(SafetensorsWriter& writer,
                         const DenseTable& table,
                         const Checkpoint& checkpoint) {
  const Weight weight = QUERN_TRY(checkpoint.weight(table.module));
  std::vector<float> row(static_cast<size_t>(table.columns));
  std::vector<uint16_t> halves(row.size());
  for (int64_t i = 0; i < table.rows; ++i) {
    widen_row(weight, i, row.data());
    for (size_t c = 0; c < row.size(); ++c) halves[c] = f32_to_f16(row[c]);
    writer.write(table.module + ".weight", bytes_of(halves));
  }
  return Unit{};
}

// The modules that stay dense matrices though they could be quantised.
std::vector<std::string> kept_modules(const ExportJob& job) {
  const std::string head = job.spec.tied_head() ? "lm_head" : job.spec.head.name;
  const bool quantised = job.replacements.matrices.contains(head) ||
                         job.replacements.matrices.contains(job.spec.head.name);
  return quantised ? std::vector<std::string>{} : std::vector<std::string>{head};
}

Json config_of(const ExportJob& job) {
  Json config = job.checkpoint.config();
  config["torch_dtype"] = "float16";
  if (config.contains("dtype")) config["dtype"] = "float16";
  if (job.spec.tied_head() && job.options.outer == OuterMatrices::kHead)
    config["tie_word_embeddings"] = false;
  if (!job.replacements.matrices.empty())
    config["quantization_config"] = quantization_config(job.options, kept_modules(job));
  return config;
}

// The source opened as safetensors, when its tensors may be passed on as they are.
Result<std::optional<SafetensorsSet>> open_source(const Checkpoint& checkpoint) {
  std::optional<SafetensorsSet> set;
  if (checkpoint.format() != "safetensors") return set;
  set = QUERN_TRY(SafetensorsSet::open(checkpoint.path()));
  return set;
}

Result<Unit> verify_matrix(const Checkpoint& written,
                           const std::string& module,
                           const GroupedWeight& meant,
                           ThreadPool& pool) {
  const Weight weight = QUERN_TRY(written.weight(module, &pool));
  const auto* found = std::get_if<GroupedWeight>(&weight);
  if (found == nullptr || found->rows != meant.rows || found->columns != meant.columns ||
      found->group_size != meant.group_size || found->codes != meant.codes ||
      found->scales != meant.scales || found->zeros != meant.zeros)
    return differs(module);
  return Unit{};
}

Result<Unit> verify_table(const Checkpoint& written,
                          const Checkpoint& source,
                          const DenseTable& table) {
  const Weight found = QUERN_TRY(written.weight(table.module));
  const Weight meant = QUERN_TRY(source.weight(table.module));
  std::vector<float> a(static_cast<size_t>(table.columns));
  std::vector<float> b(a.size());
  for (int64_t row = 0; row < table.rows; ++row) {
    widen_row(found, row, a.data());
    widen_row(meant, row, b.data());
    for (float& value : b) value = f16_to_f32(f32_to_f16(value));
    if (a != b) return differs(table.module);
  }
  return Unit{};
}

Result<Unit> verify_passed(const fs::path& directory,
                           const std::vector<const SafetensorsEntry*>& passed) {
  if (passed.empty()) return Unit{};
  const SafetensorsSet written = QUERN_TRY(SafetensorsSet::open(directory));
  for (const SafetensorsEntry* entry : passed) {
    const SafetensorsEntry* found = QUERN_TRY(written.get(entry->name));
    if (found->dtype != entry->dtype || found->shape != entry->shape ||
        !std::equal(found->bytes.begin(), found->bytes.end(), entry->bytes.begin(),
                    entry->bytes.end()))
      return differs(entry->name);
  }
  return Unit{};
}

// Slots in the order of their blocks, so that each block is read once.
std::vector<std::string> modules_by_block(const Replacements& replacements) {
  std::vector<std::string> modules;
  for (const auto& [module, slot] : replacements.matrices) modules.push_back(module);
  std::sort(modules.begin(), modules.end(), [&](const std::string& a, const std::string& b) {
    const Replacements::Slot& x = replacements.matrices.at(a);
    const Replacements::Slot& y = replacements.matrices.at(b);
    return x.block != y.block ? x.block < y.block : x.layer < y.layer;
  });
  return modules;
}

// Tells how far the writing is.
class ExportMeter {
 public:
  ExportMeter(ExportProgress* progress, uint64_t total) : progress_(progress), total_(total) {}

  // About so many bytes more. Errors: kExhausted when told to stop.
  Result<Unit> add(uint64_t bytes) {
    done_ = std::min(done_ + bytes, total_);
    if (progress_ == nullptr || (*progress_)(done_, total_)) return Unit{};
    return Error{ErrorCode::kExhausted, "interrupted; nothing was written"};
  }

 private:
  ExportProgress* progress_;
  uint64_t total_;
  uint64_t done_ = 0;
};

// What a checkpoint is asked to hold, from its source.
Result<Contents> contents_of(const ExportJob& job, const std::optional<SafetensorsSet>& source) {
  Contents contents =
      source ? QUERN_TRY(contents_of_set(job, *source)) : QUERN_TRY(contents_of_spec(job));
  contents.quantised = modules_by_block(job.replacements);
  return contents;
}

}  // namespace

Json quantization_config(const QuantizeOptions& options, const std::vector<std::string>& kept) {
  if (options.format == QuantFormat::kAwq) {
    Json config = {{"quant_method", "awq"},
                   {"bits", options.bits},
                   {"group_size", options.group_size},
                   {"zero_point", true},
                   {"version", "gemm"}};
    if (!kept.empty()) config["modules_to_not_convert"] = kept;
    return config;
  }
  const Json weights = {{"num_bits", options.bits}, {"type", "int"},
                        {"strategy", "group"},      {"group_size", options.group_size},
                        {"symmetric", false},       {"dynamic", false}};
  const Json group = {{"targets", {"Linear"}}, {"weights", weights}, {"format", "pack-quantized"}};
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"config_groups", {{"group_0", group}}},
          {"ignore", kept}};
}

Result<ExportReport> export_checkpoint(const ExportJob& job) {
  const std::optional<SafetensorsSet> source = QUERN_TRY(open_source(job.checkpoint));
  const Contents contents = QUERN_TRY(contents_of(job, source));
  const std::vector<SafetensorsPlan> plan = plan_of(job, contents);
  SafetensorsWriter writer = QUERN_TRY(
      SafetensorsWriter::create(job.directory, plan, {.max_shard_bytes = job.options.shard_bytes}));
  ExportMeter meter(job.progress, writer.total_bytes());
  for (const std::string& module : contents.quantised) {
    const Replacements::Slot& slot = job.replacements.matrices.at(module);
    const GroupedWeight weight = QUERN_TRY(job.fetch(slot));
    QUERN_TRY(write_matrix(writer, module, weight, job.options.format));
    QUERN_TRY(meter.add(static_cast<uint64_t>(slot.rows * slot.columns) / 2));
  }
  for (const auto& [name, values] : contents.vectors) write_vector(writer, name, values);
  for (const DenseTable& table : contents.tables) {
    QUERN_TRY(write_table(writer, table, job.checkpoint));
    QUERN_TRY(meter.add(static_cast<uint64_t>(table.rows * table.columns) * sizeof(uint16_t)));
  }
  for (const SafetensorsEntry* entry : contents.passed) writer.write(entry->name, entry->bytes);
  ExportReport report;
  report.file_bytes = writer.total_bytes();
  writer.finish();
  for (const SafetensorsPlan& tensor : plan) {
    uint64_t bytes = static_cast<uint64_t>(dtype_bytes(tensor.dtype));
    for (const int64_t dim : tensor.shape) bytes *= static_cast<uint64_t>(dim);
    report.weight_bytes += bytes;
  }
  if (!contents.tables.empty() && job.checkpoint.format() == "gguf") {
    report.notes.push_back("matrices that stay dense were widened from GGUF and rounded to F16");
  }
  write_file(job.directory / "config.json", config_of(job).dump(2) + "\n");
  if (!job.checkpoint.generation_config().empty()) {
    write_file(job.directory / "generation_config.json",
               job.checkpoint.generation_config().dump(2) + "\n");
  }
  return report;
}

Result<int64_t> verify_checkpoint(const ExportJob& job, ThreadPool& pool) {
  const std::optional<SafetensorsSet> source = QUERN_TRY(open_source(job.checkpoint));
  const Contents contents = QUERN_TRY(contents_of(job, source));
  const std::unique_ptr<Checkpoint> written = QUERN_TRY(Checkpoint::open(job.directory));
  for (const std::string& module : contents.quantised) {
    const GroupedWeight meant = QUERN_TRY(job.fetch(job.replacements.matrices.at(module)));
    QUERN_TRY(verify_matrix(*written, module, meant, pool));
  }
  for (const auto& [name, values] : contents.vectors) {
    if (QUERN_TRY(written->vector(name)) != values) return differs(name);
  }
  for (const DenseTable& table : contents.tables)
    QUERN_TRY(verify_table(*written, job.checkpoint, table));
  QUERN_TRY(verify_passed(job.directory, contents.passed));
  return static_cast<int64_t>(contents.quantised.size() + contents.vectors.size() +
                              contents.tables.size() + contents.passed.size());
}

}  // namespace quern
