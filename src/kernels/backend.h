// The contract of every operator that a model is made of; ref/ is the oracle, cpu/ the fast one.
//
// Batch invariance: the result for one token depends on that token's own row (and, in attention,
// its own sequence) alone, never on what else is in the batch, how a prompt was cut into chunks, or
// the number of threads. linear(), embed(), add() and store_kv() evaluate the formulas below in the
// order that they state, so their results are equal bit for bit on every backend and instruction
// set; the others agree with ref/ within a tolerance derived from norms.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace quern {

// How weights and activations are held while running.
enum class Precision : uint8_t {
  kFast,  // as served: 4- and 8-bit weights stay so and meet int8 activations; BF16, F16, F32 stay
  kBF16,  // every weight widened and rounded to BF16, activations rounded to BF16 to meet them
  kFloat32,  // every weight widened to float32, activations float32
};

// The form of one packed matrix.
enum class WeightFormat : uint8_t { kF32, kBF16, kF16, kInt8, kInt4, kInt6 };

// Weights of one linear layer (or the embedding table) in the layout of one backend. Immutable.
// A linear layer may join several matrices that read the same input (q, k, v; gate, up): their rows
// follow one another in the output.
class PackedWeight {
 public:
  PackedWeight() = default;
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;
  virtual ~PackedWeight() = default;

  virtual int64_t rows() const = 0;
  virtual int64_t columns() const = 0;

  // Memory held, scales included.
  virtual size_t bytes() const = 0;

  // Empty when packing lost nothing against the stored values; else what was rounded again, as a
  // phrase for a report ("6-bit groups of 16 to 8 bits, groups of 32").
  virtual std::string_view note() const = 0;
};

// The numbers of a cached key or value.
enum class KvDType : uint8_t { kInt8, kBF16, kF32 };

// A key-value cache is an array of blocks; a block holds kKvBlockTokens positions of one sequence
// for one layer. The layout inside a block is the backend's own.
inline constexpr int kKvBlockTokens = 32;

struct KvLayout {
  KvDType dtype = KvDType::kInt8;
  int kv_heads = 0;
  int head_dim = 0;
};

// One layer's part of the cache: block `id` begins at data + id * block_bytes.
struct KvLayer {
  std::byte* data = nullptr;
  size_t block_bytes = 0;
  KvLayout layout;
};

// The tokens of one sequence in a batch: rows [row_begin, row_begin + row_count) at positions
// [position_begin, position_begin + row_count). block_table[p / kKvBlockTokens] is the block that
// holds position p; it covers every position below position_begin + row_count.
struct SequenceSpan {
  int64_t row_begin = 0;
  int64_t row_count = 0;
  int64_t position_begin = 0;
  std::span<const int32_t> block_table;
};

struct AttentionParams {
  int heads = 0;       // query heads; a multiple of layout.kv_heads
  float scale = 0;     // usually 1 / sqrt(head_dim)
  int64_t window = 0;  // a query at position p sees positions > p - window; 0: all
};

// Rotation by position: dimension pair (i, i + rotary_dim / 2) of a head turns by
// position * inverse_frequencies[i]; sine and cosine are multiplied by attention_factor.
struct RopeParams {
  std::vector<double> inverse_frequencies;  // rotary_dim / 2
  float attention_factor = 1.0f;
};

// Operators run on the thread that owns the backend and use its pool. Activations are float32;
// `tokens` is the first dimension of every activation. Outputs never alias inputs unless stated.
class Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  // "ref", "cpu/avx512vnni", ...
  virtual std::string_view name() const = 0;
  virtual ThreadPool& pool() = 0;

  // Packs matrices with equal columns into one layer whose output joins their rows. `bias` is empty
  // or has one number for each joined row. Requires group sizes of 16 or a multiple of 32.
  virtual std::unique_ptr<PackedWeight> pack(std::span<const Weight* const> parts,
                                             std::span<const float> bias,
                                             Precision precision) = 0;

  // out[t] = row tokens[t] of the table, widened. out: [tokens, columns].
  // Requires 0 <= tokens[t] < table.rows().
  virtual void embed(Tensor out, const PackedWeight& table, std::span<const int32_t> tokens) = 0;

  // out = x W^T + bias. x: [tokens, columns]; out: [tokens, rows] (may be strided).
  //
  // F32 and F16: y = 0; for k ascending: y = fma(w[k], x[k], y); y += bias. Exactly this order.
  // BF16: x is rounded to BF16 (half to even); y = 0; for even k ascending, what lies past the last
  // column being zero: y = fma(w[k + 1], x[k + 1], y), y = fma(w[k], x[k], y); y += bias.
  // Grouped formats: the row x is quantised in groups of the weight's group size G: with
  // m = max|x| over the group,
  //   d = m / 127, i = 127 / m, a = round_half_even(x * i), all in float32
  //   (d = 0, a = 0 when m < 2^-100; d = NaN, a = 0 when a number of the group is not finite),
  //   c = sum a * code, A = sum a (both exact in int32);
  //   kZeroPoint: y = fma(scale, float(c - zero * A) * d, y)
  //   kMinimum:   y = fma(scale, float(c) * d, y); y = fma(minimum, float(A) * d, y)
  // for groups in ascending order from y = 0, then y += bias; scale and minimum are the packed
  // (f16) values widened.
  virtual void linear(Tensor out, Tensor x, const PackedWeight& weight) = 0;

  // out = x / sqrt(mean(x^2) + eps) * weight over the last dimension (RMSNorm, arXiv:1910.07467).
  // x, out: [tokens, width] (or [tokens, heads, width] for norms of heads); out may be x.
  virtual void rms_norm(Tensor out, Tensor x, std::span<const float> weight, float eps) = 0;

  // x += y, then out = rms_norm(x). x, y, out: [tokens, width].
  virtual void add_rms_norm(
      Tensor out, Tensor x, Tensor y, std::span<const float> weight, float eps) = 0;

  // x += y.
  virtual void add(Tensor x, Tensor y) = 0;

  // Rotates x: [tokens, heads, head_dim] in place (RoPE, arXiv:2104.09864, half-split pairing).
  virtual void rope(Tensor x, std::span<const int32_t> positions, const RopeParams& params) = 0;

  // out = silu(gate) * up, where linear(x, gate_up) gives both, joined. x: [tokens, columns];
  // out: [tokens, rows / 2]. Never keeps the joined matrix where it can do without.
  virtual void gated_linear(Tensor out, Tensor x, const PackedWeight& gate_up) = 0;

  // Bytes of one block of one layer.
  virtual size_t kv_block_bytes(const KvLayout& layout) const = 0;

  // Writes keys and values of the batch into the cache. k, v: [tokens, kv_heads, head_dim].
  virtual void store_kv(const KvLayer& layer,
                        Tensor k,
                        Tensor v,
                        std::span<const SequenceSpan> sequences) = 0;

  // Causal attention over the cache, which already holds this batch's keys and values.
  // q, out: [tokens, heads, head_dim]. Keys are visited in blocks of kKvBlockTokens in ascending
  // order of position, with the online softmax (arXiv:1805.02867) rescaled once for each block, so
  // a query's result does not depend on the chunk it came in. Equal to ref/ within a tolerance
  // derived from norms; equal to itself bit for bit in any batch.
  virtual void attention(Tensor out,
                         Tensor q,
                         const KvLayer& layer,
                         std::span<const SequenceSpan> sequences,
                         const AttentionParams& params) = 0;
};

// What make_backend() makes.
struct BackendOptions {
  std::string_view name = "cpu";  // "cpu" or "ref"
  int threads = 0;                // 0: every core that the process may use
  std::string_view isa = {};      // empty: the best that CPUID reports; else one of cpu_isas()
};

// Errors: kInvalidArgument for an unknown name or isa (with the list of what is known),
// kUnsupported for an isa that this machine lacks.
Result<std::unique_ptr<Backend>> make_backend(const BackendOptions& options);

// The instruction sets built in, worst first: scalar, avx2, avx512, avx512vnni, avx512bf16, amx.
std::span<const std::string_view> cpu_isas();

// Whether this machine runs `isa`.
bool cpu_supports(std::string_view isa);

}  // namespace quern
