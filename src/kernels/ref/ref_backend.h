// The oracle: every operator as its formula says, in plain loops.
//
// The operators other than linear() and embed() are the free functions of ref/elementwise.h and
// ref/attention.h: the signatures of Backend behind a leading ThreadPool&.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "kernels/backend.h"

namespace quern::ref {

class RefBackend final : public Backend {
 public:
  explicit RefBackend(int threads) : pool_(threads) {}

  std::string_view name() const override { return "ref"; }

  ThreadPool& pool() override { return pool_; }

  std::unique_ptr<PackedWeight> pack(std::span<const Weight* const> parts,
                                     std::span<const float> bias,
                                     Precision precision) override;
  void embed(Tensor out, const PackedWeight& table, std::span<const int32_t> tokens) override;
  void linear(Tensor out, Tensor x, const PackedWeight& weight) override;
  void rms_norm(Tensor out, Tensor x, std::span<const float> weight, float eps) override;
  void add_rms_norm(
      Tensor out, Tensor x, Tensor y, std::span<const float> weight, float eps) override;
  void add(Tensor x, Tensor y) override;
  void rope(Tensor x, std::span<const int32_t> positions, const RopeParams& params) override;
  void gated_linear(Tensor out, Tensor x, const PackedWeight& gate_up) override;
  size_t kv_block_bytes(const KvLayout& layout) const override;
  void store_kv(const KvLayer& layer,
                Tensor k,
                Tensor v,
                std::span<const SequenceSpan> sequences) override;
  void attention(Tensor out,
                 Tensor q,
                 const KvLayer& layer,
                 std::span<const SequenceSpan> sequences,
                 const AttentionParams& params) override;

 private:
  ThreadPool pool_;
};

}  // namespace quern::ref
