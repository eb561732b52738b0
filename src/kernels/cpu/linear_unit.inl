// The products of linear_body.inl by dot products of four columns, over its operations and
//   Short         what nibble products are summed in before they are widened
//   dot_six_bits  adds the products of two vectors of codes to two sums, or both to the first

#include "kernels/cpu/linear_six_bits.inl"

// Sums of one group: codes of `kUnit` columns times M rows of activations.
template <WeightFormat kFormat, int kUnit, int M, int kSums>
[[gnu::always_inline]] inline void multiply_unit(I (&c)[M][kSums],
                                                 const uint8_t* codes,
                                                 const int8_t* x,
                                                 int64_t stride) {
  if constexpr (kFormat == WeightFormat::kInt8) {
    QUERN_UNROLL for (int b = 0; b < kUnit / 4; ++b) {
      const B block = b_load(codes + 64 * b);
      QUERN_UNROLL for (int m = 0; m < M; ++m) {
        c[m][b % kSums] = i_dot_bytes(c[m][b % kSums], block, load_i32(x + m * stride + 4 * b));
      }
    }
  } else if constexpr (kFormat == WeightFormat::kInt6) {
    QUERN_UNROLL for (int b = 0; b < kUnit / 16; ++b) {
      const SixBits six = load_six_bits(codes + 192 * b);
      QUERN_UNROLL for (int m = 0; m < M; ++m) {
        const int8_t* at = x + m * stride + 16 * b;
        QUERN_UNROLL for (int i = 0; i < 4; i += 2) {
          dot_six_bits(c[m][i % kSums], c[m][(i + 1) % kSums], six.columns[i], load_i32(at + 4 * i),
                       six.columns[i + 1], load_i32(at + 4 * i + 4));
        }
      }
    }
  } else {
    Short s[M][kSums];
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      QUERN_UNROLL for (int i = 0; i < kSums; ++i) s[m][i] = short_begin(c[m][i]);
    }
    QUERN_UNROLL for (int b = 0; b < kUnit / 8; ++b) {
      const B block = b_load(codes + 64 * b);
      const B low = b_low_nibbles(block);
      const B high = b_high_nibbles(block);
      QUERN_UNROLL for (int m = 0; m < M; ++m) {
        const int8_t* at = x + m * stride + 8 * b;
        Short& even = s[m][(2 * b) % kSums];
        even = short_dot_nibbles(even, low, load_i32(at));
        Short& odd = s[m][(2 * b + 1) % kSums];
        odd = short_dot_nibbles(odd, high, load_i32(at + 4));
      }
    }
    QUERN_UNROLL for (int m = 0; m < M; ++m) {
      QUERN_UNROLL for (int i = 0; i < kSums; ++i) c[m][i] = short_end(c[m][i], s[m][i]);
    }
  }
}
