#include "model/synthetic.h"

#include <cmath>
#include <unordered_map>

#include <fmt/format.h>

#include "base/float16.h"
#include "base/random.h"
#include "model/model.h"

namespace quern {
namespace {

constexpr float kBiasSpread = 0.02f;

uint64_t stream_of(std::string_view name) {
  uint64_t hash = 0;
  for (const char c : name) hash = mix64(hash ^ static_cast<uint8_t>(c));
  return hash;
}

// The sum of four uniform numbers, made normal enough: mean 0, variance 1, at most 3.5.
float near_normal(uint64_t bits) {
  const auto part = [bits](int shift) { return static_cast<float>(bits >> shift & 0xffff); };
  constexpr float kUnit = 1.0f / 65536;
  return ((part(0) + part(16) + part(32) + part(48)) * kUnit - 2) * std::sqrt(3.0f);
}

class SyntheticCheckpoint final : public Checkpoint {
 public:
  SyntheticCheckpoint(Json config, std::string source, uint64_t seed)
      : config_(std::move(config)), source_(std::move(source)), path_(source_), seed_(seed) {}

  // What read_spec() asks for is known once the configuration is read.
  Result<Unit> read_shapes() {
    const ModelSpec spec = QUERN_TRY(read_config_spec(*this));
    matrices_[spec.embedding] = {spec.vocabulary, spec.hidden};
    for (const BlockSpec& block : spec.blocks) {
      vectors_[block.norm.name + ".weight"] = block.norm.width;
      for (const LinearSpec* linear : linears(block)) add(*linear);
      const auto* attention = std::get_if<AttentionSpec>(&block.mixer);
      if (attention == nullptr || !attention->q_norm) continue;
      vectors_[attention->q_norm->name + ".weight"] = attention->q_norm->width;
      vectors_[attention->k_norm->name + ".weight"] = attention->k_norm->width;
    }
    vectors_[spec.final_norm.name + ".weight"] = spec.final_norm.width;
    if (!spec.tied_head()) add(spec.head);
    return Unit{};
  }

  const std::filesystem::path& path() const override { return path_; }

  std::string config_source() const override { return source_; }

  const Json& config() const override { return config_; }

  const Json& generation_config() const override { return generation_; }

  std::string_view format() const override { return "synthetic"; }

  std::vector<StoredTensor> tensors() const override {
    std::vector<StoredTensor> out;
    for (const auto& [name, shape] : matrices_)
      out.push_back({name + ".weight", "BF16", {shape.rows, shape.columns}, weight_bytes(name)});
    for (const auto& [name, width] : vectors_)
      out.push_back({name, "F32", {width}, static_cast<uint64_t>(width) * sizeof(float)});
    return out;
  }

  bool has_weight(std::string_view module) const override {
    return matrices_.contains(std::string(module));
  }

  bool has_tensor(std::string_view name) const override {
    return vectors_.contains(std::string(name));
  }

  Result<WeightInfo> weight_info(std::string_view module) const override {
    const Shape shape = QUERN_TRY(shape_of(module));
    return WeightInfo{.rows = shape.rows,
                      .columns = shape.columns,
                      .format = "BF16",
                      .bits = 16,
                      .bytes = weight_bytes(module)};
  }

  Result<Weight> weight(std::string_view module, ThreadPool* pool) const override {
    const Shape shape = QUERN_TRY(shape_of(module));
    DenseWeight weight;
    weight.owned = Buffer(static_cast<size_t>(weight_bytes(module)));
    weight.values = Tensor(weight.owned.data(), DType::kBF16, {shape.rows, shape.columns});
    const uint64_t stream = stream_of(module);
    const float spread = 1.0f / std::sqrt(static_cast<float>(shape.columns));
    const auto fill = [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin * shape.columns; i < end * shape.columns; ++i) {
        const float value =
            spread * near_normal(random_bits(seed_, stream, static_cast<uint64_t>(i)));
        weight.owned.as<uint16_t>()[i] = f32_to_bf16(value);
      }
    };
    if (pool == nullptr) {
      fill(0, shape.rows, 0);
    } else {
      pool->for_each_chunk(shape.rows, 16, fill);
    }
    return Weight(std::move(weight));
  }

  Result<std::vector<float>> vector(std::string_view name) const override {
    const auto found = vectors_.find(std::string(name));
    if (found == vectors_.end()) return missing(name);
    std::vector<float> values(static_cast<size_t>(found->second), 1.0f);
    if (!name.ends_with(".bias")) return values;
    const uint64_t stream = stream_of(name);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = f16_to_f32(f32_to_f16(kBiasSpread * near_normal(random_bits(seed_, stream, i))));
    return values;
  }

  uint64_t weight_bytes(std::string_view module) const override {
    const auto found = matrices_.find(std::string(module));
    if (found == matrices_.end()) return 0;
    return static_cast<uint64_t>(found->second.rows * found->second.columns) * sizeof(uint16_t);
  }

 private:
  struct Shape {
    int64_t rows = 0;
    int64_t columns = 0;
  };

  void add(const LinearSpec& linear) {
    matrices_[linear.name] = {linear.out, linear.in};
    if (linear.has_bias) vectors_[linear.name + ".bias"] = linear.out;
  }

  Error missing(std::string_view name) const {
    return {ErrorCode::kNotFound, fmt::format("{}: no tensor \"{}\"", source_, name)};
  }

  Result<Shape> shape_of(std::string_view module) const {
    const auto found = matrices_.find(std::string(module));
    if (found == matrices_.end()) return missing(module);
    return found->second;
  }

  Json config_;
  Json generation_ = Json::object();
  std::string source_;
  std::filesystem::path path_;
  uint64_t seed_;
  std::unordered_map<std::string, Shape> matrices_;   // by module
  std::unordered_map<std::string, int64_t> vectors_;  // by tensor
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> make_synthetic_checkpoint(Json config,
                                                              std::string source,
                                                              uint64_t seed) {
  auto checkpoint =
      std::make_unique<SyntheticCheckpoint>(std::move(config), std::move(source), seed);
  QUERN_TRY(checkpoint->read_shapes());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace quern
