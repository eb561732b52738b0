// Sums of one group by products of matrices: two rows of weights times two rows of activations over
// eight columns in one instruction. For the operations of linear_neon.inl.

#include "kernels/cpu/linear_six_bits.inl"

// Sixteen rows of eight columns as signed bytes: register i has rows 2 i and 2 i + 1.
struct EightColumns {
  int8x16_t rows[8];
};

// From columns 0 .. 3 and columns 4 .. 7.
inline EightColumns eight_columns(const B& first, const B& second) {
  EightColumns out;
  QUERN_UNROLL for (int i = 0; i < 4; ++i) {
    const uint32x4_t a = vreinterpretq_u32_u8(first.v[i]);
    const uint32x4_t b = vreinterpretq_u32_u8(second.v[i]);
    out.rows[2 * i] = vreinterpretq_s8_u32(vzip1q_u32(a, b));
    out.rows[2 * i + 1] = vreinterpretq_s8_u32(vzip2q_u32(a, b));
  }
  return out;
}

// Adds the products with M rows of activations; two of them, m and m + 1, share two vectors: the
// sums of rows 4 i and 4 i + 1 of the weights lie in c[m].v[i], those of the next two in
// c[m + 1].v[i], each for row m, then for row m + 1.
template <int M>
inline void multiply_eight(
    I (&c)[M], const B& first, const B& second, const int8_t* x, int64_t stride) {
  if constexpr (M > 1) {
    const EightColumns weights = eight_columns(first, second);
    QUERN_UNROLL for (int m = 0; m + 1 < M; m += 2) {
      const int8_t* at = x + m * stride;
      const int8x16_t rows = vcombine_s8(vld1_s8(at), vld1_s8(at + stride));
      QUERN_UNROLL for (int i = 0; i < 4; ++i) {
        c[m].v[i] = vmmlaq_s32(c[m].v[i], rows, weights.rows[2 * i]);
        c[m + 1].v[i] = vmmlaq_s32(c[m + 1].v[i], rows, weights.rows[2 * i + 1]);
      }
    }
  }
  if constexpr (M % 2 == 1) {
    const int8_t* at = x + (M - 1) * stride;
    c[M - 1] = i_dot_signed(c[M - 1], first, load_i32(at));
    c[M - 1] = i_dot_signed(c[M - 1], second, load_i32(at + 4));
  }
}

// Sums of one group: codes of `kUnit` columns times M rows of activations.
template <WeightFormat kFormat, int kUnit, int M, int kSums>
inline void multiply_unit(I (&c)[M][kSums], const uint8_t* codes, const int8_t* x, int64_t stride) {
  constexpr int kParts = M == 1 ? kSums : 1;
  I sums[kParts][M];
  QUERN_UNROLL for (int p = 0; p < kParts; ++p) {
    QUERN_UNROLL for (int m = 0; m < M; ++m) sums[p][m] = i_zero();
  }
  if constexpr (kFormat == WeightFormat::kInt6) {
    QUERN_UNROLL for (int k = 0; k < kUnit; k += 16) {
      const SixBits six = load_six_bits(codes + 12 * k);
      multiply_eight<M>(sums[0], six.columns[0], six.columns[1], x + k, stride);
      multiply_eight<M>(sums[kParts - 1], six.columns[2], six.columns[3], x + k + 8, stride);
    }
  } else {
    QUERN_UNROLL for (int k = 0; k < kUnit; k += 8) {
      auto& part = sums[k / 8 % kParts];
      if constexpr (kFormat == WeightFormat::kInt8) {
        multiply_eight<M>(part, b_signed(b_load(codes + 16 * k)),
                          b_signed(b_load(codes + 16 * k + 64)), x + k, stride);
      } else {
        const B block = b_load(codes + 8 * k);
        multiply_eight<M>(part, b_low_nibbles(block), b_high_nibbles(block), x + k, stride);
      }
    }
  }
  QUERN_UNROLL for (int m = 0; m + 1 < M; m += 2) {
    QUERN_UNROLL for (int i = 0; i < 4; ++i) {
      const int64x2_t a = vreinterpretq_s64_s32(sums[0][m].v[i]);
      const int64x2_t b = vreinterpretq_s64_s32(sums[0][m + 1].v[i]);
      sums[0][m].v[i] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
      sums[0][m + 1].v[i] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
    }
  }
  QUERN_UNROLL for (int p = 0; p < kParts; ++p) {
    QUERN_UNROLL for (int m = 0; m < M; ++m) c[m][p] = i_add(c[m][p], sums[p][m]);
  }
}
