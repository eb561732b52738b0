#include "cli/manual.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;
using testing::Not;

class Manual : public testing::Test {
 protected:
  Manual() {
    CLI::App* grind = app_.add_subcommand("grind", "Turn grain to flour");
    grind->add_option("-s,--stone", stone_, "Which stone's \\ work")
        ->check(CLI::IsMember({"upper", "nether"}));
    grind->add_option("grain", grain_, "What to grind")->required();
    grind->add_flag("--fine", "Twice [over]: it takes longer");
    app_.add_subcommand("hidden", "Not for people")->group("");
  }

  CLI::App app_{"A mill."};
  std::string stone_;
  std::string grain_;
};

TEST_F(Manual, PageHasEveryShownCommandAndOption) {
  const std::string page = manual_page(app_, "1.2");
  EXPECT_THAT(page, HasSubstr(".TH QUERN 1 \"\" \"quern 1.2\""));
  EXPECT_THAT(page, HasSubstr(".SS \"quern grind\"\nTurn grain to flour.\n"));
  EXPECT_THAT(page, HasSubstr("\\fB\\-s, \\-\\-stone\\fR \\fITEXT:{upper,nether}\\fR\n"));
  EXPECT_THAT(page, HasSubstr("\\fBgrain\\fR \\fITEXT\\fR\nWhat to grind. Required.\n"));
  EXPECT_THAT(page, HasSubstr("\\fB\\-\\-fine\\fR\n"));
  EXPECT_THAT(page, Not(HasSubstr("hidden")));
}

TEST_F(Manual, PageEscapesWhatRoffWouldRead) {
  EXPECT_THAT(manual_page(app_, "1"), HasSubstr("Which stone's \\e work"));
  app_.add_subcommand("dots", ".TH is no request here");
  EXPECT_THAT(manual_page(app_, "1"), HasSubstr("\n\\&.TH is no request here"));
}

TEST_F(Manual, AnOptionWithoutWordsBeginsNoRequest) {
  CLI::App* silent = app_.add_subcommand("silent", "Says little");
  silent->add_option("--stone", stone_, "")->default_str("upper");
  silent->add_option("--grain", grain_, "");
  const std::string page = manual_page(app_, "1");
  EXPECT_THAT(page, HasSubstr("\nDefault: upper.\n"));
  EXPECT_THAT(page, Not(HasSubstr("\n.\n")));
  EXPECT_THAT(page, Not(HasSubstr("\n. ")));
}

TEST_F(Manual, CompletionKnowsCommandsOptionsAndValues) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Result<std::string> script = completion_script(app_, shell);
    ASSERT_TRUE(script.has_value());
    EXPECT_THAT(*script, HasSubstr("grind")) << shell;
    EXPECT_THAT(*script, HasSubstr("stone")) << shell;
    EXPECT_THAT(*script, HasSubstr("upper nether")) << shell;
    EXPECT_THAT(*script, Not(HasSubstr("hidden"))) << shell;
  }
  EXPECT_THAT(*completion_script(app_, "zsh"), HasSubstr("[Twice \\[over\\]\\: it takes longer]"));
  EXPECT_THAT(*completion_script(app_, "fish"), HasSubstr("-s s -l stone -r -f"));
}

TEST_F(Manual, AnUnknownShellIsNamed) {
  const Result<std::string> script = completion_script(app_, "csh");
  ASSERT_FALSE(script.has_value());
  EXPECT_EQ(script.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(script.error().message, HasSubstr("`csh`"));
}

}  // namespace
}  // namespace quern
