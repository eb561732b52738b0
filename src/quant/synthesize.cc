#include "quant/synthesize.h"

#include "model/model.h"
#include "quant/output_directory.h"
#include "quant/rounding.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

// Every matrix of the blocks.
Replacements all_matrices(const ModelSpec& spec) {
  Replacements replacements;
  for (size_t b = 0; b < spec.blocks.size(); ++b) {
    size_t layer = 0;
    for (const LinearSpec* linear : linears(spec.blocks[b])) {
      replacements.matrices[linear->name] = {.block = static_cast<int64_t>(b),
                                             .layer = layer++,
                                             .rows = linear->out,
                                             .columns = linear->in};
    }
  }
  return replacements;
}

}  // namespace

Result<ExportReport> synthesize(const Checkpoint& checkpoint,
                                Backend& backend,
                                const SynthesizeOptions& options,
                                ExportProgress* progress) {
  const ModelSpec spec = QUERN_TRY(read_spec(checkpoint));
  QuantizeOptions as_quantised;
  as_quantised.method = "rtn";
  as_quantised.group_size = options.group_size;
  as_quantised.format = options.format;
  as_quantised.output = options.output;
  if (options.bits == 4) QUERN_TRY(plan_quantize(checkpoint, {}, as_quantised));
  QUERN_TRY(check_output(options.output));
  const Replacements replaced = options.bits == 4 ? all_matrices(spec) : Replacements{};
  const FetchMatrix fetch = [&](const Replacements::Slot& slot) -> Result<GroupedWeight> {
    const LinearSpec* linear = linears(spec.blocks[static_cast<size_t>(slot.block)])[slot.layer];
    const Weight weight = QUERN_TRY(checkpoint.weight(linear->name, &backend.pool()));
    return round_to_nearest(backend.pool(), widen(weight).tensor(), options.group_size);
  };
  const fs::path partial = start_output(options.output);
  const Result<ExportReport> report = export_checkpoint({.checkpoint = checkpoint,
                                                         .spec = spec,
                                                         .options = as_quantised,
                                                         .replacements = replaced,
                                                         .fetch = fetch,
                                                         .directory = partial,
                                                         .progress = progress});
  if (!report) {
    fs::remove_all(partial);
    return report.error();
  }
  finish_output(options.output);
  return *report;
}

}  // namespace quern
