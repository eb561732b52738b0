// The operations of linear_body.inl and linear_tiles.inl in plain C++.

struct F {
  float v[kPanelRows];
};

struct I {
  int32_t v[kPanelRows];
};

struct B {
  uint8_t v[4 * kPanelRows];
};

constexpr int kPrefetchBytes = 0;

template <int kBytes>
inline void prefetch(const uint8_t*) {}

inline void prefetch_far(const uint8_t* /*at*/) {}

inline void prefetch_to_write(const float* /*at*/) {}

// A vector whose lane r is f(r).
template <typename V, typename Function>
inline V lanes(Function f) {
  V out;
  for (int r = 0; r < kPanelRows; ++r) out.v[r] = f(r);
  return out;
}

inline int32_t load_i32(const int8_t* at) {
  int32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline F f_set(float x) {
  return lanes<F>([&](int) { return x; });
}

inline F f_zero() { return f_set(0); }

inline F f_load(const float* at) {
  return lanes<F>([&](int r) { return at[r]; });
}

inline void f_store(float* at, const F& x) { std::memcpy(at, x.v, sizeof x.v); }

inline F f_add(const F& a, const F& b) {
  return lanes<F>([&](int r) { return a.v[r] + b.v[r]; });
}

inline F f_mul(const F& a, const F& b) {
  return lanes<F>([&](int r) { return a.v[r] * b.v[r]; });
}

inline F f_fma(const F& a, const F& b, const F& c) {
  return lanes<F>([&](int r) { return std::fma(a.v[r], b.v[r], c.v[r]); });
}

inline F f_from_i(const I& x) {
  return lanes<F>([&](int r) { return static_cast<float>(x.v[r]); });
}

inline uint16_t load_half(const std::byte* at, int r) {
  uint16_t half;
  std::memcpy(&half, at + 2 * r, sizeof half);
  return half;
}

inline F f_from_f16(const std::byte* at) {
  return lanes<F>([&](int r) { return f16_to_f32(load_half(at, r)); });
}

inline I i_set(int32_t x) {
  return lanes<I>([&](int) { return x; });
}

inline I i_zero() { return i_set(0); }

inline I i_load(const float* at) {
  I out;
  std::memcpy(out.v, at, sizeof out.v);
  return out;
}

inline I i_load(const int32_t* at) {
  I out;
  std::memcpy(out.v, at, sizeof out.v);
  return out;
}

inline void i_store(int32_t* at, const I& x) { std::memcpy(at, x.v, sizeof x.v); }

inline I i_sub(const I& a, const I& b) {
  return lanes<I>([&](int r) { return a.v[r] - b.v[r]; });
}

inline I i_add(const I& a, const I& b) {
  return lanes<I>([&](int r) { return a.v[r] + b.v[r]; });
}

inline I i_and(const I& a, const I& b) {
  return lanes<I>([&](int r) { return a.v[r] & b.v[r]; });
}

inline I i_or(const I& a, const I& b) {
  return lanes<I>([&](int r) { return a.v[r] | b.v[r]; });
}

inline I i_xor(const I& a, const I& b) {
  return lanes<I>([&](int r) { return a.v[r] ^ b.v[r]; });
}

inline I i_max(const I& a, const I& b) {
  return lanes<I>([&](int r) { return a.v[r] > b.v[r] ? a.v[r] : b.v[r]; });
}

template <int kBits>
inline I i_shift_left(const I& a) {
  return lanes<I>([&](int r) { return a.v[r] << kBits; });
}

inline I i_round(const F& x) {
  return lanes<I>([&](int r) { return static_cast<int32_t>(std::nearbyint(x.v[r])); });
}

inline int32_t i_reduce_max(const I& x) {
  int32_t largest = x.v[0];
  for (const int32_t v : x.v) largest = v > largest ? v : largest;
  return largest;
}

inline int32_t i_reduce_add(const I& x) {
  int32_t sum = 0;
  for (const int32_t v : x.v) sum += v;
  return sum;
}

inline I i_from_u8(const std::byte* at) {
  return lanes<I>([&](int r) { return std::to_integer<int32_t>(at[r]); });
}

inline void i_store_bytes(int8_t* at, const I& x) {
  for (int r = 0; r < kPanelRows; ++r) at[r] = static_cast<int8_t>(x.v[r]);
}

inline B b_load(const uint8_t* at) {
  B out;
  std::memcpy(out.v, at, sizeof out.v);
  return out;
}

inline void b_store(int8_t* at, const B& x) { std::memcpy(at, x.v, sizeof x.v); }

inline B b_set(int x) {
  B out;
  std::memset(out.v, x, sizeof out.v);
  return out;
}

// Each of 16 bytes in all four bytes of its lane.
inline B b_repeat(const std::byte* at) {
  B out;
  for (int i = 0; i < 4 * kPanelRows; ++i) out.v[i] = std::to_integer<uint8_t>(at[i / 4]);
  return out;
}

inline B b_sub(const B& a, const B& b) {
  B out;
  for (int i = 0; i < 4 * kPanelRows; ++i) out.v[i] = static_cast<uint8_t>(a.v[i] - b.v[i]);
  return out;
}

inline B b_low_nibbles(const B& x) {
  B out;
  for (int i = 0; i < 4 * kPanelRows; ++i) out.v[i] = x.v[i] & 15;
  return out;
}

inline B b_high_nibbles(const B& x) {
  B out;
  for (int i = 0; i < 4 * kPanelRows; ++i) out.v[i] = static_cast<uint8_t>(x.v[i] >> 4);
  return out;
}

// Bits 2 kPlace and up of each byte of `pairs` above the nibbles.
template <int kPlace>
inline B b_six_bits(const B& nibbles, const B& pairs) {
  B out;
  for (int i = 0; i < 4 * kPanelRows; ++i) {
    out.v[i] = static_cast<uint8_t>(nibbles.v[i] | (pairs.v[i] >> (2 * kPlace) & 3) << 4);
  }
  return out;
}

constexpr int kByteBase = 0;

inline I i_dot_bytes(const I& sum, const B& codes, int32_t x) {
  const auto bytes = std::bit_cast<std::array<int8_t, 4>>(x);
  return lanes<I>([&](int r) {
    const uint8_t* c = codes.v + 4 * r;
    return sum.v[r] + c[0] * bytes[0] + c[1] * bytes[1] + c[2] * bytes[2] + c[3] * bytes[3];
  });
}

inline void dot_six_bits(
    I& a, I& b, const B& first, int32_t x_first, const B& second, int32_t x_second) {
  a = i_dot_bytes(a, first, x_first);
  b = i_dot_bytes(b, second, x_second);
}

inline I i_dot_halves(const I& sum, const I& pairs, int32_t x) {
  const auto halves = std::bit_cast<std::array<int16_t, 2>>(x);
  return lanes<I>([&](int r) {
    const auto pair = std::bit_cast<std::array<int16_t, 2>>(pairs.v[r]);
    return sum.v[r] + pair[0] * halves[0] + pair[1] * halves[1];
  });
}
