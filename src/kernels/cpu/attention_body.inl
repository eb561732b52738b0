// Attention over 16 lanes: included once for each instruction set, after its lanes_*.inl, inside
// its target region. Every loop over rows has a fixed length, so its vectors live in registers.

// What one call sees of a block: tokens [begin, end) are visible to rows [row, row + R).
struct BlockPart {
  const std::byte* head;
  const TileQueries* tile;
  const KvShape* shape;
  TileState* state;
  int row;
  int begin;
  int end;
  const std::byte* next;  // what is read after this block, or nullptr
};

// Fetches a quarter of what is read next. A quarter at a time, since a core has few misses under
// way; to the second-level cache, since the first one holds what this block works on.
inline void fetch_next(const BlockPart& part, size_t quarter) {
  if (part.next == nullptr) return;
  const size_t lines = part.shape->head_bytes / 64;
  for (size_t i = lines * quarter / 4; i < lines * (quarter + 1) / 4; ++i)
    __builtin_prefetch(part.next + 64 * i, 0, 2);
}

// Probabilities of one block and what they are multiplied by.
template <int R>
struct Probabilities {
  alignas(64) float values[R][kKvBlockTokens];
  alignas(64) uint8_t codes[R][kKvBlockTokens];
  alignas(64) float rescale[16];  // of the sums before this block
  alignas(64) float scale[16];    // of the codes
};

// The first min(n, 16) lanes; zero beyond.
inline F load_some(const float* p, int n) { return n >= 16 ? load(p) : load_part(p, n); }

inline F load_cached(const float* p) { return load(p); }
inline F load_cached(const uint16_t* p) { return load_bf16(p); }

inline I broadcast_4(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return set1_i(word);
}

// s = scale_q * scale_k * (exact integer product), summed over the groups in ascending order.
template <int R>
inline void int8_scores(const BlockPart& part, F (&s)[R][2]) {
  const KvShape& shape = *part.shape;
  const TileQueries& tile = *part.tile;
  const int quads = (shape.dims + 3) / 4;
  const auto* scales = reinterpret_cast<const float*>(part.head + shape.key_scales_offset);
  for (int r = 0; r < R; ++r) s[r][0] = s[r][1] = set1(0.0f);
  for (int group = 0; group < shape.groups; ++group, scales += kKvBlockTokens) {
    I sums[R][2];
    for (int r = 0; r < R; ++r) {
      sums[r][0] = sums[r][1] = set1_i(tile.biases[(part.row + r) * shape.groups + group]);
    }
    const int begin = group * (kKeyGroup / 4);
    const int end = begin + kKeyGroup / 4 < quads ? begin + kKeyGroup / 4 : quads;
    const int8_t* q = tile.codes + part.row * shape.padded;
    for (int quad = begin; quad < end; ++quad) {
      const I k0 = load_i(part.head + quad * 4 * kKvBlockTokens);
      const I k1 = load_i(part.head + quad * 4 * kKvBlockTokens + 64);
      for (int r = 0; r < R; ++r) {
        const I query = broadcast_4(q + r * shape.padded + 4 * quad);
        sums[r][0] = dot_bytes(sums[r][0], k0, query);
        sums[r][1] = dot_bytes(sums[r][1], k1, query);
      }
    }
    const F scale0 = load(scales);
    const F scale1 = load(scales + 16);
    for (int r = 0; r < R; ++r) {
      const F scale = set1(tile.scales[(part.row + r) * shape.groups + group]);
      s[r][0] = fma(mul(to_float(sums[r][0]), scale0), scale, s[r][0]);
      s[r][1] = fma(mul(to_float(sums[r][1]), scale1), scale, s[r][1]);
    }
  }
}

// s = scale * (q . k), summed over the dimensions in ascending order.
template <int R, typename T>
inline void float_scores(const BlockPart& part, F (&s)[R][2]) {
  const KvShape& shape = *part.shape;
  const auto* k = reinterpret_cast<const T*>(part.head);
  const float* q = part.tile->values + part.row * shape.padded;
  for (int r = 0; r < R; ++r) s[r][0] = s[r][1] = set1(0.0f);
  for (int i = 0; i < shape.dims; ++i) {
    const F k0 = load_cached(k + i * kKvBlockTokens);
    const F k1 = load_cached(k + i * kKvBlockTokens + 16);
    for (int r = 0; r < R; ++r) {
      const F query = set1(q[r * shape.padded + i]);
      s[r][0] = fma(query, k0, s[r][0]);
      s[r][1] = fma(query, k1, s[r][1]);
    }
  }
  const F scale = set1(part.tile->scale);
  for (int r = 0; r < R; ++r) {
    s[r][0] = mul(s[r][0], scale);
    s[r][1] = mul(s[r][1], scale);
  }
}

// Scores become probabilities relative to the largest score so far, in place.
template <int R>
inline void softmax_step(const BlockPart& part, F (&s)[R][2], Probabilities<R>& p) {
  if (part.end - part.begin < kKvBlockTokens) {
    const F nothing = set1(-__builtin_inff());
    const M low = lanes_between(part.begin, part.end);
    const M high = lanes_between(part.begin - 16, part.end - 16);
    for (int r = 0; r < R; ++r) {
      s[r][0] = select(low, s[r][0], nothing);
      s[r][1] = select(high, s[r][1], nothing);
    }
  }
  float* most = part.state->largest + part.row;
  alignas(64) float change[16] = {};
  for (int r = 0; r < R; ++r) {
    const float block = largest(max_of(s[r][0], s[r][1]));
    const float now = block > most[r] ? block : most[r];
    change[r] = most[r] - now;
    most[r] = now;
  }
  store(p.rescale, exp2_not_positive(load(change)));
  for (int r = 0; r < R; ++r) {
    const F now = set1(most[r]);
    s[r][0] = exp2_not_positive(sub(s[r][0], now));
    s[r][1] = exp2_not_positive(sub(s[r][1], now));
    float* totals = part.state->lane_totals + (part.row + r) * 16;
    store(totals, fma(load(totals), set1(p.rescale[r]), add(s[r][0], s[r][1])));
  }
}

// Probability times the value's scale as codes 0..255 of the largest of the block.
template <int R>
inline void quantize_probabilities(const BlockPart& part, F (&s)[R][2], Probabilities<R>& p) {
  const auto* scales = reinterpret_cast<const float*>(part.head + part.shape->value_scales_offset);
  const F nothing = set1(0.0f);
  const M low = lanes_between(part.begin, part.end);
  const M high = lanes_between(part.begin - 16, part.end - 16);
  // A slot that is not visible may hold anything: its scale, too, must not be seen.
  const F scale0 = select(low, load(scales), nothing);
  const F scale1 = select(high, load(scales + 16), nothing);
  alignas(64) uint32_t most[16] = {};
  for (int r = 0; r < R; ++r) {
    s[r][0] = mul(s[r][0], scale0);
    s[r][1] = mul(s[r][1], scale1);
    // Not negative, so the order of the bits is the order of the numbers, with NaN above all.
    most[r] = largest_unsigned(max_unsigned(bits(s[r][0]), bits(s[r][1])));
  }
  const F top = from_bits(load_i(most));
  const M tiny = less(top, set1(1e-30f));  // its inverse would overflow
  alignas(64) float inverse[16];
  store(inverse, select(tiny, nothing, div(set1(255.0f), top)));
  store(p.scale, select(tiny, nothing, mul(top, set1(1.0f / 255.0f))));
  for (int r = 0; r < R; ++r) {
    const F factor = set1(inverse[r]);
    store_bytes(p.codes[r], round_to_int(mul(s[r][0], factor)));
    store_bytes(p.codes[r] + 16, round_to_int(mul(s[r][1], factor)));
  }
}

// sums = sums * rescale + scale * (exact integer product), W vectors of dimensions from `dim`.
template <int R, int W>
inline void add_int8_values(const BlockPart& part, const Probabilities<R>& p, int dim) {
  const int padded = part.shape->padded;
  const std::byte* v = part.head + part.shape->values_offset + 4 * dim;
  I sums[R][W];
  for (int r = 0; r < R; ++r) {
    for (int w = 0; w < W; ++w) sums[r][w] = set1_i(0);
  }
  for (int quad = part.begin / 4; quad < (part.end + 3) / 4; ++quad) {
    I values[W];
    for (int w = 0; w < W; ++w) values[w] = load_i(v + 4 * quad * padded + 64 * w);
    for (int r = 0; r < R; ++r) {
      const I codes = broadcast_4(p.codes[r] + 4 * quad);
      for (int w = 0; w < W; ++w) sums[r][w] = dot_bytes(sums[r][w], codes, values[w]);
    }
  }
  for (int r = 0; r < R; ++r) {
    float* out = part.state->sums + (part.row + r) * padded + dim;
    const F rescale = set1(p.rescale[r]);
    const F scale = set1(p.scale[r]);
    for (int w = 0; w < W; ++w) {
      store(out + 16 * w, fma(to_float(sums[r][w]), scale, mul(load(out + 16 * w), rescale)));
    }
  }
}

// sums = sums * rescale + sum of probability * value over the visible tokens in ascending order.
template <int R, int W, typename T>
inline void add_float_values(const BlockPart& part, const Probabilities<R>& p, int dim) {
  const int padded = part.shape->padded;
  const auto* v = reinterpret_cast<const T*>(part.head + part.shape->values_offset) + dim;
  F sums[R][W];
  for (int r = 0; r < R; ++r) {
    for (int w = 0; w < W; ++w) sums[r][w] = set1(0.0f);
  }
  for (int token = part.begin; token < part.end; ++token) {
    F values[W];
    for (int w = 0; w < W; ++w) values[w] = load_cached(v + token * padded + 16 * w);
    for (int r = 0; r < R; ++r) {
      const F probability = set1(p.values[r][token]);
      for (int w = 0; w < W; ++w) sums[r][w] = fma(probability, values[w], sums[r][w]);
    }
  }
  for (int r = 0; r < R; ++r) {
    float* out = part.state->sums + (part.row + r) * padded + dim;
    const F rescale = set1(p.rescale[r]);
    for (int w = 0; w < W; ++w) {
      store(out + 16 * w, fma(load(out + 16 * w), rescale, sums[r][w]));
    }
  }
}

template <int R>
void attend_int8_block(const BlockPart& part) {
  F s[R][2];
  Probabilities<R> p;
  fetch_next(part, 0);
  int8_scores<R>(part, s);
  fetch_next(part, 1);
  softmax_step<R>(part, s, p);
  fetch_next(part, 2);
  quantize_probabilities<R>(part, s, p);
  fetch_next(part, 3);
  int dim = 0;
  for (; dim + 16 * kTileVectors <= part.shape->padded; dim += 16 * kTileVectors) {
    add_int8_values<R, kTileVectors>(part, p, dim);
  }
  for (; dim < part.shape->padded; dim += 16) add_int8_values<R, 1>(part, p, dim);
}

template <int R, typename T>
void attend_float_block(const BlockPart& part) {
  F s[R][2];
  Probabilities<R> p;
  fetch_next(part, 0);
  float_scores<R, T>(part, s);
  fetch_next(part, 1);
  softmax_step<R>(part, s, p);
  fetch_next(part, 2);
  fetch_next(part, 3);
  for (int r = 0; r < R; ++r) {
    store(p.values[r], s[r][0]);
    store(p.values[r] + 16, s[r][1]);
  }
  int dim = 0;
  for (; dim + 16 * kTileVectors <= part.shape->padded; dim += 16 * kTileVectors) {
    add_float_values<R, kTileVectors, T>(part, p, dim);
  }
  for (; dim < part.shape->padded; dim += 16) add_float_values<R, 1, T>(part, p, dim);
}

template <int R>
void attend_block(const BlockPart& part) {
  switch (part.shape->dtype) {
    case KvDType::kInt8:
      return attend_int8_block<R>(part);
    case KvDType::kBF16:
      return attend_float_block<R, uint16_t>(part);
    case KvDType::kF32:
      return attend_float_block<R, float>(part);
  }
}

// Requires 1 <= rows <= R.
template <int R>
inline void attend_rows(const BlockPart& part, int rows) {
  if constexpr (R > 1) {
    if (rows < R) return attend_rows<R - 1>(part, rows);
  }
  attend_block<R>(part);
}

// Slots [begin, end) of the block that begins at position `start` which a row sees.
struct VisibleSlots {
  int begin;
  int end;
  bool operator==(const VisibleSlots&) const = default;
};

inline VisibleSlots visible_slots(const TileQueries& tile, int row, int64_t start) {
  const int64_t begin = tile.first[row] - start;
  const int64_t end = tile.last[row] + 1 - start;
  return {static_cast<int>(begin < 0 ? 0 : begin),
          static_cast<int>(end > kKvBlockTokens ? kKvBlockTokens : end)};
}

void begin_tile(TileState& state, int rows, const KvShape& shape) {
  for (int r = 0; r < rows; ++r) {
    state.largest[r] = -__builtin_inff();
    store(state.lane_totals + 16 * r, set1(0.0f));
    for (int i = 0; i < shape.padded; i += 16) store(state.sums + r * shape.padded + i, set1(0.0f));
  }
}

void attend(TileState& state, const TileQueries& tile, const KvShape& shape, const Block& block) {
  const std::byte* fetch = block.next;
  for (int row = 0, next = 0; row < tile.rows; row = next) {
    const VisibleSlots slots = visible_slots(tile, row, block.position);
    for (next = row + 1; next < tile.rows && visible_slots(tile, next, block.position) == slots;) {
      ++next;
    }
    if (slots.begin >= slots.end) continue;
    attend_rows<kTileRows>({block.head, &tile, &shape, &state, row, slots.begin, slots.end, fetch},
                           next - row);
    fetch = nullptr;
  }
}

void end_tile(TileState& state, int rows) {
  for (int r = 0; r < rows; ++r) state.total[r] = sum(load(state.lane_totals + 16 * r));
}

void merge(TileState& into, int into_row, const TileState& from, int from_row, int padded) {
  const float most = into.largest[into_row] > from.largest[from_row] ? into.largest[into_row]
                                                                     : from.largest[from_row];
  alignas(64) float factors[16] = {into.largest[into_row] - most, from.largest[from_row] - most};
  store(factors, exp2_not_positive(load(factors)));
  const F a = set1(factors[0]);
  const F b = set1(factors[1]);
  float* sums = into.sums + into_row * padded;
  const float* more = from.sums + from_row * padded;
  for (int i = 0; i < padded; i += 16) {
    store(sums + i, fma(load(sums + i), a, mul(load(more + i), b)));
  }
  into.largest[into_row] = most;
  into.total[into_row] = into.total[into_row] * factors[0] + from.total[from_row] * factors[1];
}

void finish(float* out, const TileState& state, int row, const KvShape& shape) {
  const float* sums = state.sums + row * shape.padded;
  const F inverse = set1(1.0f / state.total[row]);  // the total is at least 1
  for (int i = 0; i < shape.dims; i += 16) {
    const int count = shape.dims - i < 16 ? shape.dims - i : 16;
    store_part(out + i, mul(load(sums + i), inverse), count);
  }
}

Quantized quantize(int8_t* codes, const float* x, int count) {
  I most = set1_i(0);
  for (int i = 0; i < count; i += 16) {
    const F v = load_some(x + i, count - i);
    most = max_unsigned(most, and_i(bits(v), set1_i(0x7fffffff)));
  }
  const float largest = __builtin_bit_cast(float, largest_unsigned(most));
  const bool usable = largest >= kSmallestMagnitude && largest < __builtin_inff();
  const F inverse = set1(usable ? 127.0f / largest : 0.0f);
  F total = set1(0.0f);
  for (int i = 0; i < count; i += 16) {
    const F v = load_some(x + i, count - i);
    const I code = usable ? round_to_int(mul(v, inverse)) : set1_i(0);
    total = add(total, to_float(code));  // exact
    store_bytes(codes + i, code);
  }
  return {largest < kSmallestMagnitude ? 0.0f : largest / 127.0f, static_cast<int32_t>(sum(total))};
}

void set_query(TileQueries& tile, const KvShape& shape, int row, const float* q) {
  if (shape.dtype != KvDType::kInt8) {
    __builtin_memcpy(tile.values + row * shape.padded, q,
                     static_cast<size_t>(shape.dims) * sizeof(float));
    return;
  }
  int8_t* codes = tile.codes + row * shape.padded;
  for (int group = 0; group < shape.groups; ++group) {
    const int begin = group * kKeyGroup;
    const int count = shape.dims - begin < kKeyGroup ? shape.dims - begin : kKeyGroup;
    const int at = row * shape.groups + group;
    const Quantized group_codes = quantize(codes + begin, q + begin, count);
    tile.scales[at] = group_codes.scale * tile.scale;
    tile.biases[at] = -128 * group_codes.sum;
  }
}

constexpr AttentionKernels kKernels = {kTileRows, set_query, begin_tile, attend,
                                       end_tile,  merge,     finish,     quantize};
