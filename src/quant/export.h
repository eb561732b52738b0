// Writes a quantised checkpoint as a Hugging Face directory, and reads it back to compare.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "quant/quantize.h"
#include "tensor/weight.h"

namespace quern {

// What takes the place of the source's tensors. Everything else passes through unchanged.
struct Replacements {
  // Module path of a quantised matrix -> the block and the layer in it that `fetch` is asked for.
  struct Slot {
    int64_t block = 0;
    size_t layer = 0;
    int64_t rows = 0;
    int64_t columns = 0;
  };

  std::map<std::string, Slot> matrices;
  std::map<std::string, std::vector<float>> vectors;  // numbers of f16, by tensor name
};

// The matrix of a slot. Called once for each slot when writing and once when verifying, layers of
// one block one after the other.
using FetchMatrix = std::function<Result<GroupedWeight>(const Replacements::Slot&)>;

// Called with the bytes written so far; false stops the writing.
using ExportProgress = FunctionRef<bool(uint64_t done, uint64_t total)>;

struct ExportJob {
  const Checkpoint& checkpoint;
  const ModelSpec& spec;
  const QuantizeOptions& options;
  const Replacements& replacements;
  const FetchMatrix& fetch;
  std::filesystem::path directory;     // exists and is empty
  ExportProgress* progress = nullptr;  // may be nullptr
};

struct ExportReport {
  uint64_t weight_bytes = 0;
  uint64_t file_bytes = 0;
  std::vector<std::string> notes;
};

// Writes safetensors, config.json and generation_config.json. Errors: those of packing and of
// reading the source; kExhausted when the progress says stop.
Result<ExportReport> export_checkpoint(const ExportJob& job);

// Opens what was written as anybody would and compares every tensor with what was meant, number by
// number. Returns how many were compared. Errors: kInvalidArgument naming the first that differs.
Result<int64_t> verify_checkpoint(const ExportJob& job, ThreadPool& pool);

// The quantization_config of config.json. `kept` names the modules that stay dense.
Json quantization_config(const QuantizeOptions& options, const std::vector<std::string>& kept);

}  // namespace quern
