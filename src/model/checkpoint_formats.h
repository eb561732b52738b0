// The two kinds of checkpoints behind Checkpoint::open().
#pragma once

#include "model/checkpoint.h"

namespace quern {

// Errors of both: as Checkpoint::open().
Result<std::unique_ptr<Checkpoint>> open_hf_checkpoint(const std::filesystem::path& directory);
Result<std::unique_ptr<Checkpoint>> open_gguf_checkpoint(const std::filesystem::path& path);

}  // namespace quern
