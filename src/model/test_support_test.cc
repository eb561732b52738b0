#include "model/test_support.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_writer.h"

namespace quern::test {
namespace {

constexpr int64_t kMaxTokens = 256;

int64_t blocks_for(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

// A vector is a matrix of one row.
FloatMatrix read_matrix(const SafetensorsFile& file, std::string_view name) {
  const SafetensorsEntry* entry = file.find(name);
  if (entry == nullptr) {
    ADD_FAILURE() << "no " << name;
    return {};
  }
  const std::vector<int64_t>& shape = entry->shape;
  FloatMatrix matrix(shape.size() == 1 ? 1 : shape[0], shape.back());
  std::memcpy(matrix.data(), entry->bytes.data(), entry->bytes.size());
  return matrix;
}

// Calls `add` with each step of a sequence, all of its rows, and the first row's position. Blocks
// are used in descending order.
using AddStep =
    FunctionRef<void(const Batch& step, std::span<const int32_t> wanted, int64_t begin)>;

void feed_in_chunks(std::span<const int32_t> tokens, int64_t chunk, AddStep add) {
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<int32_t> blocks;
  for (int64_t i = blocks_for(count); i-- > 0;) blocks.push_back(static_cast<int32_t>(i));
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t rows = std::min(chunk, count - begin);
    std::vector<int32_t> positions, wanted;
    for (int64_t i = 0; i < rows; ++i) {
      positions.push_back(static_cast<int32_t>(begin + i));
      wanted.push_back(static_cast<int32_t>(i));
    }
    const SequenceSpan sequence{0, rows, begin, blocks};
    const auto step = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(rows));
    add({step, positions, {&sequence, 1}, {}}, wanted, begin);
  }
}

}  // namespace

std::filesystem::path golden(std::string_view name) {
  return std::filesystem::path(QUERN_SOURCE_DIR) / "tests/golden/model" / name;
}

Expected read_expected(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  EXPECT_TRUE(file) << file.error().message;
  Expected expected;
  const std::vector<int64_t> tokens = read_integers(*file->find("tokens")).value();
  expected.tokens.assign(tokens.begin(), tokens.end());
  expected.logits = read_matrix(*file, "logits");
  expected.hidden_mean = read_matrix(*file, "hidden_mean");
  expected.hidden_last = read_matrix(*file, "hidden_last");
  return expected;
}

double relative_error(const FloatMatrix& a, const FloatMatrix& b) {
  EXPECT_EQ(a.rows(), b.rows());
  EXPECT_EQ(a.columns(), b.columns());
  double difference = 0;
  double largest = 0;
  for (int64_t i = 0; i < a.rows() * a.columns(); ++i) {
    const double gap = std::abs(static_cast<double>(a.data()[i]) - b.data()[i]);
    if (!(gap <= difference)) difference = gap;  // a NaN stays
    largest = std::max(largest, std::abs(static_cast<double>(b.data()[i])));
  }
  return difference / largest;
}

EditTensor EditTensor::zeros(DType dtype, std::vector<int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t dim : shape) elements *= dim;
  const auto bytes = static_cast<size_t>(elements * dtype_bytes(dtype));
  return {dtype, std::move(shape), std::vector<std::byte>(bytes)};
}

EditedCheckpoint::EditedCheckpoint(std::string_view golden_name) {
  static int count = 0;
  path_ = std::filesystem::temp_directory_path() /
          fmt::format("quern_model_test_{}_{}", ::getpid(), count++);
  std::filesystem::create_directories(path_);
  const std::filesystem::path source = golden(golden_name);
  const std::string text = read_file(source / "config.json", 1 << 20).value();
  config = parse_json(text, "config.json").value();
  const auto file = SafetensorsFile::open(source / "model.safetensors");
  for (const SafetensorsEntry& entry : file->entries()) {
    tensors[entry.name] = {entry.dtype, entry.shape, {entry.bytes.begin(), entry.bytes.end()}};
  }
}

EditedCheckpoint::~EditedCheckpoint() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Result<std::unique_ptr<Checkpoint>> EditedCheckpoint::open() const {
  write_file(path_ / "config.json", config.dump());
  if (!generation.is_null()) write_file(path_ / "generation_config.json", generation.dump());
  std::vector<SafetensorsPlan> plan;
  for (const auto& [name, tensor] : tensors) plan.push_back({name, tensor.dtype, tensor.shape});
  auto writer = SafetensorsWriter::create(path_, std::move(plan));
  EXPECT_TRUE(writer);
  for (const auto& [name, tensor] : tensors) writer->write(name, tensor.bytes);
  writer->finish();
  return Checkpoint::open(path_);
}

std::string EditedCheckpoint::failure(Backend& backend) const {
  const auto checkpoint = open();
  if (!checkpoint) return checkpoint.error().message;
  LoadOptions options;
  options.limits.kv_blocks = 1;
  const auto model = load_model(**checkpoint, backend, options, nullptr);
  return model ? "" : model.error().message;
}

std::unique_ptr<Backend> backend(std::string_view name) {
  return make_backend({.name = name, .threads = 2, .isa = {}}).value();
}

std::unique_ptr<Model> load(const std::filesystem::path& path,
                            Backend& backend,
                            const LoadChoice& choice) {
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_TRUE(checkpoint) << checkpoint.error().message;
  LoadOptions options;
  options.precision = choice.precision;
  options.limits.kv_dtype = choice.kv_dtype;
  options.limits.max_batch_tokens = kMaxTokens;
  options.limits.max_logit_rows = kMaxTokens;
  options.limits.kv_blocks = 2 * blocks_for(kMaxTokens);
  auto model = load_model(**checkpoint, backend, options, nullptr);
  EXPECT_TRUE(model) << model.error().message;
  return std::move(model).value();
}

FloatMatrix run_in_chunks(Model& model, std::span<const int32_t> tokens, int64_t chunk) {
  FloatMatrix logits(static_cast<int64_t>(tokens.size()), model.spec().vocabulary);
  feed_in_chunks(tokens, chunk, [&](Batch step, std::span<const int32_t> wanted, int64_t begin) {
    step.logit_rows = wanted;
    model.forward(step, logits.tensor().slice_rows(begin, std::ssize(wanted)));
  });
  return logits;
}

FloatMatrix hidden_in_chunks(Model& model, std::span<const int32_t> tokens, int64_t chunk) {
  FloatMatrix hidden(static_cast<int64_t>(tokens.size()), model.spec().hidden);
  feed_in_chunks(tokens, chunk, [&](Batch step, std::span<const int32_t> wanted, int64_t begin) {
    step.hidden_rows = wanted;
    step.hidden = hidden.tensor().slice_rows(begin, std::ssize(wanted));
    model.forward(step, Tensor());
  });
  return hidden;
}

}  // namespace quern::test
