// The loops of LimitOps, compiled for each instruction set. The including file defines V (a
// register of bytes or int32), F, kFloats, v_load, v_or, v_sum, v_zero, v_product, f_set, f_fma,
// f_sum, kSums (independent chains: latency x throughput), kOperations (of one v_product).

inline void keep(V& v) { asm volatile("" : "+" QUERN_REGISTER(v)); }

// Eight streams at once, as many as prefetchers follow.
int64_t read_all(const std::byte* data, size_t bytes) {
  constexpr int kStreams = 8;
  const size_t length = bytes / kStreams;
  V sums[kStreams];
  QUERN_UNROLL for (int s = 0; s < kStreams; ++s) sums[s] = v_zero();
  for (size_t i = 0; i < length; i += 64) {
    QUERN_UNROLL for (int s = 0; s < kStreams; ++s) {
      const std::byte* at = data + static_cast<size_t>(s) * length + i;
      QUERN_UNROLL for (size_t part = 0; part < 64; part += sizeof(V)) {
        sums[s] = v_or(sums[s], v_load(at + part));
      }
    }
  }
  QUERN_UNROLL for (int s = 1; s < kStreams; ++s) sums[0] = v_or(sums[0], sums[s]);
  return v_sum(sums[0]);
}

int64_t int8_products(int64_t rounds) {
  V sums[kSums];
  QUERN_UNROLL for (int s = 0; s < kSums; ++s) sums[s] = v_zero();
  V a = v_zero();
  V b = v_zero();
  keep(a);
  keep(b);
  for (int64_t r = 0; r < rounds; ++r) {
    QUERN_UNROLL for (int s = 0; s < kSums; ++s) {
      keep(a);  // as new: nothing of the product may be done once for all rounds
      sums[s] = v_product(sums[s], a, b);
      keep(sums[s]);
    }
  }
  QUERN_UNROLL for (int s = 1; s < kSums; ++s) sums[0] = v_or(sums[0], sums[s]);
  return v_sum(sums[0]);
}

float f32_products(int64_t rounds) {
  F sums[kSums];
  QUERN_UNROLL for (int s = 0; s < kSums; ++s) sums[s] = f_set(0);
  F a = f_set(0.5f);
  asm volatile("" : "+" QUERN_REGISTER(a));
  for (int64_t r = 0; r < rounds; ++r) {
    QUERN_UNROLL for (int s = 0; s < kSums; ++s) {
      sums[s] = f_fma(sums[s], a, a);
      asm volatile("" : "+" QUERN_REGISTER(sums[s]));
    }
  }
  float total = 0;
  for (int s = 0; s < kSums; ++s) total += f_first(sums[s]);
  return total;
}

constexpr LimitOps kOps = {
    .read = read_all,
    .int8_products = int8_products,
    .int8_operations = int64_t{kSums} * kOperations,
    .f32_products = f32_products,
    .f32_operations = int64_t{kSums} * 2 * static_cast<int64_t>(sizeof(F) / sizeof(float)),
};
