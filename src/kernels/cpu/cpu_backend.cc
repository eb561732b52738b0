#include "kernels/cpu/cpu_backend.h"

#include "kernels/cpu/packed.h"

namespace quern::cpu {

CpuBackend::CpuBackend(int threads, Isa isa)
    : pool_(threads),
      isa_(isa),
      linear_kernels_(linear_kernels(isa)),
      name_("cpu/" + std::string(isa_name(isa))) {
  QUERN_CHECK(isa_supported(isa));
}

std::unique_ptr<PackedWeight> CpuBackend::pack(std::span<const Weight* const> parts,
                                               std::span<const float> bias,
                                               Precision precision) {
  return pack_weight(pool_, parts, bias, precision, arena_);
}

void CpuBackend::embed(Tensor out, const PackedWeight& table, std::span<const int32_t> tokens) {
  embed_rows(pool_, out, static_cast<const CpuWeight&>(table), tokens);
}

void CpuBackend::linear(Tensor out, Tensor x, const PackedWeight& weight) {
  cpu::linear(pool_, linear_kernels_, linear_scratch_, out, x,
              static_cast<const CpuWeight&>(weight));
}

void CpuBackend::rms_norm(Tensor out, Tensor x, std::span<const float> weight, float eps) {
  cpu::rms_norm(pool_, isa_, out, x, weight, eps);
}

void CpuBackend::add_rms_norm(
    Tensor out, Tensor x, Tensor y, std::span<const float> weight, float eps) {
  cpu::add_rms_norm(pool_, isa_, out, x, y, weight, eps);
}

void CpuBackend::add(Tensor x, Tensor y) { cpu::add(pool_, isa_, x, y); }

void CpuBackend::rope(Tensor x, std::span<const int32_t> positions, const RopeParams& params) {
  cpu::rope(pool_, isa_, rope_tables_, x, positions, params);
}

void CpuBackend::gated_linear(Tensor out, Tensor x, const PackedWeight& gate_up) {
  cpu::gated_linear(pool_, linear_kernels_, linear_scratch_, out, x,
                    static_cast<const CpuWeight&>(gate_up));
}

size_t CpuBackend::kv_block_bytes(const KvLayout& layout) const {
  return cpu::kv_block_bytes(layout);
}

void CpuBackend::store_kv(const KvLayer& layer,
                          Tensor k,
                          Tensor v,
                          std::span<const SequenceSpan> sequences) {
  cpu::store_kv(pool_, isa_, layer, k, v, sequences);
}

void CpuBackend::attention(Tensor out,
                           Tensor q,
                           const KvLayer& layer,
                           std::span<const SequenceSpan> sequences,
                           const AttentionParams& params) {
  cpu::attention(pool_, isa_, attention_scratch_, out, q, layer, sequences, params);
}

}  // namespace quern::cpu
