// A model that nobody trained: the shapes of a config.json filled with random numbers. It has the
// size and the speed of the real one, and none of its knowledge.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "model/checkpoint.h"

namespace quern {

// Matrices are near to normal with the variance 1 / columns, in BF16; norms are ones, biases small
// numbers of F16.
// Every number depends on the seed, the tensor's name and its place alone. `source` is what
// messages about the configuration name.
// Errors: those of read_spec() for the configuration.
Result<std::unique_ptr<Checkpoint>> make_synthetic_checkpoint(Json config,
                                                              std::string source,
                                                              uint64_t seed);

}  // namespace quern
