#include "kernels/cpu/linear_strips.h"

#include <algorithm>

#include "kernels/cpu/linear_ops.h"
#include "kernels/cpu/output_tile.h"

namespace quern::cpu {
namespace {

constexpr int64_t kMinStripTokens = 64;  // fewer do not repay the unpacking
constexpr int64_t kStripDepth = 6144;    // x 64 rows = 384 KB of L2
constexpr int64_t kStripJobTokens = 96;  // unpacking again for each job stays below a tenth
constexpr int64_t kStripJobsPerThread = 4;
constexpr int64_t kStripJobsPerIdle = 32;  // more than this share of the time idle, and tiles win

int64_t strips_of(const Segment& segment) { return ceil_div(segment.panels(), kStripPanels); }

int64_t strips_of(const CpuWeight& weight) {
  int64_t strips = 0;
  for (const Segment& segment : weight.segments()) strips += strips_of(segment);
  return strips;
}

// The parts that the rows of activations are cut into, so that there are jobs for all workers.
int64_t strip_parts(const CpuWeight& weight, int64_t tokens, int threads) {
  const int64_t wanted = ceil_div(kStripJobsPerThread * threads, strips_of(weight));
  return std::clamp<int64_t>(tokens / kStripJobTokens, 1, wanted);
}

// The strip of one worker for at most `columns` columns: the arrays of Strip one after another.
Strip carve_strip(Buffer& buffer, int64_t columns, int64_t groups) {
  const auto weights = static_cast<size_t>(columns) * kStripPanels * kPanelRows;
  const auto row = static_cast<size_t>(groups) * kStripPanels * kPanelRows * sizeof(float);
  grow(buffer, weights + 4 * row);
  std::byte* at = buffer.data() + weights;
  return {.weights = buffer.as<int8_t>(),
          .offsets = reinterpret_cast<int32_t*>(at),
          .scales = reinterpret_cast<float*>(at + row),
          .minima = reinterpret_cast<float*>(at + 2 * row),
          .pairs = reinterpret_cast<int32_t*>(at + 3 * row)};
}

// log2 of the panels of the widest strip that `count` panels fill.
int widest(int64_t count) {
  int width = kStripWidths - 1;
  while ((int64_t{1} << width) > count) --width;
  return width;
}

// Part of a segment, or of two that are alike, times part of the rows of activations.
struct StripJob {
  const Segment& segment;
  const Segment* up;  // gated: its panels follow those of `segment` in the strip; else nullptr
  int64_t panel;
  int width;  // log2 of the strip's panels
  int64_t token_begin;
  int64_t token_end;

  int64_t panels() const { return int64_t{1} << width; }

  // Those that come from `segment`.
  int64_t own_panels() const { return up != nullptr ? panels() / 2 : panels(); }
};

// Groups [group_begin, group_begin + groups) of an unpacked strip.
struct StripSlice {
  const Strip& strip;
  int64_t group_begin;
  int64_t groups;
};

// The rows of activations from the t-th, but for where their products go.
StripTile tile_of(const Call& call, const StripJob& job, const StripSlice& slice, int64_t t) {
  const Segment& segment = job.segment;
  const LinearScratch::Quantized& x = call.quantized(segment.group_size);
  const bool last = slice.group_begin + slice.groups == segment.groups;
  return {
      .strip = slice.strip,
      .groups = slice.groups,
      .group_size = segment.group_size,
      .x = x.codes.as<uint8_t>() + t * call.layout.stride + slice.group_begin * segment.group_size,
      .x_stride = call.layout.stride,
      .x_groups = x.groups.as<ActivationGroup>() + t * segment.groups + slice.group_begin,
      .group_stride = segment.groups,
      .bias = last ? call.weight.bias(segment, job.panel) : nullptr,
      .resume = slice.group_begin > 0 ? 1 : 0,
  };
}

// Runs the kernel on `tile` and stores silu(gate) * up. The tile is not copied: wide loads of what
// was just stored in parts wait for everything before them.
void multiply_gated(const Call& call,
                    const StripJob& job,
                    StripKernel kernel,
                    StripTile& tile,
                    int64_t t,
                    int64_t count) {
  alignas(64) float both[kMaxStripColumns * kStripPanels * kPanelRows];
  const int64_t width = job.own_panels() * kPanelRows;
  tile.y = both;
  tile.y_stride = 2 * width;
  kernel(tile);
  store_gated(call, call.out.f32_row(t) + job.panel * kPanelRows,
              {.gate = both,
               .up = both + width,
               .stride = 2 * width,
               .tokens = count,
               .rows = rows_from(job.segment, job.panel, job.own_panels())});
}

void multiply_strip(const Call& call, const StripJob& job, const StripSlice& slice) {
  const Segment& segment = job.segment;
  const int64_t panels = job.panels();
  const auto& kernels = call.ops().strip[segment.centred != 0 ? 0 : 1]
                                        [segment.offsets == Offsets::kMinima ? 1 : 0][job.width];
  const int64_t block = block_size(job.token_end - job.token_begin, kMaxStripColumns);
  for (int64_t t = job.token_begin; t < job.token_end; t += block) {
    const int64_t count = std::min(block, job.token_end - t);
    StripTile tile = tile_of(call, job, slice, t);
    if (job.up != nullptr) {
      multiply_gated(call, job, kernels[count - 1], tile, t, count);
      continue;
    }
    OutputTile out(call.out, segment.row_begin + job.panel * kPanelRows, t,
                   rows_from(segment, job.panel, panels), count, panels * kPanelRows, count);
    if (slice.group_begin > 0) out.resume();
    tile.y = out.data();
    tile.y_stride = out.stride();
    kernels[count - 1](tile);
    out.finish();
  }
}

void run_strip_job(const Call& call, const StripJob& job, int worker) {
  const int64_t group_size = job.segment.group_size;
  const int64_t limit = std::max<int64_t>(1, kStripDepth / group_size);
  const int64_t step = block_size(job.segment.groups, limit);
  const Strip strip =
      carve_strip(call.scratch.strips[static_cast<size_t>(worker)], step * group_size, step);
  const auto panels = static_cast<int>(job.panels());
  const auto own = static_cast<int>(job.own_panels());
  for (int64_t g = 0; g < job.segment.groups; g += step) {
    const int64_t groups = std::min(step, job.segment.groups - g);
    for (int p = 0; p < panels; ++p) {
      call.ops().unpack({.segment = p < own ? &job.segment : job.up,
                         .segment_panel = job.panel + p % own,
                         .group_begin = g,
                         .groups = groups,
                         .panel = p,
                         .panels = panels,
                         .strip = strip});
    }
    multiply_strip(call, job, {strip, g, groups});
  }
}

// What one job of the layer covers: strip `strip` of its segments one after another, rows of
// activations [token_begin, token_end).
struct StripPart {
  int64_t strip;
  int64_t token_begin;
  int64_t token_end;
};

// Of a gated layer: half of a strip's panels from each half.
void multiply_gated_part(const Call& call, const StripPart& part, int worker) {
  const auto segments = call.weight.segments();
  const int64_t panel = part.strip * (kStripPanels / 2);
  run_strip_job(call,
                {.segment = segments[0],
                 .up = &segments[1],
                 .panel = panel,
                 .width = widest(2 * (segments[0].panels() - panel)),
                 .token_begin = part.token_begin,
                 .token_end = part.token_end},
                worker);
}

void multiply_part(const Call& call, StripPart part, int worker) {
  for (const Segment& segment : call.weight.segments()) {
    if (part.strip >= strips_of(segment)) {
      part.strip -= strips_of(segment);
      continue;
    }
    const int64_t end = std::min((part.strip + 1) * kStripPanels, segment.panels());
    if (segment.group_size == 0) {
      if (part.token_begin == 0) multiply_dense(call, segment, part.strip * kStripPanels, end);
      return;
    }
    for (int64_t panel = part.strip * kStripPanels; panel < end;) {
      const int width = widest(end - panel);
      run_strip_job(call,
                    {.segment = segment,
                     .up = nullptr,
                     .panel = panel,
                     .width = width,
                     .token_begin = part.token_begin,
                     .token_end = part.token_end},
                    worker);
      panel += int64_t{1} << width;
    }
    return;
  }
}

}  // namespace

// Tiles of rows were measured to be as fast in short groups and in 8 bits, and they divide into
// smaller jobs.
bool uses_strips(const LinearOps& ops, const CpuWeight& weight, int64_t tokens, int threads) {
  if (ops.unpack == nullptr || tokens < kMinStripTokens) return false;
  const auto segments = weight.segments();
  const bool pays = std::all_of(segments.begin(), segments.end(), [](const Segment& s) {
    return s.group_size == 16 || (s.group_size >= 64 && s.format == WeightFormat::kInt4);
  });
  const int64_t jobs = strips_of(weight) * strip_parts(weight, tokens, threads);
  const int64_t slots = ceil_div(jobs, threads) * threads;
  return pays && slots - jobs <= jobs / kStripJobsPerIdle;
}

bool gates_by_strips(const CpuWeight& gate_up) {
  return halves_alike(gate_up) && gate_up.columns() <= kStripDepth;
}

void multiply_by_strips(ThreadPool& pool, const Call& call) {
  const int64_t strips = call.gated ? ceil_div(call.weight.segments()[0].panels(), kStripPanels / 2)
                                    : strips_of(call.weight);
  const int64_t parts = strip_parts(call.weight, call.tokens, pool.size());
  const int64_t part_tokens = ceil_div(call.tokens, parts);
  call.scratch.strips.resize(static_cast<size_t>(pool.size()));
  pool.for_each_chunk(strips * parts, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t token = i % parts * part_tokens;
      const StripPart part{i / parts, token, std::min(token + part_tokens, call.tokens)};
      call.gated ? multiply_gated_part(call, part, worker) : multiply_part(call, part, worker);
    }
  });
}

}  // namespace quern::cpu
