// The fast backend of the CPU: one instruction set, chosen at construction.
//
// The operators other than linear() and embed() are the free functions of cpu/elementwise.h and
// cpu/attention.h: the signatures of Backend behind a leading ThreadPool& and Isa.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/backend.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"

namespace quern::cpu {

class CpuBackend final : public Backend {
 public:
  // Requires isa_supported(isa).
  CpuBackend(int threads, Isa isa);

  std::string_view name() const override { return name_; }

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
  Isa isa_;
  LinearKernels linear_kernels_;
  std::string name_;
  HugePageArena arena_;
  LinearScratch linear_scratch_;
  AttentionScratch attention_scratch_;
  RopeTables rope_tables_;
};

}  // namespace quern::cpu
