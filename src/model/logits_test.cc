// Every family, storage and backend against the logits that Hugging Face transformers gave for the
// same checkpoint (tools/make_logit_goldens.py).
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

#include "model/test_support.h"

namespace quern {
namespace {

constexpr double kMaxRelativeError = 1e-4;

// The folder of the golden logits, and what in it is opened: "" for the directory.
struct Golden {
  const char* folder;
  const char* file;
};

constexpr Golden kGoldens[] = {
    {"llama", ""},
    {"llama31", ""},
    {"smollm2", ""},
    {"llama_bias", ""},
    {"mistral", ""},
    {"qwen2", ""},
    {"qwen3", ""},
    {"qwen3_sharded", ""},
    {"awq", ""},
    {"compressed_tensors", ""},
    {"fp8", ""},
    {"fp8_compressed", ""},
    {"llama31", "model.gguf"},
    {"llama_bias", "model.gguf"},
    {"qwen3", "model.gguf"},
    {"gguf_llama", "model.gguf"},
    {"gguf_qwen2", "model.gguf"},
};

std::string test_name(const testing::TestParamInfo<std::tuple<Golden, const char*>>& info) {
  const auto& [golden, backend] = info.param;
  return std::string(golden.folder) + (golden.file[0] == '\0' ? "" : "_as_gguf") + "_" + backend;
}

class GoldenLogits : public testing::TestWithParam<std::tuple<Golden, const char*>> {
 protected:
  GoldenLogits() : backend_(test::backend(std::get<1>(GetParam()))) {
    const Golden& golden = std::get<0>(GetParam());
    const std::filesystem::path folder = test::golden(golden.folder);
    expected_ = test::read_expected(folder / "expected.safetensors");
    path_ = golden.file[0] == '\0' ? folder : folder / golden.file;
  }

  std::unique_ptr<Backend> backend_;
  test::Expected expected_;
  std::filesystem::path path_;
};

TEST_P(GoldenLogits, AgreeInFloat32) {
  const auto model = test::load(path_, *backend_);
  const FloatMatrix logits = test::run_in_chunks(*model, expected_.tokens, 64);
  EXPECT_LE(test::relative_error(logits, expected_.logits), kMaxRelativeError);
}

TEST_P(GoldenLogits, AreTheSameBitsInAnyChunks) {
  for (const auto& [precision, kv] : {test::LoadChoice{Precision::kFloat32, KvDType::kF32},
                                      test::LoadChoice{Precision::kFast, KvDType::kInt8}}) {
    const auto model = test::load(path_, *backend_, {precision, kv});
    const FloatMatrix whole = test::run_in_chunks(*model, expected_.tokens, 64);
    const size_t bytes = static_cast<size_t>(whole.rows() * whole.columns()) * sizeof(float);
    for (const int64_t chunk : {1, 7, 33}) {
      const FloatMatrix cut = test::run_in_chunks(*model, expected_.tokens, chunk);
      EXPECT_EQ(std::memcmp(cut.data(), whole.data(), bytes), 0) << "chunks of " << chunk;
    }
  }
}

TEST_P(GoldenLogits, ComeFromHiddenStatesThatAgreeToo) {
  const auto model = test::load(path_, *backend_);
  for (const int64_t chunk : {7, 64}) {
    const FloatMatrix hidden = test::hidden_in_chunks(*model, expected_.tokens, chunk);
    FloatMatrix mean(1, hidden.columns());
    FloatMatrix last(1, hidden.columns());
    for (int64_t c = 0; c < hidden.columns(); ++c) {
      double sum = 0;
      for (int64_t row = 0; row < hidden.rows(); ++row)
        sum += static_cast<double>(hidden.row(row)[c]);
      mean.data()[c] = static_cast<float>(sum / static_cast<double>(hidden.rows()));
      last.data()[c] = hidden.row(hidden.rows() - 1)[c];
    }
    EXPECT_LE(test::relative_error(mean, expected_.hidden_mean), kMaxRelativeError);
    EXPECT_LE(test::relative_error(last, expected_.hidden_last), kMaxRelativeError);
  }
}

INSTANTIATE_TEST_SUITE_P(Families,
                         GoldenLogits,
                         testing::Combine(testing::ValuesIn(kGoldens),
                                          testing::Values("ref", "cpu")),
                         test_name);

// For a model that is too large for the repository: QUERN_TEST_MODEL names it and
// QUERN_TEST_EXPECTED a file as the goldens have.
TEST(RealModel, AgreesWithTheReferenceImplementation) {
  const char* model_path = std::getenv("QUERN_TEST_MODEL");
  const char* expected_path = std::getenv("QUERN_TEST_EXPECTED");
  if (model_path == nullptr || expected_path == nullptr) {
    GTEST_SKIP() << "set QUERN_TEST_MODEL and QUERN_TEST_EXPECTED";
  }
  const test::Expected expected = test::read_expected(expected_path);
  const auto backend = test::backend("cpu");
  const auto model = test::load(model_path, *backend);
  const FloatMatrix logits = test::run_in_chunks(*model, expected.tokens, 64);
  const double error = test::relative_error(logits, expected.logits);
  RecordProperty("relative_error", std::to_string(error));
  std::printf("maximum relative error %.3g\n", error);
  EXPECT_LE(error, kMaxRelativeError);
}

}  // namespace
}  // namespace quern
