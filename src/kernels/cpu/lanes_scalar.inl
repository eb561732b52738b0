// Sixteen lanes in plain C++: the primitives that attention_body.inl and elementwise_body.inl are
// written over.

struct F {
  float v[16];
};
struct I {
  int32_t v[16];
};
struct M {
  bool v[16];
};

constexpr int kTileRows = 1;
constexpr int kTileVectors = 1;

// r.v[i] = expression for each lane i.
#define QUERN_EACH_LANE(Type, expression)           \
  Type r;                                           \
  for (int i = 0; i < 16; ++i) r.v[i] = expression; \
  return r

inline F load(const float* p) { QUERN_EACH_LANE(F, p[i]); }
inline void store(float* p, F v) {
  for (int i = 0; i < 16; ++i) p[i] = v.v[i];
}
inline F load_part(const float* p, int n) { QUERN_EACH_LANE(F, i < n ? p[i] : 0.0f); }
inline void store_part(float* p, F v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v.v[i];
}
inline F load_bf16(const uint16_t* p) { QUERN_EACH_LANE(F, bf16_to_f32(p[i])); }

inline F load_f16(const void* p) {
  uint16_t halves[16];
  std::memcpy(halves, p, sizeof halves);
  QUERN_EACH_LANE(F, f16_to_f32(halves[i]));
}

inline F set1(float x) { QUERN_EACH_LANE(F, x); }
inline F add(F a, F b) { QUERN_EACH_LANE(F, a.v[i] + b.v[i]); }
inline F sub(F a, F b) { QUERN_EACH_LANE(F, a.v[i] - b.v[i]); }
inline F mul(F a, F b) { QUERN_EACH_LANE(F, a.v[i] * b.v[i]); }
inline F div(F a, F b) { QUERN_EACH_LANE(F, a.v[i] / b.v[i]); }
inline F fma(F a, F b, F c) { QUERN_EACH_LANE(F, std::fma(a.v[i], b.v[i], c.v[i])); }
inline F fma_minus(F a, F b, F c) { QUERN_EACH_LANE(F, std::fma(a.v[i], b.v[i], -c.v[i])); }
inline float max_of(float a, float b) { return a > b ? a : b; }  // b where either is NaN
inline F max_of(F a, F b) { QUERN_EACH_LANE(F, max_of(a.v[i], b.v[i])); }
inline F min_of(F a, F b) { QUERN_EACH_LANE(F, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }

inline M lanes_between(int begin, int end) { QUERN_EACH_LANE(M, begin <= i && i < end); }
inline M less(F a, F b) { QUERN_EACH_LANE(M, a.v[i] < b.v[i]); }
inline F select(M m, F yes, F no) { QUERN_EACH_LANE(F, m.v[i] ? yes.v[i] : no.v[i]); }

inline I bits(F v) { QUERN_EACH_LANE(I, std::bit_cast<int32_t>(v.v[i])); }
inline F from_bits(I v) { QUERN_EACH_LANE(F, std::bit_cast<float>(v.v[i])); }
inline I load_i(const void* p) {
  I r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
inline I set1_i(int32_t x) { QUERN_EACH_LANE(I, x); }
inline I and_i(I a, I b) { QUERN_EACH_LANE(I, a.v[i] & b.v[i]); }
inline I max_unsigned(I a, I b) {
  QUERN_EACH_LANE(I,
                  static_cast<uint32_t>(a.v[i]) > static_cast<uint32_t>(b.v[i]) ? a.v[i] : b.v[i]);
}
inline I to_exponent(I v) {
  QUERN_EACH_LANE(I, static_cast<int32_t>(static_cast<uint32_t>(v.v[i]) << 23));
}
inline I upper_halves(I v) {  // of what the lower halves hold
  QUERN_EACH_LANE(I, static_cast<int32_t>(static_cast<uint32_t>(v.v[i]) << 16));
}
inline F to_float(I v) { QUERN_EACH_LANE(F, static_cast<float>(v.v[i])); }

// What the vector instructions give: the least integer for what does not fit.
inline int32_t round_to_int(float x) {
  return std::fabs(x) < 0x1p31f ? static_cast<int32_t>(std::nearbyint(x))
                                : std::numeric_limits<int32_t>::min();
}
inline I round_to_int(F v) { QUERN_EACH_LANE(I, round_to_int(v.v[i])); }

// 16 codes of a byte each; the lanes of v fit.
inline void store_bytes(void* p, I v) {
  for (int i = 0; i < 16; ++i) static_cast<uint8_t*>(p)[i] = static_cast<uint8_t>(v.v[i]);
}

// acc + the four products of an unsigned byte of u and a signed byte of s in each lane.
inline I dot_bytes(I acc, I u, I s) {
  uint8_t unsigned_bytes[64];
  int8_t signed_bytes[64];
  std::memcpy(unsigned_bytes, &u, sizeof u);
  std::memcpy(signed_bytes, &s, sizeof s);
  for (int i = 0; i < 64; ++i) acc.v[i / 4] += unsigned_bytes[i] * signed_bytes[i];
  return acc;
}

// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
inline float sum(F v) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v.v[i] += v.v[i + half];
  }
  return v.v[0];
}
inline float largest(F v) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v.v[i] = max_of(v.v[i], v.v[i + half]);
  }
  return v.v[0];
}
inline uint32_t largest_unsigned(I v) {
  uint32_t most = 0;
  for (const int32_t x : v.v)
    most = static_cast<uint32_t>(x) > most ? static_cast<uint32_t>(x) : most;
  return most;
}

#undef QUERN_EACH_LANE
