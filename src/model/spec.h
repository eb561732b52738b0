// A model as its families describe it: names and sizes of its residual blocks, no weights.
//
// Whatever loads, runs, sizes or quantises a model reads this one description.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/backend.h"

namespace quern {

// y = W x + b. `name` is the checkpoint's module path; the matrix is NAME.weight (or whatever the
// quantisation format of the checkpoint calls it), the bias NAME.bias.
struct LinearSpec {
  std::string name;
  int64_t in = 0;
  int64_t out = 0;
  bool has_bias = false;
};

struct NormSpec {
  std::string name;  // the vector is NAME.weight
  int64_t width = 0;
  float eps = 1e-6f;
};

struct AttentionSpec {
  LinearSpec q, k, v, o;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  std::optional<NormSpec> q_norm, k_norm;  // RMSNorm of each head before the rotation
  RopeParams rope;
  int64_t window = 0;  // 0: none
};

struct MlpSpec {
  LinearSpec gate, up, down;  // down(silu(gate x) * (up x))
};

using MixerSpec = std::variant<AttentionSpec, MlpSpec>;

// x += mixer(norm(x))
struct BlockSpec {
  NormSpec norm;
  MixerSpec mixer;
};

struct ModelSpec {
  std::string architecture;  // "LlamaForCausalLM"
  int64_t vocabulary = 0;
  int64_t hidden = 0;
  int64_t max_context = 0;
  std::string embedding;  // module path; the table is NAME.weight, [vocabulary, hidden]
  std::vector<BlockSpec> blocks;
  NormSpec final_norm;
  LinearSpec head;  // head.name == embedding when the two are tied
  std::vector<int32_t> eos_tokens;
  std::optional<int32_t> bos_token;

  bool tied_head() const { return head.name == embedding; }
};

// The linear layers that read one input and so are packed, scaled and sized together.
std::vector<const LinearSpec*> fused_qkv(const AttentionSpec& attention);
std::vector<const LinearSpec*> fused_gate_up(const MlpSpec& mlp);

// The layers that read a mixer's input (q, k, v or gate, up) and the one that writes its answer.
std::vector<const LinearSpec*> input_linears(const MixerSpec& mixer);
const LinearSpec& output_linear(const MixerSpec& mixer);

// Every linear layer of a block, in the order that a forward pass meets them.
std::vector<const LinearSpec*> linears(const BlockSpec& block);

}  // namespace quern
