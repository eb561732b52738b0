// How the quantised matrices of a Hugging Face directory lie in its tensors, as the
// "quantization_config" of its config.json says.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "model/checkpoint.h"
#include "tensor/safetensors.h"

namespace quern {

// One quantisation method. Borrows the tensors that it was made with.
class QuantizationScheme {
 public:
  QuantizationScheme() = default;
  QuantizationScheme(const QuantizationScheme&) = delete;
  QuantizationScheme& operator=(const QuantizationScheme&) = delete;
  virtual ~QuantizationScheme() = default;

  // Checkpoint::format().
  virtual std::string_view format() const = 0;

  // Whether the module's matrix is stored in this method's form; else it is a plain MODULE.weight.
  virtual bool holds(const std::string& module) const = 0;

  // Both require holds(module). Errors: kInvalidArgument for tensors that do not fit each other or
  // the configuration, kUnsupported for a form that Quern lacks; each names the module.
  virtual Result<WeightInfo> info(const std::string& module) const = 0;
  virtual Result<Weight> read(const std::string& module) const = 0;
};

// Errors of all three: kUnsupported for a method, format or width that Quern lacks, with the list
// of what it knows; kInvalidArgument for a field that is missing or of another type.
Result<std::unique_ptr<QuantizationScheme>> make_scheme(const JsonObject& quantization,
                                                        const SafetensorsSet& tensors);
Result<std::unique_ptr<QuantizationScheme>> make_awq_scheme(const JsonObject& quantization,
                                                            const SafetensorsSet& tensors);
Result<std::unique_ptr<QuantizationScheme>> make_compressed_tensors_scheme(
    const JsonObject& quantization, const SafetensorsSet& tensors);
// Matrices of FP8 as DeepSeek and Qwen publish them: one scale for each block of
// "weight_block_size", or for the whole matrix.
Result<std::unique_ptr<QuantizationScheme>> make_fp8_scheme(const JsonObject& quantization,
                                                            const SafetensorsSet& tensors);

// The entry, if it has `rank` dimensions. Errors: kNotFound; kInvalidArgument for another rank.
Result<const SafetensorsEntry*> entry_of_rank(const SafetensorsSet& tensors,
                                              const std::string& name,
                                              size_t rank);

// The strings of an array; empty when the key is absent. Errors: kInvalidArgument for other types.
Result<std::vector<std::string>> string_list(const JsonObject& object, std::string_view key);

// Rows and columns of an FP8 matrix that share a scale; 0: all.
struct Float8Blocks {
  int64_t rows = 0;
  int64_t columns = 0;
};

// [rows, columns] under `key`; all when it is absent. Errors: kInvalidArgument for anything else.
Result<Float8Blocks> read_float8_blocks(const JsonObject& object, std::string_view key);

// QuantizationScheme::info() and read() of MODULE.weight in F8_E4M3 beside its scales.
Result<WeightInfo> float8_info(const SafetensorsSet& tensors,
                               const std::string& module,
                               const SafetensorsEntry& scales,
                               Float8Blocks blocks);
Result<Weight> read_float8(const SafetensorsSet& tensors,
                           const std::string& module,
                           const SafetensorsEntry& scales,
                           Float8Blocks blocks);

// A weight with one scale a row, as groups of at most 128 columns that repeat it: activations are
// quantised in the same groups, so a group as wide as the row would cost precision.
GroupedWeight split_row_groups(GroupedWeight weight);

}  // namespace quern
