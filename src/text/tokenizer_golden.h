// Reads tests/golden/text for the tests of this folder.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer_base64.h"

namespace quern {

inline std::string golden_text(const std::string& name) {
  const std::string path = std::string(QUERN_SOURCE_DIR) + "/tests/golden/text/" + name;
  Result<std::string> text = read_file(path, uint64_t{16} << 20);
  EXPECT_TRUE(text) << path;
  return text ? *text : std::string();
}

inline Json golden_json(const std::string& name) { return Json::parse(golden_text(name)); }

// The bytes of every case, valid UTF-8 or not.
inline std::vector<std::string> golden_cases() {
  std::vector<std::string> cases;
  const Json golden = golden_json("cases.json");
  for (const Json& text : golden["base64"])
    cases.push_back(decode_base64(text.get<std::string>()).value_or("not base64"));
  return cases;
}

}  // namespace quern
