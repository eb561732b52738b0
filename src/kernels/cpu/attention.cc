#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"
#include "base/float16.h"
#include "kernels/cpu/attention_kernels.h"

namespace quern::cpu {
namespace {

constexpr IsaTables<AttentionKernels> kTables = isa_tables<AttentionKernels>({
    {Isa::kScalar, &kAttentionScalar},
    {Isa::kNeon, QUERN_ARM_TABLE(kAttentionNeon)},
    {Isa::kI8mm, QUERN_ARM_TABLE(kAttentionI8mm)},
    {Isa::kAvx2, QUERN_X86_TABLE(kAttentionAvx2)},
    {Isa::kAvxVnni, QUERN_X86_TABLE(kAttentionAvxVnni)},
    {Isa::kAvx512, QUERN_X86_TABLE(kAttentionAvx512)},
    {Isa::kAvx512Vnni, QUERN_X86_TABLE(kAttentionAvx512Vnni)},
});

constexpr float kLog2E = 1.44269504f;
constexpr int kSegmentBlocks = kSegmentTokens / kKvBlockTokens;

// Query rows (positions x heads of a kv head) of a prefill item: 48 share what they read of the
// cache, 70 KB a segment at head_dim 128, while it lies in L2.
constexpr int kItemRows = 48;

// Pieces of work for each worker, below which the kv heads of a sequence are dealt out.
constexpr int64_t kItemsPerWorker = 4;

// Numbers of keys that are stored in about 3 us: no less is worth another core.
constexpr int64_t kStoreChunk = 2048;

// One piece of work: the positions [row, row + row_count) of a sequence, the heads of the kv heads
// [kv_head, kv_head + kv_heads), and either every segment (partial < 0) or the one whose results
// go to `partial`. Kv heads that lie side by side are visited block by block, as they lie in
// memory: read from there, half as much again comes through in a second.
struct Item {
  int32_t sequence;
  int32_t kv_head;
  int32_t kv_heads;
  int64_t row;
  int64_t row_count;
  int64_t segment;
  int64_t partial;
};

// A sequence whose segments were evaluated apart: `partial` is the first result of the first one.
struct Split {
  int32_t sequence;
  int64_t partial;
};

// What a worker has of one kv head of its item.
struct HeadWork {
  TileQueries queries;
  TileState segment;
  TileState sequence;
};

// The state of one row after one segment, as it waits to be merged: largest score, total, sums.
constexpr int64_t kPartialHeader = 16;  // keeps the sums aligned

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <typename T>
T* reserve(Buffer& buffer, int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  if (buffer.bytes() < bytes) buffer = Buffer(bytes + bytes / 2);
  return buffer.as<T>();
}

// Everything that the pieces of one call share.
class Call {
 public:
  Call(const AttentionKernels& kernels,
       Tensor out,
       Tensor q,
       const KvLayer& layer,
       std::span<const SequenceSpan> sequences,
       const AttentionParams& params)
      : kernels_(kernels),
        out_(out),
        q_(q),
        layer_(layer),
        sequences_(sequences),
        params_(params),
        shape_(kv_shape(layer.layout)),
        group_(params.heads / layer.layout.kv_heads) {}

  // Lays out the work in scratch.
  void plan(AttentionScratch& scratch, int workers);

  int64_t items() const { return item_count_; }

  HeadWork* worker_heads(int worker) const { return work_ + int64_t{worker} * heads_per_item_; }

  // Rows to merge after all items are done.
  int64_t merges() const { return split_count_ * layer_.layout.kv_heads; }

  void run_item(int64_t index, int worker) const;
  void run_merge(int64_t index, int worker) const;

 private:
  int64_t item_positions() const { return std::max(1, kItemRows / group_); }

  int64_t partial_floats() const { return kPartialHeader + shape_.padded; }

  int64_t first_visible(int64_t position) const {
    return params_.window > 0 ? std::max<int64_t>(0, position - params_.window + 1) : 0;
  }

  // Segments that positions [begin, begin + count) of a sequence see.
  struct Segments {
    int64_t begin;
    int64_t end;
  };

  Segments segments(int64_t begin, int64_t count) const {
    return {first_visible(begin) / kSegmentTokens, (begin + count - 1) / kSegmentTokens + 1};
  }

  bool is_split(const SequenceSpan& s) const {
    if (s.row_count == 0 || s.row_count > item_positions()) return false;
    const Segments seen = segments(s.position_begin, s.row_count);
    return seen.end - seen.begin > 1;
  }

  int64_t heads_of_item(int64_t sequence_items, int workers) const;
  void plan_sequence(int32_t index);
  void add_items(const Item& item);
  void set_tile(HeadWork& w, const Item& item, int kv_head, int64_t begin, int64_t end) const;
  Segments tile_segments(const HeadWork& w) const;
  void attend_segment(HeadWork* heads, const Item& item, int64_t segment) const;
  void merge_segment(HeadWork& w, int64_t segment) const;
  void attend_all(HeadWork* heads, const Item& item, int64_t tile_begin) const;
  void keep_partial(const HeadWork& w, int64_t partial, int64_t tile_begin) const;
  void merge_row(HeadWork& w, const Split& split, int kv_head, int64_t row) const;
  int tile_rows(int64_t rows) const;

  // Where a query row of an item (position-major) lies in q and out.
  int64_t tensor_row(const Item& item, int64_t row) const {
    return sequences_[static_cast<size_t>(item.sequence)].row_begin + item.row + row / group_;
  }

  int64_t tensor_column(int kv_head, int64_t row) const {
    return (int64_t{kv_head} * group_ + row % group_) * shape_.dims;
  }

  const AttentionKernels& kernels_;
  Tensor out_, q_;
  const KvLayer& layer_;
  std::span<const SequenceSpan> sequences_;
  const AttentionParams& params_;
  KvShape shape_;
  int group_;
  Item* items_ = nullptr;
  Split* splits_ = nullptr;
  HeadWork* work_ = nullptr;  // [workers][heads_per_item_]
  float* partials_ = nullptr;
  int64_t heads_per_item_ = 1;
  int64_t item_count_ = 0;
  int64_t split_count_ = 0;
  int64_t partial_count_ = 0;
};

// `sequence_items` pieces of work if each took all kv heads.
int64_t Call::heads_of_item(int64_t sequence_items, int workers) const {
  const int64_t kv_heads = layer_.layout.kv_heads;
  const int64_t parts = ceil_div(kItemsPerWorker * workers, std::max<int64_t>(1, sequence_items));
  return ceil_div(kv_heads, std::min(kv_heads, parts));
}

void Call::plan(AttentionScratch& scratch, int workers) {
  int64_t items = 0, splits = 0, partials = 0;
  for (const SequenceSpan& s : sequences_) {
    const Segments seen = segments(s.position_begin, s.row_count);
    items += is_split(s) ? seen.end - seen.begin : ceil_div(s.row_count, item_positions());
    if (!is_split(s)) continue;
    ++splits;
    partials += (seen.end - seen.begin) * s.row_count * params_.heads;
  }
  heads_per_item_ = heads_of_item(items, workers);
  items *= ceil_div(layer_.layout.kv_heads, heads_per_item_);
  items_ = reserve<Item>(scratch.items, items);
  splits_ = reserve<Split>(scratch.splits, splits);
  work_ = reserve<HeadWork>(scratch.workers, workers * heads_per_item_);
  partials_ = reserve<float>(scratch.partials, partials * partial_floats());
  for (int32_t i = 0; i < static_cast<int32_t>(sequences_.size()); ++i) plan_sequence(i);
  QUERN_CHECK(item_count_ == items && split_count_ == splits && partial_count_ == partials);
}

void Call::plan_sequence(int32_t index) {
  const SequenceSpan& s = sequences_[static_cast<size_t>(index)];
  if (!is_split(s)) {
    // The last positions see most: they go first, so that the pool ends evenly.
    for (int64_t i = ceil_div(s.row_count, item_positions()) - 1; i >= 0; --i) {
      const int64_t row = i * item_positions();
      const int64_t count = std::min(item_positions(), s.row_count - row);
      add_items({index, 0, 0, row, count, 0, -1});
    }
    return;
  }
  splits_[split_count_++] = {index, partial_count_};
  const Segments seen = segments(s.position_begin, s.row_count);
  for (int64_t segment = seen.begin; segment < seen.end; ++segment) {
    add_items({index, 0, 0, 0, s.row_count, segment, partial_count_});
    partial_count_ += s.row_count * params_.heads;
  }
}

// The item for every kv head.
void Call::add_items(const Item& item) {
  const int64_t kv_heads = layer_.layout.kv_heads;
  for (int64_t head = 0; head < kv_heads; head += heads_per_item_) {
    Item part = item;
    part.kv_head = static_cast<int32_t>(head);
    part.kv_heads = static_cast<int32_t>(std::min(heads_per_item_, kv_heads - head));
    if (item.partial >= 0) part.partial += head * item.row_count * group_;
    items_[item_count_++] = part;
  }
}

// Rows of a tile, at most what the kernels take, so that `rows` fall into equal tiles.
int Call::tile_rows(int64_t rows) const {
  const int64_t tiles = ceil_div(rows, kernels_.tile_rows);
  return static_cast<int>(ceil_div(rows, tiles));
}

// Query rows [begin, end) of the item.
void Call::set_tile(HeadWork& w, const Item& item, int kv_head, int64_t begin, int64_t end) const {
  TileQueries& tile = w.queries;
  tile.rows = static_cast<int>(end - begin);
  tile.scale = params_.scale * kLog2E;
  const int64_t position_begin =
      sequences_[static_cast<size_t>(item.sequence)].position_begin + item.row;
  for (int64_t row = begin; row < end; ++row) {
    const auto at = static_cast<int>(row - begin);
    tile.last[at] = position_begin + row / group_;
    tile.first[at] = first_visible(tile.last[at]);
    kernels_.set_query(tile, shape_, at,
                       q_.f32_row(tensor_row(item, row)) + tensor_column(kv_head, row));
  }
}

// The blocks of the segment that the tile sees, in each of them head after head.
void Call::attend_segment(HeadWork* heads, const Item& item, int64_t segment) const {
  const TileQueries& tile = heads[0].queries;
  const int64_t begin = std::max(tile.first[0] / kKvBlockTokens, segment * kSegmentBlocks);
  const int64_t end =
      std::min(tile.last[tile.rows - 1] / kKvBlockTokens + 1, (segment + 1) * kSegmentBlocks);
  const int32_t* table = sequences_[static_cast<size_t>(item.sequence)].block_table.data();
  const auto block_at = [&](int64_t block) {
    return layer_.data + static_cast<size_t>(table[block]) * layer_.block_bytes +
           static_cast<size_t>(item.kv_head) * shape_.head_bytes;
  };
  for (int h = 0; h < item.kv_heads; ++h) {
    kernels_.begin_tile(heads[h].segment, tile.rows, shape_);
  }
  for (int64_t block = begin; block < end; ++block) {
    const std::byte* head = block_at(block);
    const std::byte* after = block + 1 < end ? block_at(block + 1) : nullptr;
    for (int h = 0; h < item.kv_heads; ++h, head += shape_.head_bytes) {
      const std::byte* next = h + 1 < item.kv_heads ? head + shape_.head_bytes : after;
      kernels_.attend(heads[h].segment, heads[h].queries, shape_,
                      {head, block * kKvBlockTokens, next});
    }
  }
  for (int h = 0; h < item.kv_heads; ++h) kernels_.end_tile(heads[h].segment, tile.rows);
}

// Segments that the rows of the tile see, all together.
Call::Segments Call::tile_segments(const HeadWork& w) const {
  const TileQueries& tile = w.queries;
  return {tile.first[0] / kSegmentTokens, tile.last[tile.rows - 1] / kSegmentTokens + 1};
}

void Call::merge_segment(HeadWork& w, int64_t segment) const {
  const TileQueries& tile = w.queries;
  for (int r = 0; r < tile.rows; ++r) {
    const int64_t own_first = tile.first[r] / kSegmentTokens;
    if (segment < own_first || segment > tile.last[r] / kSegmentTokens) continue;
    if (segment > own_first) {
      kernels_.merge(w.sequence, r, w.segment, r, shape_.padded);
      continue;
    }
    w.sequence.largest[r] = w.segment.largest[r];
    w.sequence.total[r] = w.segment.total[r];
    std::memcpy(w.sequence.sums + r * shape_.padded, w.segment.sums + r * shape_.padded,
                static_cast<size_t>(shape_.padded) * sizeof(float));
  }
}

// Every segment of the tile, merged as they come; then the result.
void Call::attend_all(HeadWork* heads, const Item& item, int64_t tile_begin) const {
  const Segments all = tile_segments(heads[0]);
  for (int64_t segment = all.begin; segment < all.end; ++segment) {
    attend_segment(heads, item, segment);
    for (int h = 0; h < item.kv_heads; ++h) merge_segment(heads[h], segment);
  }
  for (int h = 0; h < item.kv_heads; ++h) {
    for (int r = 0; r < heads[h].queries.rows; ++r) {
      const int64_t row = tile_begin + r;
      kernels_.finish(out_.f32_row(tensor_row(item, row)) + tensor_column(item.kv_head + h, row),
                      heads[h].sequence, r, shape_);
    }
  }
}

void Call::keep_partial(const HeadWork& w, int64_t partial, int64_t tile_begin) const {
  for (int r = 0; r < w.queries.rows; ++r) {
    float* to = partials_ + (partial + tile_begin + r) * partial_floats();
    to[0] = w.segment.largest[r];
    to[1] = w.segment.total[r];
    std::memcpy(to + kPartialHeader, w.segment.sums + r * shape_.padded,
                static_cast<size_t>(shape_.padded) * sizeof(float));
  }
}

void Call::run_item(int64_t index, int worker) const {
  const Item& item = items_[index];
  HeadWork* heads = worker_heads(worker);
  const int64_t rows = item.row_count * group_;
  const int step = tile_rows(rows);
  for (int64_t begin = 0; begin < rows; begin += step) {
    for (int h = 0; h < item.kv_heads; ++h)
      set_tile(heads[h], item, item.kv_head + h, begin, std::min(begin + step, rows));
    if (item.partial < 0) {
      attend_all(heads, item, begin);
      continue;
    }
    attend_segment(heads, item, item.segment);
    for (int h = 0; h < item.kv_heads; ++h) keep_partial(heads[h], item.partial + h * rows, begin);
  }
}

void Call::merge_row(HeadWork& w, const Split& split, int kv_head, int64_t row) const {
  const SequenceSpan& s = sequences_[static_cast<size_t>(split.sequence)];
  const int64_t rows = s.row_count * group_;
  const int64_t position = s.position_begin + row / group_;
  const int64_t first_kept = segments(s.position_begin, s.row_count).begin;
  const Segments own = segments(position, 1);
  for (int64_t segment = own.begin; segment < own.end; ++segment) {
    const int64_t slot = (segment - first_kept) * layer_.layout.kv_heads + kv_head;
    const float* from = partials_ + (split.partial + slot * rows + row) * partial_floats();
    TileState& into = segment == own.begin ? w.sequence : w.segment;
    into.largest[0] = from[0];
    into.total[0] = from[1];
    std::memcpy(into.sums, from + kPartialHeader,
                static_cast<size_t>(shape_.padded) * sizeof(float));
    if (segment > own.begin) kernels_.merge(w.sequence, 0, w.segment, 0, shape_.padded);
  }
  kernels_.finish(out_.f32_row(s.row_begin + row / group_) + tensor_column(kv_head, row),
                  w.sequence, 0, shape_);
}

void Call::run_merge(int64_t index, int worker) const {
  const Split& split = splits_[index / layer_.layout.kv_heads];
  const auto kv_head = static_cast<int>(index % layer_.layout.kv_heads);
  const int64_t rows = sequences_[static_cast<size_t>(split.sequence)].row_count * group_;
  for (int64_t row = 0; row < rows; ++row) merge_row(*worker_heads(worker), split, kv_head, row);
}

void check_sequences(const KvLayer& layer,
                     const Tensor& rows,
                     std::span<const SequenceSpan> sequences) {
  for (const SequenceSpan& s : sequences) {
    QUERN_CHECK(s.row_begin >= 0 && s.row_count >= 0 && s.position_begin >= 0);
    QUERN_CHECK(s.row_begin + s.row_count <= rows.rows());
    const int64_t end = s.position_begin + s.row_count;
    QUERN_CHECK(s.row_count == 0 ||
                ceil_div(end, kKvBlockTokens) <= static_cast<int64_t>(s.block_table.size()));
  }
  QUERN_CHECK(layer.block_bytes >= kv_block_bytes(layer.layout));
}

void store_codes(
    std::byte* head, const KvShape& shape, int slot, const int8_t* k, const int8_t* v) {
  for (int i = 0; i < shape.dims; ++i) {
    head[(i / 4 * kKvBlockTokens + slot) * 4 + i % 4] = static_cast<std::byte>(k[i] + 128);
  }
  std::byte* values = head + shape.values_offset + slot / 4 * 4 * shape.padded + slot % 4;
  for (int i = 0; i < shape.dims; ++i) values[4 * i] = static_cast<std::byte>(v[i]);
}

void store_int8(const AttentionKernels& kernels,
                std::byte* head,
                const KvShape& shape,
                int slot,
                const float* k,
                const float* v) {
  alignas(64) int8_t k_codes[kMaxHeadDim];
  alignas(64) int8_t v_codes[kMaxHeadDim];
  auto* k_scales = reinterpret_cast<float*>(head + shape.key_scales_offset);
  for (int group = 0; group < shape.groups; ++group) {
    const int begin = group * kKeyGroup;
    k_scales[group * kKvBlockTokens + slot] =
        kernels.quantize(k_codes + begin, k + begin, std::min(kKeyGroup, shape.dims - begin)).scale;
  }
  reinterpret_cast<float*>(head + shape.value_scales_offset)[slot] =
      kernels.quantize(v_codes, v, shape.dims).scale;
  store_codes(head, shape, slot, k_codes, v_codes);
}

template <typename T, T (*kConvert)(float)>
void store_floats(std::byte* head, const KvShape& shape, int slot, const float* k, const float* v) {
  auto* keys = reinterpret_cast<T*>(head) + slot;
  auto* values = reinterpret_cast<T*>(head + shape.values_offset) + slot * shape.padded;
  for (int i = 0; i < shape.dims; ++i) keys[i * kKvBlockTokens] = kConvert(k[i]);
  for (int i = 0; i < shape.dims; ++i) values[i] = kConvert(v[i]);
}

float same(float x) { return x; }

void store_head(const AttentionKernels& kernels,
                std::byte* head,
                const KvShape& shape,
                int slot,
                const float* k,
                const float* v) {
  switch (shape.dtype) {
    case KvDType::kInt8:
      return store_int8(kernels, head, shape, slot, k, v);
    case KvDType::kBF16:
      return store_floats<uint16_t, f32_to_bf16>(head, shape, slot, k, v);
    case KvDType::kF32:
      return store_floats<float, same>(head, shape, slot, k, v);
  }
}

size_t align_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

KvShape kv_shape(const KvLayout& layout) {
  QUERN_CHECK(layout.head_dim >= 1 && layout.head_dim <= kMaxHeadDim);
  KvShape shape;
  shape.dtype = layout.dtype;
  shape.dims = layout.head_dim;
  shape.padded = (layout.head_dim + 15) / 16 * 16;
  shape.groups = key_groups(layout);
  const size_t element = layout.dtype == KvDType::kInt8   ? 1
                         : layout.dtype == KvDType::kBF16 ? 2
                                                          : 4;
  shape.values_offset = static_cast<size_t>(shape.padded) * kKvBlockTokens * element;
  shape.key_scales_offset = 2 * shape.values_offset;
  const size_t scales = layout.dtype == KvDType::kInt8 ? sizeof(float) * kKvBlockTokens : 0;
  shape.value_scales_offset = shape.key_scales_offset + static_cast<size_t>(shape.groups) * scales;
  shape.head_bytes = align_64(shape.value_scales_offset + scales);
  return shape;
}

size_t kv_block_bytes(const KvLayout& layout) {
  return static_cast<size_t>(layout.kv_heads) * kv_shape(layout).head_bytes;
}

void store_kv(ThreadPool& pool,
              Isa isa,
              const KvLayer& layer,
              Tensor k,
              Tensor v,
              std::span<const SequenceSpan> sequences) {
  const AttentionKernels& kernels = table_for(kTables, isa);
  const KvShape shape = kv_shape(layer.layout);
  const int64_t width = int64_t{layer.layout.kv_heads} * layer.layout.head_dim;
  QUERN_CHECK(k.row_elements() == width && v.row_elements() == width);
  check_sequences(layer, k, sequences);
  check_sequences(layer, v, sequences);
  const auto store_row = [&](const SequenceSpan& s, int64_t row) {
    const int64_t position = s.position_begin + row;
    const int32_t block = s.block_table[static_cast<size_t>(position / kKvBlockTokens)];
    std::byte* head = layer.data + static_cast<size_t>(block) * layer.block_bytes;
    for (int64_t at = 0; at < width; at += shape.dims, head += shape.head_bytes) {
      store_head(kernels, head, shape, static_cast<int>(position % kKvBlockTokens),
                 k.f32_row(s.row_begin + row) + at, v.f32_row(s.row_begin + row) + at);
    }
  };
  int64_t rows = 0;
  for (const SequenceSpan& s : sequences) rows += s.row_count;
  const int64_t chunk = std::max<int64_t>(1, kStoreChunk / width);
  pool.for_each_chunk(rows, chunk, [&](int64_t begin, int64_t end, int) {
    for (const SequenceSpan& s : sequences) {
      const int64_t last = std::min(end, s.row_count);
      for (int64_t row = std::max<int64_t>(0, begin); row < last; ++row) store_row(s, row);
      begin -= s.row_count;
      end -= s.row_count;
    }
  });
}

void attention(ThreadPool& pool,
               Isa isa,
               AttentionScratch& scratch,
               Tensor out,
               Tensor q,
               const KvLayer& layer,
               std::span<const SequenceSpan> sequences,
               const AttentionParams& params) {
  QUERN_CHECK(params.heads > 0 && params.heads % layer.layout.kv_heads == 0);
  QUERN_CHECK(q.row_elements() == int64_t{params.heads} * layer.layout.head_dim);
  QUERN_CHECK(out.row_elements() == q.row_elements() && out.rows() == q.rows());
  check_sequences(layer, q, sequences);
  Call call(table_for(kTables, isa), out, q, layer, sequences, params);
  call.plan(scratch, pool.size());
  pool.for_each_chunk(call.items(), 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) call.run_item(i, worker);
  });
  pool.for_each_chunk(call.merges(), 8, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) call.run_merge(i, worker);
  });
}

void load_kv(const KvLayer& layer, int32_t block, int slot, int head, float* key, float* value) {
  const KvShape shape = kv_shape(layer.layout);
  const std::byte* from = layer.data + static_cast<size_t>(block) * layer.block_bytes +
                          static_cast<size_t>(head) * shape.head_bytes;
  const std::byte* values = from + shape.values_offset;
  for (int i = 0; i < shape.dims; ++i) {
    const int key_at = i * kKvBlockTokens + slot;
    const int value_at = slot * shape.padded + i;
    switch (shape.dtype) {
      case KvDType::kF32:
        key[i] = reinterpret_cast<const float*>(from)[key_at];
        value[i] = reinterpret_cast<const float*>(values)[value_at];
        break;
      case KvDType::kBF16:
        key[i] = bf16_to_f32(reinterpret_cast<const uint16_t*>(from)[key_at]);
        value[i] = bf16_to_f32(reinterpret_cast<const uint16_t*>(values)[value_at]);
        break;
      case KvDType::kInt8: {
        const auto* key_scales = reinterpret_cast<const float*>(from + shape.key_scales_offset);
        const auto* scales = reinterpret_cast<const float*>(from + shape.value_scales_offset);
        const int code = static_cast<int>(from[(i / 4 * kKvBlockTokens + slot) * 4 + i % 4]) - 128;
        const auto v = static_cast<int8_t>(values[(slot / 4 * shape.padded + i) * 4 + slot % 4]);
        key[i] = static_cast<float>(code) * key_scales[i / kKeyGroup * kKvBlockTokens + slot];
        value[i] = static_cast<float>(v) * scales[slot];
      }
    }
  }
}

}  // namespace quern::cpu
