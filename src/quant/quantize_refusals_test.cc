#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "quant/quantize.h"
#include "quant/test_quantize.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_writer.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using namespace test;

TEST(QuantizeRefusals, RefusesOptionsItDoesNotKnow) {
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

TEST(QuantizeRefusals, RefusesCalibrationItCannotUse) {
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

TEST(QuantizeRefusals, RefusesOutputsAndWorkThatHoldOtherThings) {
  const Scratch scratch;
  fs::create_directories(scratch / "o");
  write_file(scratch / "o" / "mine", "x");
  EXPECT_NE(failure(golden("llama"), options_for("rtn", scratch / "o")).find("exists already"),
            std::string::npos);
  QuantizeOptions options = options_for("rtn", scratch / "p");
  options.work_directory = scratch / "o";
  EXPECT_NE(failure(golden("llama"), options).find("no work directory"), std::string::npos);
  EXPECT_TRUE(fs::exists(scratch / "o" / "mine"));
  // Names that merely look like those of a work directory belong to somebody else.
  for (const char* name : {"block-diagram", "block-00001", "job.json.bak"}) {
    options.work_directory = scratch / (std::string("w-") + name);
    fs::create_directories(options.work_directory);
    write_file(options.work_directory / name, "x");
    EXPECT_NE(failure(golden("llama"), options).find("no work directory"), std::string::npos);
    EXPECT_TRUE(fs::exists(options.work_directory / name)) << name;
  }
}

TEST(QuantizeRefusals, RefusesACheckpointThatIsQuantisedAlready) {
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

TEST(QuantizeRefusals, RefusesWeightsThatAreNoNumbersOrTooLarge) {
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

}  // namespace
}  // namespace quern
