#include "model/model.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/block.h"
#include "model/footprint.h"
#include "model/test_support.h"

namespace quern {
namespace {

using test::EditedCheckpoint;
using testing::HasSubstr;

const std::filesystem::path kGoldenPath = test::golden("llama31");

std::string limit_error(const ModelLimits& limits) {
  const auto backend = test::backend("ref");
  const auto checkpoint = Checkpoint::open(kGoldenPath).value();
  LoadOptions options;
  options.limits = limits;
  const auto model = load_model(*checkpoint, *backend, options, nullptr);
  return model ? "" : model.error().message;
}

TEST(LoadModel, RefusesLimitsBelowOneAndBeyondItsOwn) {
  const ModelLimits good{.kv_blocks = 1};
  EXPECT_EQ(limit_error(good), "");
  ModelLimits bad = good;
  bad.max_batch_tokens = 0;
  EXPECT_THAT(limit_error(bad), HasSubstr("max_batch_tokens is 0; expected a number from 1"));
  bad = good;
  bad.max_logit_rows = int64_t{1} << 40;
  EXPECT_THAT(limit_error(bad), HasSubstr("max_logit_rows is 1099511627776"));
  bad = good;
  bad.kv_blocks = 0;
  EXPECT_THAT(limit_error(bad), HasSubstr("kv_blocks is 0"));
}

TEST(LoadModel, TellsItsProgressInBytesUpToTheEnd) {
  const auto backend = test::backend("cpu");
  const auto checkpoint = Checkpoint::open(kGoldenPath).value();
  std::vector<uint64_t> seen;
  uint64_t total = 0;
  const auto watch = [&](uint64_t done, uint64_t all) {
    seen.push_back(done);
    total = all;
  };
  FunctionRef<void(uint64_t, uint64_t)> progress = watch;
  LoadOptions options;
  options.limits.kv_blocks = 1;
  options.progress = &progress;
  ASSERT_TRUE(load_model(*checkpoint, *backend, options, nullptr));
  ASSERT_EQ(seen.size(), 1u + 2 * 4 + 1);  // embedding, two packed layers a block, head
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), total);
}

TEST(LoadModel, ReportsWhatItHoldsAndWhatItRounded) {
  const auto backend = test::backend("cpu");
  const auto checkpoint = Checkpoint::open(test::golden("gguf_llama/model.gguf")).value();
  const ModelSpec spec = read_spec(*checkpoint).value();
  for (const Precision precision : {Precision::kFast, Precision::kBF16, Precision::kFloat32}) {
    LoadOptions options;
    options.precision = precision;
    options.limits = {.max_batch_tokens = 8, .max_logit_rows = 8, .kv_blocks = 3};
    LoadReport report;
    ASSERT_TRUE(load_model(*checkpoint, *backend, options, &report));
    const WeightFootprint planned = weight_footprint(spec, *checkpoint, precision).value();
    EXPECT_GE(report.weight_bytes, planned.packed_bytes * 99 / 100);  // zero points kept once
    EXPECT_LE(report.weight_bytes, planned.packed_bytes * 11 / 10);   // norms and padding
    EXPECT_EQ(report.scratch_bytes, 8 * step_row_bytes(spec));
    EXPECT_GE(report.kv_cache_bytes, 3 * 32 * kv_bytes_per_token(spec, KvDType::kInt8));
  }
}

TEST(LoadModel, NamesTheFormatWhoseNumbersWereRounded) {
  const auto backend = test::backend("cpu");
  const auto checkpoint = Checkpoint::open(test::golden("llama")).value();
  LoadOptions options;
  options.limits.kv_blocks = 1;
  options.precision = Precision::kFast;
  LoadReport report;
  ASSERT_TRUE(load_model(*checkpoint, *backend, options, &report));
  EXPECT_TRUE(report.notes.empty());
  const auto half = Checkpoint::open(test::golden("llama_bias")).value();  // F16
  options.precision = Precision::kBF16;
  ASSERT_TRUE(load_model(*half, *backend, options, &report));
  ASSERT_FALSE(report.notes.empty());
  for (const std::string& note : report.notes) EXPECT_THAT(note, testing::StartsWith("F16: "));
}

TEST(Forward, AnswersForTheWantedRowsAlone) {
  const auto backend = test::backend("cpu");
  const auto model = test::load(kGoldenPath, *backend);
  const test::Expected expected = test::read_expected(kGoldenPath / "expected.safetensors");
  const FloatMatrix all = test::run_in_chunks(*model, expected.tokens, 64);
  std::vector<int32_t> positions(expected.tokens.size());
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
  const std::vector<int32_t> blocks{5, 2};
  const SequenceSpan sequence{0, static_cast<int64_t>(positions.size()), 0, blocks};
  const std::vector<int32_t> wanted{0, 17, 39};
  FloatMatrix logits(3, model->spec().vocabulary);
  model->forward({expected.tokens, positions, {&sequence, 1}, wanted}, logits.tensor());
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(std::memcmp(logits.row(static_cast<int64_t>(i)), all.row(wanted[i]),
                          static_cast<size_t>(all.columns()) * sizeof(float)),
              0);
  }
}

TEST(Forward, GivesLogitsAndHiddenStatesOfDifferentRowsTogether) {
  const auto backend = test::backend("cpu");
  const auto model = test::load(kGoldenPath, *backend);
  const test::Expected expected = test::read_expected(kGoldenPath / "expected.safetensors");
  const FloatMatrix all_logits = test::run_in_chunks(*model, expected.tokens, 64);
  const FloatMatrix all_hidden = test::hidden_in_chunks(*model, expected.tokens, 64);
  std::vector<int32_t> positions(expected.tokens.size());
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
  const std::vector<int32_t> blocks{5, 2};
  const SequenceSpan sequence{0, static_cast<int64_t>(positions.size()), 0, blocks};
  const std::vector<int32_t> logit_rows{3, 17, 39};
  const std::vector<int32_t> hidden_rows{0, 17, 18};
  FloatMatrix logits(3, all_logits.columns());
  FloatMatrix hidden(3, all_hidden.columns());
  model->forward({.tokens = expected.tokens,
                  .positions = positions,
                  .sequences = {&sequence, 1},
                  .logit_rows = logit_rows,
                  .hidden_rows = hidden_rows,
                  .hidden = hidden.tensor()},
                 logits.tensor());
  const auto same_row = [](const FloatMatrix& a, int64_t row, const FloatMatrix& b, int64_t other) {
    const size_t bytes = static_cast<size_t>(a.columns()) * sizeof(float);
    return std::memcmp(a.row(row), b.row(other), bytes) == 0;
  };
  for (int64_t i = 0; i < 3; ++i) {
    const auto index = static_cast<size_t>(i);
    EXPECT_TRUE(same_row(logits, i, all_logits, logit_rows[index])) << i;
    EXPECT_TRUE(same_row(hidden, i, all_hidden, hidden_rows[index])) << i;
  }
}

// Feeds `count` tokens from `begin` of one sequence, without logits.
void prefill(Model& model, std::span<const int32_t> tokens, std::span<const int32_t> blocks) {
  std::vector<int32_t> positions(tokens.size());
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
  const SequenceSpan sequence{0, static_cast<int64_t>(tokens.size()), 0, blocks};
  model.forward({tokens, positions, {&sequence, 1}, {}}, Tensor());
}

TEST(Forward, AnswersASequenceAlikeAloneAndInABatch) {
  const auto backend = test::backend("cpu");
  const auto model = test::load(kGoldenPath, *backend, {Precision::kFast, KvDType::kInt8});
  const test::Expected expected = test::read_expected(kGoldenPath / "expected.safetensors");
  const std::span<const int32_t> tokens(expected.tokens);
  const FloatMatrix alone = test::run_in_chunks(*model, tokens, 64);

  // One sequence decodes its last token while another is prefilled.
  const std::vector<int32_t> first_blocks{7, 3}, second_blocks{4, 9};
  prefill(*model, tokens.first(39), first_blocks);
  std::vector<int32_t> batch_tokens{tokens[39]}, positions{39};
  for (int32_t i = 0; i < 20; ++i) {
    batch_tokens.push_back(tokens[static_cast<size_t>(i)]);
    positions.push_back(i);
  }
  const SequenceSpan sequences[] = {{0, 1, 39, first_blocks}, {1, 20, 0, second_blocks}};
  const std::vector<int32_t> wanted{0, 20};
  FloatMatrix logits(2, model->spec().vocabulary);
  model->forward({batch_tokens, positions, sequences, wanted}, logits.tensor());
  const size_t row_bytes = static_cast<size_t>(alone.columns()) * sizeof(float);
  EXPECT_EQ(std::memcmp(logits.row(0), alone.row(39), row_bytes), 0);
  EXPECT_EQ(std::memcmp(logits.row(1), alone.row(19), row_bytes), 0);
}

TEST(RunMixer, ShowsTheInputOfEveryLayerToAnObserver) {
  const auto backend = test::backend("ref");
  const auto checkpoint = Checkpoint::open(kGoldenPath).value();
  const ModelSpec spec = read_spec(*checkpoint).value();
  const auto read = [&](const LinearSpec& linear) { return checkpoint->weight(linear.name); };
  BlockScratch scratch(spec, 2);
  FloatMatrix input(2, spec.hidden);
  for (int64_t i = 0; i < 2 * spec.hidden; ++i) input.data()[i] = 0.01f * static_cast<float>(i);
  std::vector<std::string> seen;
  const auto watch = [&](const LinearSpec& linear, Tensor x) {
    seen.push_back(linear.name.substr(linear.name.rfind('.') + 1));
    EXPECT_EQ(x.rows(), 2);
    EXPECT_EQ(x.shape[1], linear.in);
  };
  LinearObserver observer = watch;

  const KvLayout layout{KvDType::kF32, 2, 16};
  Buffer cache(backend->kv_block_bytes(layout));
  const KvLayer kv{cache.data(), cache.bytes(), layout};
  const std::vector<int32_t> positions{0, 1}, blocks{0};
  const SequenceSpan sequence{0, 2, 0, blocks};
  const Step step{positions, {&sequence, 1}};
  for (size_t i = 0; i < 2; ++i) {
    const auto weights =
        load_block(spec.blocks[i], *checkpoint, read, *backend, Precision::kFloat32);
    ASSERT_TRUE(weights) << weights.error().message;
    const Tensor y =
        run_mixer(spec.blocks[i], *weights, *backend, kv, step, input.tensor(), scratch, &observer);
    EXPECT_EQ(y.rows(), 2);
    EXPECT_EQ(y.shape[1], spec.hidden);
  }
  EXPECT_THAT(seen, testing::ElementsAre("q_proj", "o_proj", "gate_proj", "down_proj"));
}

TEST(LoadBlock, RefusesAMatrixOfAnotherShapeFromItsSource) {
  const auto backend = test::backend("ref");
  const auto checkpoint = Checkpoint::open(kGoldenPath).value();
  const ModelSpec spec = read_spec(*checkpoint).value();
  const auto wrong = [&](const LinearSpec&) { return checkpoint->weight("lm_head"); };
  const auto block = load_block(spec.blocks[1], *checkpoint, wrong, *backend, Precision::kFast);
  ASSERT_FALSE(block);
  EXPECT_THAT(block.error().message,
              HasSubstr("gate_proj.weight has 128 rows and 64 columns; the configuration asks "
                        "for 96 and 64"));
}

}  // namespace
}  // namespace quern
