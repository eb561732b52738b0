// Writes a synthetic checkpoint (model/synthetic.h) as a Hugging Face directory, in F16 or as INT4.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/result.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "quant/export.h"
#include "quant/quantize.h"

namespace quern {

struct SynthesizeOptions {
  int bits = 4;         // of the matrices in the blocks: 4, rounded to nearest, or 16
  int group_size = 64;  // 32, 64 or 128, for 4 bits
  QuantFormat format = QuantFormat::kAwq;
  std::filesystem::path output;  // the directory to make; must not exist, or be empty
};

// The directory appears under its name complete or not at all.
// Errors: as quantize() for its options and the output; kExhausted when the progress says stop.
// Throws std::system_error when the disk fails.
Result<ExportReport> synthesize(const Checkpoint& checkpoint,
                                Backend& backend,
                                const SynthesizeOptions& options,
                                ExportProgress* progress);

}  // namespace quern
