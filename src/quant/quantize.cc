#include "quant/quantize.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <sys/resource.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "model/model.h"
#include "quant/block_matrices.h"
#include "quant/block_quantizer.h"
#include "quant/export.h"
#include "quant/objective.h"
#include "quant/outer.h"
#include "quant/output_directory.h"
#include "quant/plan.h"
#include "quant/run.h"
#include "quant/work_directory.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr std::array<Quantizer, 3> kQuantizers = {{
    {.name = "rtn", .description = "round to nearest, no calibration"},
    {.name = "awq",
     .description = "activation-aware scales and clipping",
     .calibrates = true,
     .scales = true,
     .clips = true},
    {.name = "best",
     .description = "awq, then correction toward the full-precision output and error feedback",
     .calibrates = true,
     .scales = true,
     .clips = true,
     .compensates = true},
}};

// Part of a result's key: raised whenever the procedure changes what it computes.
constexpr std::string_view kProcedure = "quern-quantize-5";

// The files of the source: names, sizes and times of change stand for their contents.
void add_source(WorkKey& key, const fs::path& path) {
  const auto add_file = [&](const fs::path& file) {
    key.add(file.filename().string());
    key.add(std::to_string(fs::file_size(file)));
    key.add(std::to_string(fs::last_write_time(file).time_since_epoch().count()));
  };
  key.add(fs::absolute(path).string());
  if (!fs::is_directory(path)) return add_file(path);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) add_file(file);
}

std::string key_of(const Checkpoint& checkpoint,
                   const CalibrationWindows& windows,
                   const QuantizeOptions& options,
                   const Recipe& recipe) {
  WorkKey key;
  key.add(kProcedure);
  add_source(key, checkpoint.path());
  key.add(checkpoint.config().dump());
  key.add(fmt::format("{} {} {} {}", options.method, options.group_size, options.held_out_every,
                      static_cast<int>(options.outer)));
  key.add(fmt::format("{} {} {} {} {} {}", recipe.damping, recipe.refine_sweeps,
                      recipe.token_weighting.share, recipe.token_weighting.sinks,
                      recipe.scale_search_every, recipe.largest_fold_error));
  for (const auto& window : windows) key.add(std::as_bytes(std::span(window)));
  return key.text();
}

CalibrationWindows chosen_windows(const CalibrationWindows& given, int64_t count) {
  CalibrationWindows windows;
  const auto total = static_cast<int64_t>(given.size());
  for (int64_t i = 0; i < count; ++i)
    windows.push_back(given[static_cast<size_t>(i * total / count)]);
  return windows;
}

uint64_t peak_rss_bytes() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;  // Linux counts in KiB
}

// Tells the caller how far the work is, in thousandths of a block.
class Meter {
 public:
  Meter(QuantizeProgress* progress, int64_t steps) : progress_(progress), steps_(steps) {}

  // False once the user asked to stop.
  bool tell(int64_t step, double share, std::string_view note) const {
    if (progress_ != nullptr) {
      const auto done = static_cast<int64_t>((static_cast<double>(step) + share) * kUnits);
      (*progress_)(done, steps_ * static_cast<int64_t>(kUnits), note);
    }
    return !interrupted();
  }

 private:
  static constexpr double kUnits = 1000;
  QuantizeProgress* progress_;
  int64_t steps_;
};

// One run from the plan to the finished directory.
class Run {
 public:
  Run(const QuantizeJob& job, const QuantizeOptions& options, const Recipe& recipe)
      : job_(job), options_(options), recipe_(recipe), method_(*find_quantizer(options.method)) {}

  Result<QuantizeReport> run();

 private:
  Result<Unit> run_blocks(Streams& streams, const Meter& meter);
  Result<Unit> run_block(BlockQuantizer& quantizer, int64_t index, const Meter& meter);
  Result<Unit> run_outer(const Streams& streams, const Meter& meter);
  Result<Unit> write(const Meter& meter);
  Replacements replacements() const;
  Error stopped(int64_t done) const;

  const QuantizeJob& job_;
  const QuantizeOptions& options_;
  const Recipe& recipe_;
  const Quantizer& method_;
  ModelSpec spec_;
  DetailedPlan plan_;
  std::optional<WorkDirectory> work_;
  QuantizeReport report_;
};

Error Run::stopped(int64_t done) const {
  return Error{ErrorCode::kExhausted,
               fmt::format("interrupted; {} of {} blocks are kept in {}, the same command goes on "
                           "from there",
                           done, plan_.summary.blocks, work_->path().string())};
}

Result<Unit> Run::run_block(BlockQuantizer& quantizer, int64_t index, const Meter& meter) {
  const SteadyClock clock;
  const double start = clock.now_seconds();
  const BlockSpec& spec = spec_.blocks[static_cast<size_t>(index)];
  auto tell = [&](double share) { return meter.tell(index, share, spec.norm.name); };
  std::optional<QuantizedBlock> done = work_->load(index);
  if (done) {
    if (method_.calibrates) {
      const BlockMatrices block = QUERN_TRY(read_block(spec, *job_.checkpoint, *job_.backend));
      if (!quantizer.replay(spec, block, *done, BlockProgress(tell))) return stopped(index);
    } else if (!tell(1.0)) {
      return stopped(index);
    }
  } else {
    BlockMatrices block = QUERN_TRY(read_block(spec, *job_.checkpoint, *job_.backend));
    Result<QuantizedBlock> result = quantizer.quantize(spec, std::move(block), BlockProgress(tell));
    if (!result) {
      if (result.error().code == ErrorCode::kExhausted) return stopped(index);
      return result.error();
    }
    done = std::move(*result);
    done->report.seconds = clock.now_seconds() - start;
    work_->save(index, *done);
  }
  report_.layers.push_back(std::move(done->report));
  return Unit{};
}

Result<Unit> Run::run_blocks(Streams& streams, const Meter& meter) {
  BlockQuantizer quantizer({.spec = spec_,
                            .backend = *job_.backend,
                            .method = method_,
                            .group_size = options_.group_size,
                            .recipe = recipe_,
                            .streams = streams,
                            .inner = plan_.inner});
  for (int64_t i = 0; i < plan_.summary.blocks; ++i) QUERN_TRY(run_block(quantizer, i, meter));
  return Unit{};
}

Result<Unit> Run::run_outer(const Streams& streams, const Meter& meter) {
  for (size_t i = 0; i < plan_.outer.size(); ++i) {
    const int64_t index = plan_.summary.blocks + static_cast<int64_t>(i);
    std::optional<QuantizedBlock> done = work_->load(index);
    if (!done) {
      done = QUERN_TRY(quantize_outer({.checkpoint = *job_.checkpoint,
                                       .spec = spec_,
                                       .backend = *job_.backend,
                                       .method = method_,
                                       .recipe = recipe_,
                                       .group_size = options_.group_size,
                                       .streams = streams},
                                      plan_.outer[i]));
      work_->save(index, *done);
    }
    report_.layers.push_back(std::move(done->report));
    if (!meter.tell(index, 1.0, plan_.outer[i].linear.name)) return stopped(plan_.summary.blocks);
  }
  return Unit{};
}

Replacements Run::replacements() const {
  Replacements replacements;
  for (int64_t b = 0; b < plan_.summary.blocks; ++b) {
    const BlockSpec& block = spec_.blocks[static_cast<size_t>(b)];
    const std::optional<QuantizedBlock> done = work_->load(b);
    QUERN_CHECK(done.has_value());
    if (!done->norm.empty()) replacements.vectors[block.norm.name + ".weight"] = done->norm;
    size_t layer = 0;
    for (const LinearSpec* linear : linears(block)) {
      if (!done->biases[layer].empty())
        replacements.vectors[linear->name + ".bias"] = done->biases[layer];
      replacements.matrices[linear->name] = {
          .block = b, .layer = layer++, .rows = linear->out, .columns = linear->in};
    }
  }
  for (size_t i = 0; i < plan_.outer.size(); ++i) {
    const LinearSpec& linear = plan_.outer[i].linear;
    replacements.matrices[linear.name] = {.block = plan_.summary.blocks + static_cast<int64_t>(i),
                                          .layer = 0,
                                          .rows = linear.out,
                                          .columns = linear.in};
  }
  return replacements;
}

Result<Unit> Run::write(const Meter& meter) {
  const fs::path partial = start_output(options_.output);
  const Replacements replaced = replacements();
  int64_t loaded_index = -1;
  std::optional<QuantizedBlock> loaded;
  const FetchMatrix fetch = [&](const Replacements::Slot& slot) -> Result<GroupedWeight> {
    if (slot.block != loaded_index) loaded = work_->load(slot.block);
    loaded_index = slot.block;
    QUERN_CHECK(loaded.has_value());
    return loaded->linears[slot.layer];
  };
  const ExportJob job{*job_.checkpoint, spec_, options_, replaced, fetch, partial};
  ExportReport written = QUERN_TRY(export_checkpoint(job));
  const int64_t steps = plan_.summary.blocks + static_cast<int64_t>(plan_.outer.size());
  if (!meter.tell(steps, 0.5, "verifying")) return stopped(plan_.summary.blocks);
  report_.verified_tensors = QUERN_TRY(verify_checkpoint(job, job_.backend->pool()));
  report_.weight_bytes = written.weight_bytes;
  report_.file_bytes = written.file_bytes;
  for (std::string& note : written.notes) report_.notes.push_back(std::move(note));
  if (job_.finish != nullptr) QUERN_TRY((*job_.finish)(partial));
  meter.tell(steps, 1.0, "done");
  return Unit{};
}

Result<QuantizeReport> Run::run() {
  const SteadyClock clock;
  const double start = clock.now_seconds();
  QUERN_CHECK(job_.checkpoint != nullptr && job_.backend != nullptr);
  static const CalibrationWindows none;
  const CalibrationWindows& given =
      job_.calibration == nullptr || !method_.calibrates ? none : *job_.calibration;
  spec_ = QUERN_TRY(read_spec(*job_.checkpoint));
  plan_ = QUERN_TRY(make_plan(*job_.checkpoint, spec_, given, options_));
  QUERN_TRY(check_output(options_.output));
  const CalibrationWindows windows = chosen_windows(given, plan_.summary.windows);
  const fs::path work_path = options_.work_directory.empty() ? with_suffix(options_.output, ".work")
                                                             : options_.work_directory;
  work_ = QUERN_TRY(
      WorkDirectory::open(work_path, key_of(*job_.checkpoint, windows, options_, recipe_)));
  Streams streams;
  if (method_.calibrates) {
    streams = QUERN_TRY(
        embed_windows(spec_, *job_.checkpoint, windows, options_.held_out_every,
                      method_.compensates ? RoundedStream::kFollowed : RoundedStream::kNone));
  }
  const Meter meter(job_.progress,
                    plan_.summary.blocks + static_cast<int64_t>(plan_.outer.size()) + 1);
  QUERN_TRY(run_blocks(streams, meter));
  QUERN_TRY(run_outer(streams, meter));
  streams = Streams();
  for (const StoredTensor& tensor : job_.checkpoint->tensors())
    report_.source_bytes += tensor.bytes;
  report_.plan = plan_.summary;
  report_.method = options_.method;
  report_.bits = options_.bits;
  report_.group_size = options_.group_size;
  report_.format = options_.format;
  report_.output = options_.output;
  QUERN_TRY(write(meter));
  report_.seconds = clock.now_seconds() - start;
  report_.peak_rss_bytes = peak_rss_bytes();
  const fs::path partial = with_suffix(options_.output, ".part");
  write_file(partial / "quern-report.json", report_.to_json().dump(2) + "\n");
  finish_output(options_.output);
  work_->remove();
  return std::move(report_);
}

}  // namespace

std::span<const Quantizer> quantizers() { return kQuantizers; }

const Quantizer* find_quantizer(std::string_view name) {
  for (const Quantizer& quantizer : kQuantizers) {
    if (quantizer.name == name) return &quantizer;
  }
  return nullptr;
}

std::string_view quant_format_name(QuantFormat format) {
  return format == QuantFormat::kAwq ? "awq" : "compressed-tensors";
}

Result<QuantFormat> parse_quant_format(std::string_view name) {
  for (const QuantFormat format : {QuantFormat::kAwq, QuantFormat::kCompressedTensors}) {
    if (quant_format_name(format) == name) return format;
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("unknown format '{}'; known are awq, compressed-tensors", name)};
}

Result<QuantizePlan> plan_quantize(const Checkpoint& checkpoint,
                                   const CalibrationWindows& calibration,
                                   const QuantizeOptions& options) {
  const ModelSpec spec = QUERN_TRY(read_spec(checkpoint));
  return QUERN_TRY(make_plan(checkpoint, spec, calibration, options)).summary;
}

Result<QuantizeReport> quantize(const QuantizeJob& job, const QuantizeOptions& options) {
  return quantize_with(job, options, Recipe{});
}

Result<QuantizeReport> quantize_with(const QuantizeJob& job,
                                     const QuantizeOptions& options,
                                     const Recipe& recipe) {
  if (find_quantizer(options.method) == nullptr) {
    const ModelSpec spec = QUERN_TRY(read_spec(*job.checkpoint));
    return make_plan(*job.checkpoint, spec, {}, options).error();
  }
  return Run(job, options, recipe).run();
}

}  // namespace quern
