// A tokenizer small enough to reason about, for the tests of this folder.
#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "base/json.h"
#include "text/tokenizer.h"

namespace quern {

// 64 tokens of byte-level BPE without merges: 0 is the special "<end>", 1 "a" ... 26 "z", 27 a
// space, 28 and 29 the two bytes of U+00E9, 30 "END", 31 "ND", 32 "th", 33 "the", then "w0",
// "w1"...
inline std::unique_ptr<Tokenizer> make_test_tokenizer() {
  Json vocabulary = Json::object();
  int32_t id = 0;
  const auto add = [&](const std::string& token) { vocabulary[token] = id++; };
  add("<end>");
  for (char letter = 'a'; letter <= 'z'; ++letter) add(std::string(1, letter));
  add("\u0120");  // a space
  add("\u00c3");  // the byte 0xC3
  add("\u00a9");  // the byte 0xA9
  for (const char* token : {"END", "ND", "th", "the"}) add(token);
  while (id < 64) add("w" + std::to_string(id - 34));
  Json json;
  json["version"] = "1.0";
  json["added_tokens"] = Json::array({{{"id", 0},
                                       {"content", "<end>"},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", true}}});
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  json["post_processor"] = nullptr;
  json["decoder"] = {{"type", "ByteLevel"}};
  json["model"] = {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}};
  Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::from_json(json.dump(), "test");
  if (!tokenizer) ADD_FAILURE() << tokenizer.error().message;
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

}  // namespace quern
