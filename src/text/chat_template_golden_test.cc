// Renderings equal to Jinja2's: tools/make_chat_template_goldens.py makes the expected ones.
#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "base/file.h"
#include "text/chat_template.h"

namespace quern {
namespace {

const std::filesystem::path kGolden =
    std::filesystem::path(QUERN_SOURCE_DIR) / "tests" / "golden" / "chat_template";

constexpr uint64_t kMaxGoldenBytes = uint64_t{256} << 20;

std::string contents(const std::filesystem::path& path) {
  Result<std::string> text = read_file(path, kMaxGoldenBytes);
  EXPECT_TRUE(text) << (text ? "" : text.error().message);
  return text ? *text : "";
}

OrderedJson read_json(const std::filesystem::path& path) {
  return OrderedJson::parse(contents(path), nullptr, false);
}

// Thursday, 4 July 2024, 15:07:09, the generator's clock.
std::tm golden_time() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 4;
  time.tm_hour = 15;
  time.tm_min = 7;
  time.tm_sec = 9;
  time.tm_wday = 4;
  time.tm_yday = 185;
  return time;
}

ChatTemplateInput input_of(const OrderedJson& test, const OrderedJson& variables) {
  ChatTemplateInput input;
  input.messages = test.value("messages", OrderedJson::array());
  input.tools = test.value("tools", OrderedJson(nullptr));
  input.add_generation_prompt = test.value("add_generation_prompt", false);
  input.variables = test.value("variables", variables);
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  input.now = golden_time();
  return input;
}

Result<std::string> rendered(const std::string& source, const ChatTemplateInput& input) {
  const ChatTemplate parsed = QUERN_TRY(ChatTemplate::parse(source));
  return concatenate(QUERN_TRY(parsed.render(input)));
}

// Renders every case of `golden`; files named by a case lie in `folder`.
void expect_equal(const OrderedJson& golden, const std::filesystem::path& folder) {
  ASSERT_TRUE(golden.is_object());
  const OrderedJson variables = golden.value("variables", OrderedJson::object());
  ASSERT_GT(golden["cases"].size(), 0u);
  for (const OrderedJson& test : golden["cases"]) {
    const std::string source = test.contains("file")
                                   ? contents(folder / test["file"].get<std::string>())
                                   : test["template"].get<std::string>();
    SCOPED_TRACE(test["name"].get<std::string>() + ": " + source.substr(0, 200));
    const Result<std::string> text = rendered(source, input_of(test, variables));
    if (!test.contains("output")) {
      EXPECT_FALSE(text) << "Jinja2 refuses this, Quern renders: " << *text;
      if (text) continue;
      EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
      EXPECT_NE(text.error().message.find("chat template line "), std::string::npos);
      continue;
    }
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(*text, test["output"].get<std::string>());
  }
}

TEST(ChatTemplateGolden, EveryConstructRendersAsInJinja2) {
  expect_equal(read_json(kGolden / "constructs.json"), kGolden);
}

TEST(ChatTemplateGolden, TemplatesOfTheFamiliesRenderAsInJinja2) {
  expect_equal(read_json(kGolden / "families.json"), kGolden / "families");
}

// Published templates are their publishers' and stay out of the repository. A folder of *.jinja
// files with the expected.json that the generator makes of it is compared when the variable names
// one.
TEST(ChatTemplateGolden, PublishedTemplatesRenderAsInJinja2) {
  const char* folder = std::getenv("QUERN_CHAT_TEMPLATES");
  if (folder == nullptr) GTEST_SKIP() << "QUERN_CHAT_TEMPLATES names no folder";
  expect_equal(read_json(std::filesystem::path(folder) / "expected.json"), folder);
}

}  // namespace
}  // namespace quern
