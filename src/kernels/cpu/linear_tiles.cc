#include "kernels/cpu/linear_tiles.h"

#include <algorithm>

#include "kernels/cpu/tile_ops.h"

namespace quern::cpu {

#if defined(__x86_64__)
extern const TileOps kTileAmx;
#endif

namespace {

// Unpacking a group of 16 rows costs the arithmetic units as much as 5 to 8 tokens save by tiles,
// in groups of 16 as much as 10 or more.
constexpr int64_t kMinTileTokens = 8;
constexpr int64_t kMinTileTokensOf16 = 16;

// Activations of a slice x 256 rows are 1 MB, the unpacked weights of a job 256 KB: both stay in a
// second-level cache of 2 MB. Unpacking for 256 rows costs a twentieth of multiplying.
constexpr int64_t kSliceColumns = 4096;
constexpr int64_t kJobTiles = 16;

// With a single block of rows weights are used as soon as they are unpacked: 64 x 256 = 16 KB.
constexpr int64_t kFusedColumns = 256;

constexpr int64_t kJobsPerThread = 4;
constexpr int64_t kPage = 4096;

// Streams that are read side by side, so many bytes apart, start in different halves of the
// first-level cache's sets: two steps of 128 columns of a tile or a panel each fill a half.
int64_t spread(int64_t bytes) { return ceil_div(bytes, kPage) * kPage + kPage / 2; }

// How a call is cut: slices of the depth one after another, in each the parts of the tokens, and
// in each of those the strips of weights, so that all workers read the same activations.
struct Plan {
  int64_t slices;
  int64_t parts;
  int64_t part_tiles;
  int64_t strip_panels;
  int64_t strips;
};

// Dense kernels take four panels at once.
int64_t panels_of_strip(const Segment& segment, int64_t strip_panels) {
  return segment.group_size == 0 ? kBlockPanels : strip_panels;
}

int64_t strips_of(const Segment& segment, int64_t strip_panels) {
  return ceil_div(segment.panels(), panels_of_strip(segment, strip_panels));
}

// A gated strip has half of its panels from either segment.
int64_t count_strips(const Call& call, int64_t strip_panels) {
  if (call.gated) return strips_of(call.weight.segments()[0], strip_panels / 2);
  int64_t strips = 0;
  for (const Segment& segment : call.weight.segments()) strips += strips_of(segment, strip_panels);
  return strips;
}

Plan plan_call(const Call& call, int threads) {
  const int64_t tiles = call.layout.tiles;
  const bool fused = tiles <= kBlockTiles;
  Plan plan{};
  plan.slices = fused ? 1 : ceil_div(call.weight.columns(), kSliceColumns);
  plan.part_tiles = block_size(ceil_div(tiles, kBlockTiles), kJobTiles / kBlockTiles) * kBlockTiles;
  plan.parts = ceil_div(tiles, plan.part_tiles);
  plan.strip_panels = kBlockPanels;
  const int64_t fewest = call.gated ? 2 : 1;
  while (plan.strip_panels > fewest &&
         count_strips(call, plan.strip_panels) * plan.parts < kJobsPerThread * threads) {
    plan.strip_panels /= 2;
  }
  plan.strips = count_strips(call, plan.strip_panels);
  return plan;
}

// Working memory of one worker: the arrays of a block one after another.
struct Work {
  TilePanel panels[kBlockPanels];
  int32_t* sums;
  float* y;
};

// `columns` are unpacked at a time.
Work carve_work(Buffer& buffer, int64_t columns, int64_t groups) {
  const int64_t weights = spread(columns * kPanelRows);
  const int64_t row = groups * kPanelRows * int64_t{sizeof(float)};
  const int64_t sums = kWorkSums * int64_t{sizeof(int32_t)};
  const int64_t y = kBlockSums * int64_t{sizeof(float)};
  grow(buffer, static_cast<size_t>(sums + y + kBlockPanels * (weights + 3 * row)));
  std::byte* at = buffer.data();
  Work work{};
  work.sums = reinterpret_cast<int32_t*>(at);
  work.y = reinterpret_cast<float*>(at + sums);
  at += sums + y;
  for (TilePanel& panel : work.panels) {
    panel.weights = reinterpret_cast<int8_t*>(at);
    at += weights;
  }
  for (TilePanel& panel : work.panels) {
    panel.scales = reinterpret_cast<float*>(at);
    panel.minima = reinterpret_cast<float*>(at + row);
    panel.pairs = reinterpret_cast<int32_t*>(at + 2 * row);
    at += 3 * row;
  }
  return work;
}

// Panels of a segment, or of two that are alike, times tiles of activations, over some of the
// groups.
struct Job {
  const Segment& segment;
  const Segment* up;  // gated: has as many panels as `segment`, behind those; else nullptr
  int64_t panel;
  int64_t panels;  // of each
  int64_t tile_begin;
  int64_t tile_end;
  int64_t group_begin;
  int64_t group_end;
  int64_t next_panel;  // where the worker goes on, as far as one can tell
};

class JobRunner {
 public:
  JobRunner(const Call& call, const Job& job, Buffer& buffer)
      : call_(call),
        job_(job),
        ops_(*call.kernels.tiles),
        fused_(job.tile_end - job.tile_begin <= kBlockTiles),
        step_(groups_at_a_time(job, fused_)),
        group_bytes_(static_cast<int64_t>(job.segment.panel_bytes()) / job.segment.groups),
        kernels_(ops_.kernels[job.segment.centred != 0 ? 0 : 1]
                             [job.segment.offsets == Offsets::kMinima ? 1 : 0]),
        work_(carve_work(buffer, step_ * job.segment.group_size, job.group_end - job.group_begin)) {
  }

  void run() {
    ops_.configure(shape());
    if (fused_) {
      load(job_.tile_begin);
      for (int64_t g = job_.group_begin; g < job_.group_end; g += step_) {
        const int64_t groups = std::min(step_, job_.group_end - g);
        unpack(g, groups);
        multiply(job_.tile_begin, g, groups);
      }
      store(job_.tile_begin);
    } else {
      unpack(job_.group_begin, step_);
      for (int64_t tile = job_.tile_begin; tile < job_.tile_end; tile += kBlockTiles) {
        load(tile);
        multiply(tile, job_.group_begin, step_);
        store(tile);
      }
    }
    ops_.release();
  }

 private:
  TileShape shape() const {
    return {.tokens = static_cast<int>(call_.layout.tokens),
            .depth = tile_depth(job_.segment.group_size)};
  }

  int64_t tiles_from(int64_t tile) const {
    return std::min<int64_t>(kBlockTiles, job_.tile_end - tile);
  }

  // Valid rows of activations in the block from `tile`.
  int64_t tokens_from(int64_t tile) const {
    const int64_t begin = tile * call_.layout.tokens;
    return std::min(tiles_from(tile) * call_.layout.tokens, call_.tokens - begin);
  }

  // All panels, one after another.
  int64_t panels() const { return job_.up != nullptr ? 2 * job_.panels : job_.panels; }

  const Segment& segment_of(int64_t p) const { return p < job_.panels ? job_.segment : *job_.up; }

  // Valid rows of weights of each segment.
  int64_t rows() const {
    const int64_t begin = job_.panel * kPanelRows;
    return std::min(job_.panels * kPanelRows, job_.segment.rows - begin);
  }

  float* out(int64_t tile) const {
    return call_.out.f32_row(tile * call_.layout.tokens) + job_.segment.row_begin +
           job_.panel * kPanelRows;
  }

  // All groups of the job, or equal parts of them.
  static int64_t groups_at_a_time(const Job& job, bool fused) {
    const int64_t groups = job.group_end - job.group_begin;
    if (!fused) return groups;
    const int64_t most = std::max<int64_t>(1, kFusedColumns / job.segment.group_size);
    return ceil_div(groups, ceil_div(groups, most));
  }

  const uint8_t* codes(const Segment& segment, int64_t panel, int64_t group) const {
    return reinterpret_cast<const uint8_t*>(segment.panel(panel)) + group * group_bytes_;
  }

  void unpack(int64_t group, int64_t groups) {
    const bool last = group + groups == job_.group_end;
    for (int64_t p = 0; p < panels(); ++p) {
      const Segment& segment = segment_of(p);
      const int64_t at = p % job_.panels;
      work_.panels[p].next = last ? codes(segment, job_.next_panel + at, job_.group_begin)
                                  : codes(segment, job_.panel + at, group + groups);
      ops_.unpack({.segment = &segment,
                   .segment_panel = job_.panel + at,
                   .group_begin = group,
                   .groups = groups,
                   .record_begin = group - job_.group_begin,
                   .to = work_.panels[p]});
    }
  }

  // y goes on from the slice before.
  void load(int64_t tile) {
    if (job_.group_begin == 0) return;
    for (int64_t t = 0; t < tokens_from(tile); ++t)
      std::copy_n(out(tile) + t * call_.out.row_stride, rows(), work_.y + t * kBlockWidth);
  }

  void multiply(int64_t tile, int64_t group, int64_t groups) {
    const Segment& segment = job_.segment;
    const LinearScratch::Quantized& x = call_.quantized(segment.group_size);
    const int64_t group_stride = segment.groups * call_.layout.tokens;
    const int64_t tiles = tiles_from(tile);
    kernels_.multiply({.shape = shape(),
                       .group_size = segment.group_size,
                       .groups = groups,
                       .group_begin = group - job_.group_begin,
                       .sets_y = job_.group_begin == 0,
                       .panels = work_.panels,
                       .panel_count = static_cast<int>(panels()),
                       .next_bytes = group_bytes_,
                       .next_share = tile == job_.tile_begin ? group_bytes_ / tiles : 0,
                       .x = x.codes.as<int8_t>() + tile * call_.layout.stride,
                       .x_stride = call_.layout.stride,
                       .x_column = group * segment.group_size,
                       .tile_count = static_cast<int>(tiles),
                       .x_groups = x.groups.as<ActivationGroup>() + tile * group_stride +
                                   group * call_.layout.tokens,
                       .group_stride = group_stride,
                       .sums = work_.sums,
                       .y = work_.y,
                       .out = out(tile),
                       .out_stride = call_.out.row_stride,
                       .out_panels = job_.panels,
                       .out_rows = ceil_div(kTileTokens, job_.group_end - job_.group_begin)},
                      pipeline_);
  }

  void store(int64_t tile) {
    kernels_.drain(pipeline_);
    if (job_.up != nullptr) {
      return store_gated(call_, out(tile),
                         {.gate = work_.y,
                          .up = work_.y + job_.panels * kPanelRows,
                          .stride = kBlockWidth,
                          .tokens = tokens_from(tile),
                          .rows = rows()});
    }
    const bool last = job_.group_end == job_.segment.groups;
    ops_.write({.y = work_.y,
                .tokens = tokens_from(tile),
                .rows = rows(),
                .bias = last ? call_.weight.bias(job_.segment, job_.panel) : nullptr,
                .out = out(tile),
                .out_stride = call_.out.row_stride});
  }

  const Call& call_;
  const Job& job_;
  const TileOps& ops_;
  const bool fused_;
  const int64_t step_;         // groups that are unpacked at a time
  const int64_t group_bytes_;  // of codes, of one panel
  const TileKernels& kernels_;
  Work work_;
  TilePipeline pipeline_;
};

struct Place {
  int64_t slice;
  int64_t part;
  int64_t strip;
  size_t segment = 0;
};

Job job_at(const Call& call, const Plan& plan, const Place& place, int workers) {
  const Segment& segment = call.weight.segments()[place.segment];
  const int64_t width = call.gated ? plan.strip_panels / 2 : plan.strip_panels;
  const int64_t panel = place.strip * width;
  const int64_t panels = std::min(width, segment.panels() - panel);
  return {
      .segment = segment,
      .up = call.gated ? &call.weight.segments()[1] : nullptr,
      .panel = panel,
      .panels = panels,
      .tile_begin = place.part * plan.part_tiles,
      .tile_end = std::min((place.part + 1) * plan.part_tiles, call.layout.tiles),
      .group_begin = segment.groups * place.slice / plan.slices,
      .group_end = segment.groups * (place.slice + 1) / plan.slices,
      .next_panel = std::min(panel + width * workers, segment.panels() - panels),
  };
}

void run_job(const Call& call, const Plan& plan, Place place, int worker, int workers) {
  const auto segments = call.weight.segments();
  while (!call.gated && place.strip >= strips_of(segments[place.segment], plan.strip_panels)) {
    place.strip -= strips_of(segments[place.segment], plan.strip_panels);
    ++place.segment;
  }
  const Segment& segment = segments[place.segment];
  if (segment.group_size == 0) {
    if (place.slice > 0 || place.part > 0) return;
    const int64_t panel = place.strip * kBlockPanels;
    multiply_dense(call, segment, panel, std::min(panel + kBlockPanels, segment.panels()));
    return;
  }
  const Job job = job_at(call, plan, place, workers);
  if (job.group_begin == job.group_end) return;  // a group may be longer than a slice
  JobRunner(call, job, call.scratch.strips[static_cast<size_t>(worker)]).run();
}

}  // namespace

const TileOps* tile_ops_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAmx) return &kTileAmx;
#else
  static_cast<void>(isa);
#endif
  return nullptr;
}

bool uses_tiles(const LinearKernels& kernels, const CpuWeight& weight, int64_t tokens) {
  const auto segments = weight.segments();
  const bool short_groups = std::any_of(segments.begin(), segments.end(), [](const Segment& s) {
    return s.group_size > 0 && s.group_size < 32;
  });
  return kernels.tiles != nullptr && tokens >= (short_groups ? kMinTileTokensOf16 : kMinTileTokens);
}

bool gates_by_tiles(const CpuWeight& gate_up, int64_t tokens) {
  const bool one_slice =
      tokens <= int64_t{kBlockTiles} * kTileTokens || gate_up.columns() <= kSliceColumns;
  return one_slice && halves_alike(gate_up);
}

ActivationLayout tile_layout(int64_t tokens, int64_t columns) {
  const int64_t tile = block_size(tokens, kTileTokens);
  return {.tokens = tile,
          .tiles = ceil_div(tokens, tile),
          .stride = spread(ceil_div(columns, kTileColumns) * kTileColumns * tile)};
}

void multiply_by_tiles(ThreadPool& pool, const Call& call) {
  const Plan plan = plan_call(call, pool.size());
  call.scratch.strips.resize(static_cast<size_t>(pool.size()));
  for (int64_t slice = 0; slice < plan.slices; ++slice) {
    pool.for_each_chunk(plan.parts * plan.strips, 1, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i)
        run_job(call, plan, {slice, i / plan.strips, i % plan.strips}, worker, pool.size());
    });
  }
}

}  // namespace quern::cpu
