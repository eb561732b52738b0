// Weights of a linear layer as the CPU kernels stream them: panels of 16 rows.
//
// A panel holds rows 16 p .. 16 p + 15 of one segment (rows past the end are zero) and all columns:
//   kF32, kF16         [column][16 rows]
//   kBF16              [column / 2][16 rows][2], zero past the last column
//   kInt8              blocks of 4 columns, 64 bytes: row r has bytes 4 r .. 4 r + 3
//   kInt4              blocks of 8 columns, 64 bytes: of row r's 4 bytes the low nibbles are
//   columns
//                      0 .. 3 of the block, the high nibbles columns 4 .. 7
//   kInt6              blocks of 16 columns, 192 bytes: the low four bits as two blocks of kInt4,
//   then
//                      64 bytes of upper bit pairs: of row r's 4 bytes byte j has those of columns
//                      j, j + 4, j + 8, j + 12, the lowest pair first
// so that one 64-byte load meets four columns of activations, broadcast, in one dot-product
// instruction without a shuffle. Scales lie in a stream of their own, one record a group:
//   f16 scale[16], then u8 zero[16] (kZeros), f16 minimum[16] (kMinima) or nothing (kOneZero).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace quern::cpu {

inline constexpr int kPanelRows = 16;  // 16 x int32 = one 512-bit register

// What a record of the scale stream holds beside the scales.
enum class Offsets : uint8_t {
  kZeros,
  kMinima,
  kOneZero,  // nothing: every zero point of the segment is the same
};
inline constexpr int kOffsetKinds = 3;

// One part of a joined layer.
struct Segment {
  WeightFormat format = WeightFormat::kF32;
  Offsets offsets = Offsets::kZeros;
  int zero = 0;        // kOneZero
  int group_size = 0;  // 0 for dense formats
  int64_t groups = 0;  // of a row
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  float scale_unit = 1;    // scale = f16 * scale_unit, a power of two
  float minimum_unit = 1;  // likewise
  // Codes minus code_base fit a signed byte. `centred`: nothing but that is to be taken off the
  // code before it meets the scale (kMinima), or the code minus its zero point fits a signed byte.
  int code_base = 0;
  int centred = 0;
  Buffer codes;
  Buffer scales;

  int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }

  size_t panel_bytes() const;
  size_t record_bytes() const {
    constexpr size_t kBytes[kOffsetKinds] = {48, 64, 32};
    return kBytes[static_cast<int>(offsets)];
  }

  size_t panel_scale_bytes() const { return static_cast<size_t>(groups) * record_bytes(); }

  const std::byte* panel(int64_t p) const {
    return codes.data() + static_cast<size_t>(p) * panel_bytes();
  }

  const std::byte* panel_scales(int64_t p) const {
    return scales.data() + static_cast<size_t>(p) * panel_scale_bytes();
  }
};

class CpuWeight final : public PackedWeight {
 public:
  int64_t rows() const override { return rows_; }

  int64_t columns() const override { return columns_; }

  size_t bytes() const override;

  std::string_view note() const override { return note_; }

  std::span<const Segment> segments() const { return segments_; }

  // Sum of segments()[i].panels().
  int64_t panels() const { return panels_; }

  // Bias of the rows of a segment's panel, padded with zeros; nullptr when the layer has none.
  const float* bias(const Segment& segment, int64_t panel) const;

 private:
  friend std::unique_ptr<CpuWeight> pack_weight(ThreadPool& pool,
                                                std::span<const Weight* const> parts,
                                                std::span<const float> bias,
                                                Precision precision,
                                                HugePageArena& arena);

  std::vector<Segment> segments_;
  std::vector<float> bias_;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  int64_t panels_ = 0;
  std::string note_;
};

// Contract: Backend::pack(). The memory comes from `arena`.
std::unique_ptr<CpuWeight> pack_weight(ThreadPool& pool,
                                       std::span<const Weight* const> parts,
                                       std::span<const float> bias,
                                       Precision precision,
                                       HugePageArena& arena);

// Contract: Backend::embed().
void embed_rows(ThreadPool& pool,
                Tensor out,
                const CpuWeight& table,
                std::span<const int32_t> tokens);

}  // namespace quern::cpu
