// What the tests of this folder share: golden checkpoints, broken copies of them, and a runner.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/model.h"
#include "tensor/buffer.h"

namespace quern::test {

std::filesystem::path golden(std::string_view name);

// What transformers answered.
struct Expected {
  std::vector<int32_t> tokens;
  FloatMatrix logits;       // [tokens, vocabulary]
  FloatMatrix hidden_mean;  // [1, hidden]: of all tokens, behind the final norm
  FloatMatrix hidden_last;  // [1, hidden]: of the last one
};
Expected read_expected(const std::filesystem::path& path);

// max |a - b| / max |b|.
double relative_error(const FloatMatrix& a, const FloatMatrix& b);

// A tensor in memory, to be changed and written again.
struct EditTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;

  static EditTensor zeros(DType dtype, std::vector<int64_t> shape);
};

// A copy of a golden directory that a test breaks in one place. Removed with the object.
class EditedCheckpoint {
 public:
  explicit EditedCheckpoint(std::string_view golden_name);
  EditedCheckpoint(const EditedCheckpoint&) = delete;
  EditedCheckpoint& operator=(const EditedCheckpoint&) = delete;
  ~EditedCheckpoint();

  Json config;
  Json generation;  // null: no file
  std::map<std::string, EditTensor> tensors;

  // Writes what the members hold and opens it.
  Result<std::unique_ptr<Checkpoint>> open() const;

  // The error of the first step that fails: opening, reading the spec, loading on `backend`.
  std::string failure(Backend& backend) const;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::unique_ptr<Backend> backend(std::string_view name);

struct LoadChoice {
  Precision precision = Precision::kFloat32;
  KvDType kv_dtype = KvDType::kF32;
};
std::unique_ptr<Model> load(const std::filesystem::path& path,
                            Backend& backend,
                            const LoadChoice& choice = {});

// Logits of every position, the sequence fed in steps of `chunk` tokens. Blocks of the cache are
// used in descending order, from `first_block`.
FloatMatrix run_in_chunks(Model& model, std::span<const int32_t> tokens, int64_t chunk);

// Likewise their hidden states: [tokens, hidden].
FloatMatrix hidden_in_chunks(Model& model, std::span<const int32_t> tokens, int64_t chunk);

}  // namespace quern::test
