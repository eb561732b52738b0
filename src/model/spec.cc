#include "model/spec.h"

namespace quern {

std::vector<const LinearSpec*> fused_qkv(const AttentionSpec& attention) {
  return {&attention.q, &attention.k, &attention.v};
}

std::vector<const LinearSpec*> fused_gate_up(const MlpSpec& mlp) { return {&mlp.gate, &mlp.up}; }

std::vector<const LinearSpec*> input_linears(const MixerSpec& mixer) {
  if (const auto* attention = std::get_if<AttentionSpec>(&mixer)) return fused_qkv(*attention);
  return fused_gate_up(std::get<MlpSpec>(mixer));
}

const LinearSpec& output_linear(const MixerSpec& mixer) {
  if (const auto* attention = std::get_if<AttentionSpec>(&mixer)) return attention->o;
  return std::get<MlpSpec>(mixer).down;
}

std::vector<const LinearSpec*> linears(const BlockSpec& block) {
  std::vector<const LinearSpec*> all = input_linears(block.mixer);
  all.push_back(&output_linear(block.mixer));
  return all;
}

}  // namespace quern
