// Runs quantize() on the golden models, for the tests of this folder.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/file.h"
#include "base/random.h"
#include "model/model.h"
#include "quant/evaluate.h"
#include "quant/quantize.h"

namespace quern::test {

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(QUERN_SOURCE_DIR) / "tests/golden/model" / name;
}

// A directory that a test fills; removed with the object.
class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "quern-quant-XXXXXX").string();
    QUERN_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::filesystem::remove_all(path_); }

  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline std::unique_ptr<Backend> backend(int threads = 1) {
  auto made = make_backend({.name = "cpu", .threads = threads, .isa = {}});
  QUERN_CHECK(made.has_value());
  return std::move(*made);
}

inline std::unique_ptr<Checkpoint> open(const std::filesystem::path& path) {
  auto opened = Checkpoint::open(path);
  EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message);
  QUERN_CHECK(opened.has_value());
  return std::move(*opened);
}

// Markov-like tokens of the golden models' vocabulary of 128.
inline CalibrationWindows windows(size_t count, size_t length, uint64_t seed = 1) {
  CalibrationWindows all(count);
  for (size_t w = 0; w < count; ++w) {
    for (size_t i = 0; i < length; ++i)
      all[w].push_back(static_cast<int32_t>(random_bits(seed, w, i) % 128));
  }
  return all;
}

inline QuantizeOptions options_for(const std::string& method, const std::filesystem::path& output) {
  return {.method = method, .group_size = 32, .held_out_every = 4, .output = output};
}

inline Result<QuantizeReport> run(const std::filesystem::path& model,
                                  const QuantizeOptions& options,
                                  const CalibrationWindows& calibration = windows(8, 40),
                                  int threads = 1) {
  const auto checkpoint = open(model);
  const auto b = backend(threads);
  return quantize({.checkpoint = checkpoint.get(), .backend = b.get(), .calibration = &calibration},
                  options);
}

inline std::string failure(const std::filesystem::path& model,
                           const QuantizeOptions& options,
                           const CalibrationWindows& calibration = windows(8, 40)) {
  const auto report = run(model, options, calibration);
  return report.has_value() ? "" : report.error().message;
}

// Contents of every file of a directory but the report, which holds times and paths.
inline std::map<std::string, std::string> contents(const std::filesystem::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (name != "quern-report.json") files[name] = *read_file(entry.path(), 1u << 30);
  }
  return files;
}

inline double divergence_from(const std::filesystem::path& base,
                              const std::filesystem::path& model) {
  const auto b = backend();
  const EvaluateOptions evaluation{.context = 40};
  const LoadOptions load{.precision = Precision::kFloat32,
                         .limits = evaluation_limits(evaluation, KvDType::kF32)};
  const auto checkpoint = open(model);
  const auto base_checkpoint = open(base);
  const auto loaded = load_model(*checkpoint, *b, load, nullptr);
  const auto loaded_base = load_model(*base_checkpoint, *b, load, nullptr);
  QUERN_CHECK(loaded.has_value() && loaded_base.has_value());
  std::vector<int32_t> tokens;
  for (const auto& window : windows(8, 40, 99))
    tokens.insert(tokens.end(), window.begin(), window.end());
  Model* const models[] = {loaded->get()};
  const auto reports = evaluate(models, loaded_base->get(), b->pool(), tokens, evaluation, nullptr);
  QUERN_CHECK(reports.has_value());
  return reports->at(0).divergence->mean;
}

}  // namespace quern::test
