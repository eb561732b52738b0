#include "model/synthetic.h"

#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/model.h"
#include "model/test_support.h"

namespace quern {
namespace {

std::unique_ptr<Checkpoint> like(const char* golden, uint64_t seed = 0) {
  const auto original = Checkpoint::open(test::golden(golden)).value();
  return make_synthetic_checkpoint(original->config(), golden, seed).value();
}

TEST(SyntheticCheckpoint, HasTheTensorsOfTheRealOne) {
  for (const char* golden : {"llama", "llama_bias", "qwen2", "qwen3", "mistral", "smollm2"}) {
    const auto real = Checkpoint::open(test::golden(golden)).value();
    const auto synthetic = like(golden);
    ASSERT_TRUE(read_spec(*synthetic)) << golden;
    EXPECT_EQ(synthetic->tensors().size(), real->tensors().size()) << golden;
    for (const StoredTensor& tensor : real->tensors()) {
      const bool matrix = tensor.shape.size() == 2;
      const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
      EXPECT_TRUE(matrix ? synthetic->has_weight(module) : synthetic->has_tensor(tensor.name))
          << tensor.name;
    }
  }
}

TEST(SyntheticCheckpoint, SpreadsItsNumbersByTheWidth) {
  const auto checkpoint = like("llama31");
  const FloatMatrix w = widen(checkpoint->weight("model.layers.1.mlp.down_proj").value());
  double sum = 0, squares = 0;
  const int64_t count = w.rows() * w.columns();
  for (int64_t i = 0; i < count; ++i) {
    sum += static_cast<double>(w.data()[i]);
    squares += static_cast<double>(w.data()[i]) * static_cast<double>(w.data()[i]);
  }
  const auto n = static_cast<double>(count);
  const auto width = static_cast<double>(w.columns());
  EXPECT_NEAR(squares / n * width, 1, 0.1);
  EXPECT_LT(std::fabs(sum / n) * std::sqrt(width), 5 / std::sqrt(n));
  const auto norm = checkpoint->vector("model.norm.weight").value();
  EXPECT_THAT(norm, testing::Each(1.0f));
}

TEST(SyntheticCheckpoint, GivesTheSameNumbersByThreadsAndOthersByNameOrSeed) {
  const std::string q = "model.layers.0.self_attn.q_proj";
  const auto numbers = [](const Weight& weight) {
    const FloatMatrix wide = widen(weight);
    return std::vector<float>(wide.data(), wide.data() + wide.rows() * wide.columns());
  };
  ThreadPool pool(3);
  const auto checkpoint = like("llama");
  const std::vector<float> alone = numbers(checkpoint->weight(q).value());
  EXPECT_EQ(alone, numbers(checkpoint->weight(q, &pool).value()));
  EXPECT_NE(alone, numbers(checkpoint->weight("model.layers.1.self_attn.q_proj").value()));
  EXPECT_NE(alone, numbers(like("llama", 1)->weight(q).value()));
}

TEST(SyntheticCheckpoint, NamesWhatIsNotThere) {
  const auto checkpoint = like("llama");
  EXPECT_EQ(checkpoint->weight("no.such.module").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(checkpoint->weight_info("no.such.module").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(checkpoint->vector("model.layers.0.mlp.up_proj.bias").error().code,
            ErrorCode::kNotFound);
  const auto broken = make_synthetic_checkpoint(Json::object(), "there/config.json", 0);
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message, testing::HasSubstr("there/config.json: \"architectures\""));
}

}  // namespace
}  // namespace quern
