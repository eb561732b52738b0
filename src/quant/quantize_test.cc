#include "quant/quantize.h"

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file.h"
#include "base/float16.h"
#include "base/interrupt.h"
#include "model/model.h"
#include "quant/block_matrices.h"
#include "quant/evaluate.h"
#include "quant/fold.h"
#include "quant/rounding.h"
#include "quant/run.h"
#include "quant/streams.h"
#include "quant/test_random.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_writer.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

fs::path golden(const std::string& name) {
  return fs::path(QUERN_SOURCE_DIR) / "tests/golden/model" / name;
}

// A directory that a test fills; removed with the object.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "quern-quant-XXXXXX").string();
    QUERN_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { fs::remove_all(path_); }

  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

std::unique_ptr<Backend> backend(int threads = 1) {
  auto made = make_backend({.name = "cpu", .threads = threads, .isa = {}});
  QUERN_CHECK(made.has_value());
  return std::move(*made);
}

std::unique_ptr<Checkpoint> open(const fs::path& path) {
  auto opened = Checkpoint::open(path);
  EXPECT_TRUE(opened.has_value()) << (opened ? "" : opened.error().message);
  QUERN_CHECK(opened.has_value());
  return std::move(*opened);
}

// Markov-like tokens of the golden models' vocabulary of 128.
CalibrationWindows windows(size_t count, size_t length, uint64_t seed = 1) {
  CalibrationWindows all(count);
  for (size_t w = 0; w < count; ++w) {
    for (size_t i = 0; i < length; ++i)
      all[w].push_back(static_cast<int32_t>(random_bits(seed, w, i) % 128));
  }
  return all;
}

QuantizeOptions options_for(const std::string& method, const fs::path& output) {
  return {.method = method, .group_size = 32, .held_out_every = 4, .output = output};
}

Result<QuantizeReport> run(const fs::path& model,
                           const QuantizeOptions& options,
                           const CalibrationWindows& calibration = windows(8, 40),
                           int threads = 1) {
  const auto checkpoint = open(model);
  const auto b = backend(threads);
  return quantize({.checkpoint = checkpoint.get(), .backend = b.get(), .calibration = &calibration},
                  options);
}

std::string failure(const fs::path& model,
                    const QuantizeOptions& options,
                    const CalibrationWindows& calibration = windows(8, 40)) {
  const auto report = run(model, options, calibration);
  return report.has_value() ? "" : report.error().message;
}

// Contents of every file of a directory but the report, which holds times and paths.
std::map<std::string, std::string> contents(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (name != "quern-report.json") files[name] = *read_file(entry.path(), 1u << 30);
  }
  return files;
}

double divergence_from(const fs::path& base, const fs::path& model) {
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

class Families : public ::testing::TestWithParam<const char*> {};

TEST_P(Families, EveryMethodGivesACheckpointThatRunsAndBetterOnesAreCloser) {
  const Scratch scratch;
  std::map<std::string, double> kl;
  for (const Quantizer& method : quantizers()) {
    const fs::path output = scratch / std::string(method.name);
    const auto report =
        run(golden(GetParam()), options_for(std::string(method.name), output), windows(32, 40));
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_GT(report->verified_tensors, 0);
    kl[std::string(method.name)] = divergence_from(golden(GetParam()), output);
  }
  // Random weights leave little to win; what is won must show nevertheless.
  EXPECT_LT(kl["best"], kl["rtn"]);
  EXPECT_LT(kl["awq"], 1.1 * kl["rtn"]);
}

TEST_P(Families, FoldingAnyScalesKeepsTheBlocksOutput) {
  const auto checkpoint = open(golden(GetParam()));
  const auto spec = read_spec(*checkpoint);
  ASSERT_TRUE(spec.has_value());
  const auto b = backend();
  BlockRunner runner(*spec, *b, 24);
  const FloatMatrix stream = test::normal_matrix(3, 24, spec->hidden);
  for (const BlockSpec& block_spec : spec->blocks) {
    BlockMatrices block = *read_block(block_spec, *checkpoint, *b);
    const Tensor answer = runner.run(block_spec, pack_block(block, *b), stream.tensor(), nullptr);
    std::vector<float> before(answer.f32(), answer.f32() + answer.elements());
    // Scales across a factor of ten; tied across the query heads of a key-value head.
    std::vector<float> input(static_cast<size_t>(block_spec.norm.width));
    for (size_t i = 0; i < input.size(); ++i) input[i] = 0.3f + 0.29f * static_cast<float>(i % 10);
    std::vector<float> inner(static_cast<size_t>(output_linear(block_spec.mixer).in));
    int head_dim = 1;
    int repeats = 1;
    if (const auto* attention = std::get_if<AttentionSpec>(&block_spec.mixer)) {
      head_dim = attention->head_dim;
      repeats = attention->heads / attention->kv_heads;
    }
    for (size_t i = 0; i < inner.size(); ++i) {
      const auto at = static_cast<int>(i);
      const int source = at / (head_dim * repeats) * head_dim + at % head_dim;
      inner[i] = 0.3f + 0.29f * static_cast<float>(source % 10);
    }
    fold_output_scales(b->pool(), block_spec, block, inner);
    fold_input_scales(b->pool(), block, input);
    const Tensor folded = runner.run(block_spec, pack_block(block, *b), stream.tensor(), nullptr);
    double off = 0;
    double signal = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      off += std::pow(static_cast<double>(folded.f32()[i] - before[i]), 2);
      signal += std::pow(static_cast<double>(before[i]), 2);
    }
    // Only folded biases lose anything: they are rounded to f16.
    EXPECT_LT(std::sqrt(off / signal), 3e-4) << block_spec.norm.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         Families,
                         ::testing::Values("llama", "llama_bias", "qwen2", "qwen3", "mistral"));

TEST(FoldInputScales, NormsThatF16CannotHoldKeepTheirChannel) {
  const auto b = backend();
  BlockMatrices block;
  block.norm = {1.0f, 0.0f, 1e-6f, 1e4f};
  block.linears.emplace_back(2, 4);
  block.linears.emplace_back(2, 4);
  block.biases.resize(2);
  const auto scales = fold_input_scales(b->pool(), block, {3.0f, 2.0f, 2.0f, 0.01f});
  EXPECT_EQ(scales[0], 1.0f / f16_to_f32(f32_to_f16(1.0f / 3.0f)));
  EXPECT_EQ(scales[1], 1.0f);
  EXPECT_EQ(scales[2], 1.0f);
  EXPECT_EQ(scales[3], 1.0f);
  EXPECT_EQ(block.norm[3], 1e4f);
}

TEST(Quantize, FormatsHoldTheSameNumbers) {
  const Scratch scratch;
  QuantizeOptions options = options_for("best", scratch / "awq");
  ASSERT_TRUE(run(golden("qwen2"), options).has_value());
  options.output = scratch / "ct";
  options.format = QuantFormat::kCompressedTensors;
  ASSERT_TRUE(run(golden("qwen2"), options).has_value());
  const auto awq = open(scratch / "awq");
  const auto ct = open(scratch / "ct");
  EXPECT_EQ(awq->format(), "awq");
  EXPECT_EQ(ct->format(), "compressed-tensors");
  for (const char* module : {"model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"}) {
    const auto a = std::get<GroupedWeight>(*awq->weight(module));
    const auto c = std::get<GroupedWeight>(*ct->weight(module));
    EXPECT_EQ(a.codes, c.codes);
    EXPECT_EQ(a.scales, c.scales);
    EXPECT_EQ(a.zeros, c.zeros);
  }
}

TEST(Quantize, RoundToNearestIsTheLawAppliedToEachMatrix) {
  const Scratch scratch;
  ASSERT_TRUE(run(golden("llama"), options_for("rtn", scratch / "out")).has_value());
  const auto source = open(golden("llama"));
  const auto result = open(scratch / "out");
  const FloatMatrix w = widen(*source->weight("model.layers.0.mlp.up_proj"));
  ThreadPool pool(1);
  const GroupedWeight meant = round_to_nearest(pool, w.tensor(), 32);
  const auto found = std::get<GroupedWeight>(*result->weight("model.layers.0.mlp.up_proj"));
  EXPECT_EQ(found.codes, meant.codes);
  EXPECT_EQ(found.scales, meant.scales);
  EXPECT_EQ(found.zeros, meant.zeros);
}

// Thrown by a progress callback in place of a kill.
struct Killed : std::runtime_error {
  Killed() : std::runtime_error("killed") {}
};

// Runs until the given share is reached and dies there.
void run_and_die(const fs::path& model, const QuantizeOptions& options, double at, int threads) {
  const auto checkpoint = open(model);
  const auto b = backend(threads);
  const CalibrationWindows calibration = windows(8, 40);
  auto die = [&](int64_t done, int64_t total, std::string_view) {
    if (static_cast<double>(done) >= at * static_cast<double>(total)) throw Killed();
  };
  QuantizeProgress progress(die);
  EXPECT_THROW((void)quantize({.checkpoint = checkpoint.get(),
                               .backend = b.get(),
                               .calibration = &calibration,
                               .progress = &progress},
                              options),
               Killed);
}

TEST(Quantize, AResumedRunWritesTheSameBytesAsAnUninterruptedOne) {
  for (const char* method : {"rtn", "awq", "best"}) {
    const Scratch scratch;
    QuantizeOptions options = options_for(method, scratch / "whole");
    ASSERT_TRUE(run(golden("qwen3"), options).has_value());
    options.output = scratch / "resumed";
    for (const double at : {0.3, 0.7}) {
      run_and_die(golden("qwen3"), options, at, 1);
      EXPECT_FALSE(fs::exists(options.output));
      EXPECT_TRUE(fs::exists(scratch / "resumed.work"));
    }
    const auto report = run(golden("qwen3"), options);
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_TRUE(report->layers[0].resumed);
    EXPECT_FALSE(report->layers.back().resumed);
    EXPECT_EQ(contents(scratch / "whole"), contents(scratch / "resumed")) << method;
    EXPECT_FALSE(fs::exists(scratch / "resumed.work"));
    EXPECT_FALSE(fs::exists(scratch / "resumed.part"));
  }
}

TEST(Quantize, WorkOfOtherOptionsIsNotTakenUp) {
  const Scratch scratch;
  QuantizeOptions options = options_for("awq", scratch / "out");
  run_and_die(golden("qwen3"), options, 0.7, 2);
  options.held_out_every = 2;
  const auto report = run(golden("qwen3"), options);
  ASSERT_TRUE(report.has_value());
  for (const BlockReport& block : report->layers) EXPECT_FALSE(block.resumed);
}

TEST(Quantize, ABrokenPieceOfWorkIsDoneAgain) {
  const Scratch scratch;
  const QuantizeOptions options = options_for("best", scratch / "out");
  run_and_die(golden("qwen3"), options, 0.6, 2);
  const fs::path piece = scratch / "out.work" / "block-00001" / "model.safetensors";
  ASSERT_TRUE(fs::exists(piece));
  fs::resize_file(piece, fs::file_size(piece) / 2);
  const auto report = run(golden("qwen3"), options);
  ASSERT_TRUE(report.has_value());
  EXPECT_TRUE(report->layers[0].resumed);
  EXPECT_FALSE(report->layers[1].resumed);
}

TEST(Quantize, DoesNotDependOnThreads) {
  const Scratch scratch;
  for (const int threads : {1, 3}) {
    const auto options = options_for("best", scratch / std::to_string(threads));
    ASSERT_TRUE(run(golden("llama_bias"), options, windows(8, 40), threads).has_value());
  }
  EXPECT_EQ(contents(scratch / "1"), contents(scratch / "3"));
}

TEST(Quantize, InnerActivationsComputedTwiceChangeNothing) {
  const Scratch scratch;
  const auto checkpoint = open(golden("qwen2"));
  QuantizeOptions options = options_for("best", scratch / "stored");
  const CalibrationWindows calibration = windows(256, 64);
  ASSERT_TRUE(run(golden("qwen2"), options, calibration).has_value());
  // Lowered until the plan says that they no longer fit.
  options.output = scratch / "recomputed";
  const auto recomputed = [&] {
    const auto plan = plan_quantize(*checkpoint, calibration, options);
    QUERN_CHECK(plan.has_value());
    return !plan->notes.empty() && plan->windows == plan->windows_given;
  };
  options.memory_budget_bytes = plan_quantize(*checkpoint, calibration, options)->memory_bytes;
  while (!recomputed()) options.memory_budget_bytes -= 64 * 1024;
  ASSERT_TRUE(run(golden("qwen2"), options, calibration).has_value());
  EXPECT_EQ(contents(scratch / "stored"), contents(scratch / "recomputed"));
}

TEST(Quantize, ASmallBudgetTakesFewerWindowsAndSaysSo) {
  const Scratch scratch;
  const auto checkpoint = open(golden("llama"));
  QuantizeOptions options = options_for("best", scratch / "out");
  const CalibrationWindows calibration = windows(512, 64);
  const uint64_t whole = plan_quantize(*checkpoint, calibration, options)->memory_bytes;
  options.memory_budget_bytes = whole - (uint64_t{24} << 20);
  const auto plan = plan_quantize(*checkpoint, calibration, options);
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_LT(plan->windows, 512);
  EXPECT_GE(plan->windows, 2);
  EXPECT_LE(plan->memory_bytes, options.memory_budget_bytes);
  ASSERT_FALSE(plan->notes.empty());
  EXPECT_NE(plan->notes[0].find("of 512 calibration windows"), std::string::npos);
  options.memory_budget_bytes = uint64_t{1} << 20;
  const auto refused = plan_quantize(*checkpoint, calibration, options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("memory budget of 1 MiB is too small"), std::string::npos);
}

TEST(Quantize, ReportTellsWhatWasDone) {
  const Scratch scratch;
  const auto report = run(golden("llama_bias"), options_for("best", scratch / "out"));
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->layers.size(), 4u);
  EXPECT_EQ(report->plan.linears, 14);
  EXPECT_EQ(report->plan.held_out_windows, 2);
  EXPECT_GT(report->weight_bytes, 0u);
  EXPECT_GE(report->file_bytes, report->weight_bytes);
  EXPECT_GT(report->peak_rss_bytes, 0u);
  double loss = 0;
  double rtn_loss = 0;
  for (const BlockReport& block : report->layers) {
    EXPECT_TRUE(block.fold == "folded" || block.fold == "none") << block.fold;
    EXPECT_LT(block.fold_error, 1e-3);
    EXPECT_GT(block.output_error, 0);
    for (const LinearReport& linear : block.linears) {
      EXPECT_GT(linear.rtn_loss, 0) << linear.name;
      loss += linear.loss / linear.signal;
      rtn_loss += linear.rtn_loss / linear.signal;
      EXPECT_GT(linear.signal, linear.loss) << linear.name;
    }
  }
  EXPECT_LT(loss, rtn_loss);
  const auto json =
      parse_json(*read_file(scratch / "out" / "quern-report.json", 1u << 24), "report");
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ((*json)["method"], "best");
  EXPECT_EQ((*json)["layers"].size(), 4u);
  EXPECT_EQ((*json)["weight_bytes"], report->weight_bytes);
}

TEST(Quantize, ConfigNamesTheFormatAndTheKeptHead) {
  const Scratch scratch;
  ASSERT_TRUE(run(golden("qwen3"), options_for("rtn", scratch / "out")).has_value());
  const Json config = *parse_json(*read_file(scratch / "out" / "config.json", 1u << 24), "config");
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(config["quantization_config"]["quant_method"], "awq");
  EXPECT_EQ(config["quantization_config"]["version"], "gemm");
  EXPECT_EQ(config["quantization_config"]["modules_to_not_convert"], Json({"lm_head"}));
  QuantizeOptions options = options_for("rtn", scratch / "ct");
  options.format = QuantFormat::kCompressedTensors;
  ASSERT_TRUE(run(golden("qwen3"), options).has_value());
  const Json ct = (*parse_json(*read_file(options.output / "config.json", 1u << 24),
                               "config"))["quantization_config"];
  EXPECT_EQ(ct["quant_method"], "compressed-tensors");
  EXPECT_EQ(ct["ignore"], Json({"lm_head"}));
  EXPECT_EQ(ct["config_groups"]["group_0"]["weights"]["group_size"], 32);
}

TEST(Quantize, UnknownTensorsPassThroughByteForByte) {
  const Scratch scratch;
  const fs::path source = scratch / "source";
  fs::create_directories(source);
  const auto original = SafetensorsSet::open(golden("llama"));
  ASSERT_TRUE(original.has_value());
  std::vector<SafetensorsPlan> plan;
  for (const SafetensorsEntry* entry : original->entries())
    plan.push_back({entry->name, entry->dtype, entry->shape});
  plan.push_back({"vision.patch.weight", DType::kU8, {2, 3, 5}});
  std::vector<std::byte> foreign;
  for (int i = 0; i < 30; ++i) foreign.push_back(static_cast<std::byte>(7 * i));
  auto writer = SafetensorsWriter::create(source, plan);
  ASSERT_TRUE(writer.has_value());
  for (const SafetensorsEntry* entry : original->entries())
    writer->write(entry->name, entry->bytes);
  writer->write("vision.patch.weight", foreign);
  writer->finish();
  fs::copy_file(golden("llama") / "config.json", source / "config.json");
  ASSERT_TRUE(run(source, options_for("rtn", scratch / "out")).has_value());
  const auto written = SafetensorsSet::open(scratch / "out");
  const SafetensorsEntry* entry = written->find("vision.patch.weight");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->shape, (std::vector<int64_t>{2, 3, 5}));
  EXPECT_TRUE(std::equal(foreign.begin(), foreign.end(), entry->bytes.begin(), entry->bytes.end()));
  const SafetensorsEntry* table = written->find("model.embed_tokens.weight");
  EXPECT_EQ(table->dtype, original->find("model.embed_tokens.weight")->dtype);
}

TEST(Quantize, ReadsGguf) {
  const Scratch scratch;
  fs::path model;
  for (const auto& entry : fs::recursive_directory_iterator(golden("gguf_llama"))) {
    if (entry.path().extension() == ".gguf") model = entry.path();
  }
  ASSERT_FALSE(model.empty());
  const auto report = run(model, options_for("best", scratch / "out"));
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_LT(divergence_from(model, scratch / "out"), 0.5);
  ASSERT_EQ(report->notes.size(), 1u);
  EXPECT_NE(report->notes[0].find("rounded to F16"), std::string::npos);
}

TEST(Quantize, ReadsFp8) {
  for (const char* name : {"fp8", "fp8_compressed"}) {
    const Scratch scratch;
    const auto report = run(golden(name), options_for("best", scratch / "out"));
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_LT(divergence_from(golden(name), scratch / "out"), 0.5);
    const auto written = open(scratch / "out");
    for (const StoredTensor& tensor : written->tensors()) {
      EXPECT_EQ(tensor.format.find("F8"), std::string::npos) << tensor.name;
      EXPECT_EQ(tensor.name.find("weight_scale"), std::string::npos) << tensor.name;
    }
  }
}

TEST(Quantize, HeadAndEmbeddingOnRequest) {
  const Scratch scratch;
  // qwen3 ties its head, llama does not.
  for (const char* model : {"qwen3", "llama"}) {
    for (const OuterMatrices outer : {OuterMatrices::kHead, OuterMatrices::kHeadAndEmbedding}) {
      const bool both = outer == OuterMatrices::kHeadAndEmbedding;
      QuantizeOptions options =
          options_for("best", scratch / (std::string(model) + (both ? "-both" : "-head")));
      options.outer = outer;
      const auto report = run(golden(model), options);
      ASSERT_TRUE(report.has_value()) << report.error().message;
      const auto result = open(options.output);
      const auto spec = read_spec(*result);
      ASSERT_TRUE(spec.has_value());
      EXPECT_TRUE(std::holds_alternative<GroupedWeight>(*result->weight(spec->head.name)));
      EXPECT_EQ(std::holds_alternative<GroupedWeight>(*result->weight(spec->embedding)), both);
      EXPECT_LT(divergence_from(golden(model), options.output), 2.0);
    }
  }
}

TEST(Quantize, FinishAddsFilesBeforeTheNameAppears) {
  const Scratch scratch;
  const auto checkpoint = open(golden("llama"));
  const auto b = backend();
  const QuantizeOptions options = options_for("rtn", scratch / "out");
  auto add = [&](const fs::path& directory) -> Result<Unit> {
    EXPECT_FALSE(fs::exists(options.output));
    EXPECT_TRUE(fs::exists(directory / "config.json"));
    write_file(directory / "tokenizer.json", "{}");
    return Unit{};
  };
  FinishOutput finish(add);
  ASSERT_TRUE(
      quantize({.checkpoint = checkpoint.get(), .backend = b.get(), .finish = &finish}, options)
          .has_value());
  EXPECT_TRUE(fs::exists(options.output / "tokenizer.json"));
}

TEST(Quantize, RefusesOptionsItDoesNotKnow) {
  const Scratch scratch;
  const fs::path model = golden("llama");
  EXPECT_NE(failure(model, options_for("gptq", scratch / "o")).find("known are rtn, awq, best"),
            std::string::npos);
  QuantizeOptions options = options_for("rtn", scratch / "o");
  options.bits = 3;
  EXPECT_NE(failure(model, options).find("3 bits are not supported"), std::string::npos);
  options = options_for("rtn", scratch / "o");
  options.group_size = 48;
  EXPECT_NE(failure(model, options).find("not one of 32, 64, 128"), std::string::npos);
  options.group_size = 64;
  EXPECT_NE(failure(model, options)
                .find("down_proj has 96 inputs, which groups of 64 do not "
                      "divide; these sizes do: 32"),
            std::string::npos);
  options = options_for("rtn", scratch / "o");
  options.held_out_every = 1;
  EXPECT_NE(failure(model, options).find("held_out_every"), std::string::npos);
  options = options_for("rtn", scratch / "o");
  options.shard_bytes = 0;
  EXPECT_NE(failure(model, options).find("shard_bytes"), std::string::npos);
  EXPECT_NE(failure(model, options_for("rtn", "")).find("no output"), std::string::npos);
  EXPECT_FALSE(parse_quant_format("gguf").has_value());
  EXPECT_EQ(*parse_quant_format("awq"), QuantFormat::kAwq);
}

TEST(Quantize, RefusesCalibrationItCannotUse) {
  const Scratch scratch;
  const QuantizeOptions options = options_for("awq", scratch / "o");
  EXPECT_NE(failure(golden("llama"), options, {}).find("at least 2 windows"), std::string::npos);
  EXPECT_NE(failure(golden("llama"), options, {{1, 2}, {}}).find("window 1 is empty"),
            std::string::npos);
  EXPECT_NE(failure(golden("llama"), options, {{1, 2}, {3, 128}}).find("token 128"),
            std::string::npos);
  EXPECT_NE(failure(golden("llama"), options, windows(2, 5000)).find("the model's context is"),
            std::string::npos);
}

TEST(Quantize, RefusesOutputsAndWorkThatHoldOtherThings) {
  const Scratch scratch;
  fs::create_directories(scratch / "o");
  write_file(scratch / "o" / "mine", "x");
  EXPECT_NE(failure(golden("llama"), options_for("rtn", scratch / "o")).find("exists already"),
            std::string::npos);
  QuantizeOptions options = options_for("rtn", scratch / "p");
  options.work_directory = scratch / "o";
  EXPECT_NE(failure(golden("llama"), options).find("no work directory"), std::string::npos);
  EXPECT_TRUE(fs::exists(scratch / "o" / "mine"));
}

TEST(Quantize, RefusesACheckpointThatIsQuantisedAlready) {
  const Scratch scratch;
  ASSERT_TRUE(run(golden("llama"), options_for("rtn", scratch / "once")).has_value());
  EXPECT_NE(failure(scratch / "once", options_for("rtn", scratch / "twice"))
                .find("already quantised (awq)"),
            std::string::npos);
}

// A copy of the golden Llama whose tensor `name` begins with `value`.
fs::path with_value(const Scratch& scratch, const std::string& name, float value) {
  const fs::path source = scratch / "spoilt";
  fs::create_directories(source);
  const auto original = SafetensorsSet::open(golden("llama"));
  std::vector<SafetensorsPlan> plan;
  for (const SafetensorsEntry* entry : original->entries())
    plan.push_back({entry->name, DType::kF32, entry->shape});
  auto writer = SafetensorsWriter::create(source, plan);
  for (const SafetensorsEntry* entry : original->entries()) {
    std::vector<float> values = *read_floats(*entry);
    if (entry->name == name) values[70] = value;
    writer->write(entry->name, std::as_bytes(std::span(values)));
  }
  writer->finish();
  fs::copy_file(golden("llama") / "config.json", source / "config.json");
  return source;
}

TEST(Quantize, RefusesWeightsThatAreNoNumbersOrTooLarge) {
  const std::string name = "model.layers.1.mlp.gate_proj";
  const std::map<std::string, float> cases = {
      {"nan", NAN}, {"inf", INFINITY}, {"gate_proj.weight[1][6] is 2000000; INT4 with f16", 2e6f}};
  for (const auto& [message, value] : cases) {
    const Scratch scratch;
    const fs::path model = with_value(scratch, name + ".weight", value);
    const std::string found = failure(model, options_for("rtn", scratch / "o"));
    EXPECT_NE(found.find(name + ".weight"), std::string::npos) << found;
    EXPECT_NE(found.find(message), std::string::npos) << found;
    EXPECT_FALSE(fs::exists(scratch / "o"));
  }
}

TEST(QuantizeDeathTest, AnInterruptKeepsFinishedBlocksAndSaysWhere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        std::raise(SIGINT);
        const Scratch scratch;
        const std::string message = failure(golden("llama"), options_for("awq", scratch / "o"));
        const bool right = message.find("interrupted; 0 of 4 blocks are kept in") == 0 &&
                           fs::exists(scratch / "o.work") && !fs::exists(scratch / "o");
        std::exit(right ? 7 : 0);
      },
      ::testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace quern
