#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "model/families/families.h"
#include "model/model.h"

namespace quern {
namespace {

constexpr size_t kMaxEosTokens = 64;

Result<const Family*> find_family(const std::string& architecture, const std::string& source) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.architecture == architecture) return &family;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", family.architecture);
  }
  return Error{ErrorCode::kUnsupported,
               fmt::format("{}: the architecture \"{}\" is not supported; known are {}", source,
                           architecture, known)};
}

Result<std::string> read_architecture(const JsonObject& config) {
  const Json* names = config.find("architectures");
  if (names != nullptr && names->is_array() && names->size() == 1 && (*names)[0].is_string()) {
    return (*names)[0].get<std::string>();
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: \"architectures\" is {}; expected an array with one name",
                           config.source(), names == nullptr ? "missing" : names->dump())};
}

Result<int32_t> token_id(const JsonObject& config,
                         std::string_view key,
                         const Json& value,
                         int64_t vocabulary) {
  const bool fits = value.is_number_integer() && value >= 0 && value < vocabulary;
  if (fits) return value.get<int32_t>();
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: \"{}\" has {}; expected token ids from 0 to {}", config.source(),
                           key, value.dump(), vocabulary - 1)};
}

Result<std::vector<int32_t>> token_ids(const JsonObject& config,
                                       std::string_view key,
                                       int64_t vocabulary) {
  std::vector<int32_t> ids;
  const Json* found = config.find(key);
  if (found == nullptr) return ids;
  if (!found->is_array()) {
    ids.push_back(QUERN_TRY(token_id(config, key, *found, vocabulary)));
    return ids;
  }
  if (found->size() > kMaxEosTokens) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: \"{}\" has {} token ids; expected at most {}", config.source(),
                             key, found->size(), kMaxEosTokens)};
  }
  for (const Json& item : *found) {
    ids.push_back(QUERN_TRY(token_id(config, key, item, vocabulary)));
  }
  return ids;
}

// What ends a sequence: generation_config.json has the last word, for chat models add their end of
// turn there.
Result<Unit> read_special_tokens(const JsonObject& config,
                                 const JsonObject& generation,
                                 ModelSpec& spec) {
  for (const JsonObject* object : {&generation, &config}) {
    if (spec.eos_tokens.empty()) {
      spec.eos_tokens = QUERN_TRY(token_ids(*object, "eos_token_id", spec.vocabulary));
    }
    const auto bos = QUERN_TRY(token_ids(*object, "bos_token_id", spec.vocabulary));
    if (!spec.bos_token && !bos.empty()) spec.bos_token = bos.front();
  }
  return Unit{};
}

Error disagrees(const Checkpoint& checkpoint, const std::string& what) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}: the tensors do not agree with {}: {}", checkpoint.path().string(),
                      checkpoint.config_source(), what)};
}

Result<Unit> check_matrix(const Checkpoint& checkpoint,
                          const std::string& module,
                          int64_t rows,
                          int64_t columns) {
  const WeightInfo info = QUERN_TRY(checkpoint.weight_info(module));
  if (info.rows == rows && info.columns == columns) return Unit{};
  return disagrees(checkpoint,
                   fmt::format("{}.weight has {} rows and {} columns; the configuration asks for "
                               "{} and {}",
                               module, info.rows, info.columns, rows, columns));
}

// A bias that is there but not in the configuration would be left out in silence: the answer of
// the model would be another model's.
Result<Unit> check_bias(const Checkpoint& checkpoint, const LinearSpec& linear) {
  const bool has = checkpoint.has_tensor(linear.name + ".bias");
  if (has == linear.has_bias) return Unit{};
  return disagrees(checkpoint,
                   fmt::format("{}.bias is {}; the configuration asks for {}", linear.name,
                               has ? "there" : "missing", has ? "none" : "one"));
}

Result<Unit> check_linear(const Checkpoint& checkpoint, const LinearSpec& linear) {
  QUERN_TRY(check_matrix(checkpoint, linear.name, linear.out, linear.in));
  return check_bias(checkpoint, linear);
}

Result<Unit> check_norm(const Checkpoint& checkpoint, const NormSpec& norm) {
  if (checkpoint.has_tensor(norm.name + ".weight")) return Unit{};
  return disagrees(checkpoint, fmt::format("{}.weight is missing", norm.name));
}

Result<Unit> check_head_norms(const Checkpoint& checkpoint, const AttentionSpec& attention) {
  if (attention.q_norm) {
    QUERN_TRY(check_norm(checkpoint, *attention.q_norm));
    return check_norm(checkpoint, *attention.k_norm);
  }
  const std::string& q = attention.q.name;
  const std::string norm = q.substr(0, q.rfind('.')) + ".q_norm.weight";
  if (!checkpoint.has_tensor(norm)) return Unit{};
  return disagrees(checkpoint,
                   fmt::format("{} is there; this architecture has no such norm", norm));
}

// No layer may lie beyond the last one: the norm of the block that would come next is the witness.
Result<Unit> check_depth(const Checkpoint& checkpoint, const ModelSpec& spec) {
  const std::string& first = spec.blocks.front().norm.name;
  const size_t layers = static_cast<size_t>(std::count_if(
      spec.blocks.begin(), spec.blocks.end(),
      [](const BlockSpec& block) { return std::holds_alternative<AttentionSpec>(block.mixer); }));
  const size_t zero = first.find(".0.");
  if (zero == std::string::npos) return Unit{};
  const std::string beyond =
      fmt::format("{}.{}.{}.weight", first.substr(0, zero), layers, first.substr(zero + 3));
  if (!checkpoint.has_tensor(beyond)) return Unit{};
  return disagrees(checkpoint,
                   fmt::format("{} is there; the configuration has {} layers", beyond, layers));
}

Result<Unit> check_tensors(const Checkpoint& checkpoint, const ModelSpec& spec) {
  QUERN_TRY(check_matrix(checkpoint, spec.embedding, spec.vocabulary, spec.hidden));
  for (const BlockSpec& block : spec.blocks) {
    QUERN_TRY(check_norm(checkpoint, block.norm));
    for (const LinearSpec* linear : linears(block)) QUERN_TRY(check_linear(checkpoint, *linear));
    if (const auto* attention = std::get_if<AttentionSpec>(&block.mixer)) {
      QUERN_TRY(check_head_norms(checkpoint, *attention));
    }
  }
  QUERN_TRY(check_depth(checkpoint, spec));
  QUERN_TRY(check_norm(checkpoint, spec.final_norm));
  return spec.tied_head() ? Unit{} : check_linear(checkpoint, spec.head);
}

}  // namespace

Result<ModelSpec> read_config_spec(const Checkpoint& checkpoint) {
  const JsonObject config(checkpoint.config(), checkpoint.config_source());
  const std::string architecture = QUERN_TRY(read_architecture(config));
  const Family* family = QUERN_TRY(find_family(architecture, config.source()));
  ModelSpec spec = QUERN_TRY(family->build(config));
  spec.architecture = architecture;
  const JsonObject generation(checkpoint.generation_config(),
                              (checkpoint.path() / "generation_config.json").string());
  QUERN_TRY(read_special_tokens(config, generation, spec));
  return spec;
}

Result<ModelSpec> read_spec(const Checkpoint& checkpoint) {
  ModelSpec spec = QUERN_TRY(read_config_spec(checkpoint));
  QUERN_TRY(check_tensors(checkpoint, spec));
  return spec;
}

}  // namespace quern
