// Elementwise operators over 16 lanes: included once for each instruction set, after its
// lanes_*.inl, inside its target region. Tails go through the same lanes as the rest.

inline int lanes_left(int64_t left) { return left < 16 ? static_cast<int>(left) : 16; }

inline F load_some(const float* p, int n) { return n == 16 ? load(p) : load_part(p, n); }
inline void store_some(float* p, F v, int n) { n == 16 ? store(p, v) : store_part(p, v, n); }

// 64 partial sums (element i goes to sum i % 64), then a tree.
float sum_of_squares(const float* x, int64_t width) {
  F parts[4];
  for (F& part : parts) part = set1(0.0f);
  int64_t i = 0;
  for (; i + 64 <= width; i += 64) {
    for (int part = 0; part < 4; ++part) {
      const F v = load(x + i + 16 * part);
      parts[part] = fma(v, v, parts[part]);
    }
  }
  for (int part = 0; i < width; i += 16, ++part) {
    const F v = load_some(x + i, lanes_left(width - i));
    parts[part] = fma(v, v, parts[part]);
  }
  return sum(add(add(parts[0], parts[1]), add(parts[2], parts[3])));
}

void scale_row(float* out, const float* x, const float* weight, int64_t width, float factor) {
  const F f = set1(factor);
  for (int64_t i = 0; i < width; i += 16) {
    const int n = lanes_left(width - i);
    store_some(out + i, mul(mul(load_some(x + i, n), f), load_some(weight + i, n)), n);
  }
}

float norm_factor(float squares, int64_t width, float eps) {
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + eps);
}

void rms_norm(float* out, const float* x, const float* weight, int64_t width, float eps) {
  scale_row(out, x, weight, width, norm_factor(sum_of_squares(x, width), width, eps));
}

void add_rows(float* x, const float* y, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) {
    const int n = lanes_left(width - i);
    store_some(x + i, add(load_some(x + i, n), load_some(y + i, n)), n);
  }
}

void add_rms_norm(
    float* out, float* x, const float* y, const float* weight, int64_t width, float eps) {
  add_rows(x, y, width);
  rms_norm(out, x, weight, width, eps);
}

void silu_multiply(float* out, const float* gate, const float* up, int64_t width) {
  const F one = set1(1.0f);
  for (int64_t i = 0; i < width; i += 16) {
    const int n = lanes_left(width - i);
    const F g = load_some(gate + i, n);
    const F silu = div(g, add(one, exp_clamped(sub(set1(0.0f), g))));
    store_some(out + i, mul(silu, load_some(up + i, n)), n);
  }
}

void rotate(float* x, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; i += 16) {
    const int n = lanes_left(half - i);
    const F a = load_some(x + i, n);
    const F b = load_some(x + half + i, n);
    const F c = load_some(cosines + i, n);
    const F s = load_some(sines + i, n);
    store_some(x + i, fma_minus(a, c, mul(b, s)), n);
    store_some(x + half + i, fma(b, c, mul(a, s)), n);
  }
}

constexpr ElementwiseKernels kKernels = {rms_norm, add_rms_norm, add_rows, silu_multiply, rotate};
