#include "model/families/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include <fmt/format.h>

namespace quern {
namespace {

constexpr double kDefaultTheta = 10000.0;
constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

// What an extension starts from.
struct Plain {
  double theta = kDefaultTheta;
  int head_dim = 0;
  int64_t max_positions = 0;
  std::vector<double> frequencies;  // theta^(-2i / head_dim)
};

using Extend = Result<RopeConfig> (*)(const JsonObject& scaling, const Plain& plain);

Result<double> number_between(const JsonObject& object,
                              std::string_view key,
                              std::optional<double> fallback,
                              double min,
                              double max) {
  const double value = QUERN_TRY(object.number(key, fallback));
  if (value >= min && value <= max) return value;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: \"{}\" is {}; expected a number from {} to {}", object.source(),
                           key, value, min, max)};
}

Result<double> read_factor(const JsonObject& scaling) {
  return number_between(scaling, "factor", std::nullopt, 1.0, kMaxFactor);
}

Result<int64_t> read_original_positions(const JsonObject& scaling, const Plain& plain) {
  return scaling.integer("original_max_position_embeddings", plain.max_positions, 1, kMaxPositions);
}

Result<RopeConfig> extend_default(const JsonObject&, const Plain& plain) {
  return RopeConfig{{plain.frequencies, 1.0f}, plain.max_positions};
}

Result<RopeConfig> extend_linear(const JsonObject& scaling, const Plain& plain) {
  const double factor = QUERN_TRY(read_factor(scaling));
  RopeConfig rope{{plain.frequencies, 1.0f}, plain.max_positions};
  for (double& f : rope.params.inverse_frequencies) f /= factor;
  return rope;
}

// Dynamic scaling turns keys by an angle that depends on the sequence's length, which a cache
// cannot undo; within the trained length it changes nothing, so that is where the context ends.
Result<RopeConfig> extend_dynamic(const JsonObject& scaling, const Plain& plain) {
  QUERN_TRY(read_factor(scaling));
  const int64_t original = QUERN_TRY(read_original_positions(scaling, plain));
  return RopeConfig{{plain.frequencies, 1.0f}, std::min(original, plain.max_positions)};
}

// Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended.
Result<RopeConfig> extend_llama3(const JsonObject& scaling, const Plain& plain) {
  const double factor = QUERN_TRY(read_factor(scaling));
  const double low = QUERN_TRY(number_between(scaling, "low_freq_factor", {}, 1e-3, kMaxFactor));
  const double high = QUERN_TRY(number_between(scaling, "high_freq_factor", {}, 1e-3, kMaxFactor));
  if (high <= low) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"high_freq_factor\" is {}; expected more than "
                             "\"low_freq_factor\", {}",
                             scaling.source(), high, low)};
  }
  const int64_t original = QUERN_TRY(read_original_positions(scaling, plain));
  RopeConfig rope{{plain.frequencies, 1.0f}, plain.max_positions};
  for (double& f : rope.params.inverse_frequencies) {
    const double turns = static_cast<double>(original) * f / (2.0 * std::numbers::pi);
    const double keep = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    f = (1.0 - keep) * f / factor + keep * f;
  }
  return rope;
}

// 0.1 * weight * ln(factor) + 1: how YaRN sharpens attention as the context grows.
double yarn_magnitude(double factor, double weight) {
  return factor <= 1.0 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

Result<double> yarn_attention_factor(const JsonObject& scaling, double factor) {
  const double weight = QUERN_TRY(number_between(scaling, "mscale", 0.0, 0.0, kMaxFactor));
  const double all = QUERN_TRY(number_between(scaling, "mscale_all_dim", 0.0, 0.0, kMaxFactor));
  const double inferred = weight != 0.0 && all != 0.0
                              ? yarn_magnitude(factor, weight) / yarn_magnitude(factor, all)
                              : yarn_magnitude(factor, 1.0);
  return number_between(scaling, "attention_factor", inferred, 1e-3, kMaxFactor);
}

// YaRN (arXiv:2309.00071, section 3.2): dimensions that turn more than beta_fast times within the
// original context are kept, those below beta_slow interpolated, a ramp between.
Result<RopeConfig> extend_yarn(const JsonObject& scaling, const Plain& plain) {
  const double factor = QUERN_TRY(read_factor(scaling));
  const int64_t original = QUERN_TRY(read_original_positions(scaling, plain));
  const double fast = QUERN_TRY(number_between(scaling, "beta_fast", 32.0, 1e-3, kMaxFactor));
  const double slow = QUERN_TRY(number_between(scaling, "beta_slow", 1.0, 1e-3, kMaxFactor));
  const bool truncate = QUERN_TRY(scaling.boolean("truncate", true));
  const double dim = plain.head_dim;
  const auto dimension_of = [&](double turns) {
    const double wave = static_cast<double>(original) / (turns * 2.0 * std::numbers::pi);
    return dim * std::log(wave) / (2.0 * std::log(plain.theta));
  };
  const double first = truncate ? std::floor(dimension_of(fast)) : dimension_of(fast);
  const double last = truncate ? std::ceil(dimension_of(slow)) : dimension_of(slow);
  const double begin = std::max(first, 0.0);
  const double end = std::min(last, dim - 1.0);
  const double width = end == begin ? 0.001 : end - begin;

  RopeConfig rope{{plain.frequencies, 1.0f}, plain.max_positions};
  rope.params.attention_factor =
      static_cast<float>(QUERN_TRY(yarn_attention_factor(scaling, factor)));
  for (size_t i = 0; i < rope.params.inverse_frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - begin) / width, 0.0, 1.0);
    double& f = rope.params.inverse_frequencies[i];
    f = ramp * f / factor + (1.0 - ramp) * f;
  }
  const double reach = factor * static_cast<double>(original);
  rope.max_context =
      std::max(plain.max_positions, static_cast<int64_t>(std::min(reach, double{kMaxPositions})));
  return rope;
}

Result<std::vector<double>> read_factors(const JsonObject& scaling,
                                         std::string_view key,
                                         size_t count) {
  const Json* found = scaling.find(key);
  const auto wrong = [&](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"{}\" is {}; expected {} numbers from 0.001 to 1e6, one for "
                             "each rotated pair",
                             scaling.source(), key, what, count)};
  };
  if (found == nullptr) return wrong("missing");
  if (!found->is_array()) return wrong("not an array");
  if (found->size() != count) return wrong(fmt::format("{} long", found->size()));
  std::vector<double> factors;
  for (const Json& item : *found) {
    const double factor = item.is_number() ? item.get<double>() : 0.0;
    if (!(factor >= 1e-3 && factor <= kMaxFactor)) return wrong("not of such numbers");
    factors.push_back(factor);
  }
  return factors;
}

// Each pair has a factor of its own. Two lists, one for short and one for long sequences, would
// turn cached keys differently as a sequence grows: only one list for both can be served.
Result<RopeConfig> extend_longrope(const JsonObject& scaling, const Plain& plain) {
  const size_t pairs = plain.frequencies.size();
  const std::vector<double> factors = QUERN_TRY(read_factors(scaling, "short_factor", pairs));
  if (factors != QUERN_TRY(read_factors(scaling, "long_factor", pairs))) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: \"short_factor\" and \"long_factor\" differ; longrope is "
                             "supported with equal lists alone",
                             scaling.source())};
  }
  const auto original = static_cast<double>(QUERN_TRY(read_original_positions(scaling, plain)));
  const double ratio = static_cast<double>(plain.max_positions) / original;
  const double factor = QUERN_TRY(number_between(scaling, "factor", ratio, 1e-6, kMaxFactor));
  const double inferred =
      factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(original));
  RopeConfig rope{{plain.frequencies, 1.0f}, plain.max_positions};
  rope.params.attention_factor = static_cast<float>(
      QUERN_TRY(number_between(scaling, "attention_factor", inferred, 1e-3, kMaxFactor)));
  for (size_t i = 0; i < pairs; ++i) rope.params.inverse_frequencies[i] /= factors[i];
  return rope;
}

struct RopeType {
  std::string_view name;
  Extend extend;
};

constexpr RopeType kRopeTypes[] = {
    {"default", extend_default}, {"linear", extend_linear}, {"dynamic", extend_dynamic},
    {"llama3", extend_llama3},   {"yarn", extend_yarn},     {"longrope", extend_longrope},
};

Result<const RopeType*> find_type(const JsonObject& scaling) {
  const std::string old_key = QUERN_TRY(scaling.string("type", "default"));
  const std::string name = QUERN_TRY(scaling.string("rope_type", old_key));
  std::string known;
  for (const RopeType& type : kRopeTypes) {
    if (type.name == name) return &type;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", type.name);
  }
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: the rope type \"{}\" is not supported; known are {}",
                           scaling.source(), name, known)};
}

// The object under the newer or the older key; an empty one when there is neither.
Result<JsonObject> scaling_object(const JsonObject& config) {
  static const Json empty = Json::object();
  for (const std::string_view key : {"rope_parameters", "rope_scaling"}) {
    const Json* found = config.find(key);
    if (found == nullptr) continue;
    const std::string source = fmt::format("{}: {}", config.source(), key);
    if (found->is_object()) return JsonObject(*found, source);
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} is not an object", source)};
  }
  return JsonObject(empty, config.source());
}

}  // namespace

Result<RopeConfig> read_rope(const JsonObject& config, int head_dim, int64_t max_positions) {
  const JsonObject scaling = QUERN_TRY(scaling_object(config));
  const RopeType* type = QUERN_TRY(find_type(scaling));
  Plain plain;
  plain.head_dim = head_dim;
  plain.max_positions = max_positions;
  const double outer =
      QUERN_TRY(number_between(config, "rope_theta", kDefaultTheta, 1.0 + 1e-6, kMaxTheta));
  plain.theta = QUERN_TRY(number_between(scaling, "rope_theta", outer, 1.0 + 1e-6, kMaxTheta));
  for (const JsonObject* object : {&config, &scaling}) {
    const double part = QUERN_TRY(object->number("partial_rotary_factor", 1.0));
    if (part == 1.0) continue;
    return Error{
        ErrorCode::kUnsupported,
        fmt::format("{}: \"partial_rotary_factor\" is {}; supported is 1", object->source(), part)};
  }
  for (int i = 0; i < head_dim / 2; ++i) {
    plain.frequencies.push_back(std::pow(plain.theta, -2.0 * i / head_dim));
  }
  return type->extend(scaling, plain);
}

}  // namespace quern
