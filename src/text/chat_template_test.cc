#include "text/chat_template.h"

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/random.h"

namespace quern {
namespace {

using ::testing::HasSubstr;

ChatTemplateInput conversation(const std::string& content) {
  ChatTemplateInput input;
  input.messages = {{{"role", "user"}, {"content", content}}};
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  return input;
}

Result<std::vector<TemplateSegment>> render(const std::string& source,
                                            const ChatTemplateInput& input,
                                            ChatTemplateLimits limits = {}) {
  const ChatTemplate parsed = QUERN_TRY(ChatTemplate::parse(source, limits));
  return parsed.render(input);
}

std::string error_of(const std::string& source, ChatTemplateLimits limits = {}) {
  const auto segments = render(source, conversation("abc"), limits);
  if (segments) return "no error, but: " + concatenate(*segments);
  EXPECT_EQ(segments.error().code, ErrorCode::kInvalidArgument);
  return segments.error().message;
}

// The rendering with the caller's text in square brackets.
std::string bracketed(const std::string& source, const std::string& content) {
  const auto segments = render(source, conversation(content));
  if (!segments) return segments.error().message;
  std::string text;
  for (const TemplateSegment& segment : *segments) {
    text += segment.origin == TextOrigin::kMessage ? "[" + segment.text + "]" : segment.text;
  }
  return text;
}

TEST(ChatTemplate, KeepsTheCallersTextApart) {
  const auto segments = render("{{ bos_token }}<u>{{ messages[0].content }}</u>{{ eos_token }}",
                               conversation("<s> hi </u>"));
  ASSERT_TRUE(segments);
  const std::vector<TemplateSegment> expected = {{"<s><u>", TextOrigin::kTemplate},
                                                 {"<s> hi </u>", TextOrigin::kMessage},
                                                 {"</u></s>", TextOrigin::kTemplate}};
  EXPECT_EQ(*segments, expected);
}

TEST(ChatTemplate, MarksSurviveEveryOperationOnText) {
  const std::string c = "messages[0].content";
  const std::pair<std::string, std::string> cases[] = {
      {"{{ 'a' + " + c + " ~ 'b' }}", "a[Xy z]b"},
      {"{{ ('<' ~ " + c + " ~ '>')[0:3] }}", "<[Xy]"},
      {"{{ ('<' ~ " + c + " ~ '>')[::-1] }}", ">[z yX]<"},
      {"{{ ('<' ~ " + c + ")[1] }}|{{ " + c + "[-1] }}", "[X]|[z]"},
      {"{{ ' ' ~ " + c + " | trim }}{{ (' ' ~ " + c + " ~ ' ').strip() }}", " [Xy zXy z]"},
      {"{{ " + c + ".replace('y', '-') }}", "[X]-[ z]"},
      {"{{ 'a-b'.replace('-', " + c + ") }}", "a[Xy z]b"},
      {"{{ 'a-b' | replace('-', " + c + ") }}", "a[Xy z]b"},
      {"{{ " + c + " | upper }}{{ " + c + ".lower() }}{{ " + c + " | title }}", "[XY Zxy zXy Z]"},
      {"{{ " + c + ".split(' ') | join('+') }}", "[Xy]+[z]"},
      {"{{ ['a', " + c + "] | join(',') }}{{ '-'.join([" + c + ", 'b']) }}", "a,[Xy zXy z]-b"},
      {"{{ " + c + " | tojson }}", "\"[Xy z]\""},
      {"{{ messages | tojson }}", "[{\"[role]\": \"[user]\", \"[content]\": \"[Xy z]\"}]"},
      {"{{ messages[0] }}", "{'[role]': '[user]', '[content]': '[Xy z]'}"},
      {"{{ '%s!' % " + c + " }}{{ '{}?'.format(" + c + ") }}", "[Xy z]![Xy z]?"},
      {"{{ " + c + " | indent(2, true) }}", "  [Xy z]"},
      {"{{ " + c + " * 2 }}", "[Xy zXy z]"},
      {"{{ " + c + " | reverse }}{{ " + c + " | list | last }}", "[z yXz]"},
      {"{{ " + c + " | escape }}{{ " + c + " | string }}", "[Xy zXy z]"},
      {"{% set x %}<{{ " + c + " }}>{% endset %}{{ x }}", "<[Xy z]>"},
      {"{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(" + c + ") }}", "<[Xy z]>"},
      {"{% filter upper %}a{{ " + c + " }}{% endfilter %}", "A[XY Z]"},
      {"{% for c in " + c + " %}{{ c }},{% endfor %}", "[X],[y],[ ],[z],"},
      {"{{ {" + c + ": 1} }}", "{'[Xy z]': 1}"},
      {"{{ " + c + ".partition(' ')[2] }}{{ " + c + ".removeprefix('X') }}", "[zy z]"},
      {"{{ (" + c + " ~ '..').center(12, '*') }}", "***[Xy z]..***"},
      {"{{ messages | map(attribute='content') | first }}", "[Xy z]"},
      {"{{ " + c + " | length }}{{ " + c + " == 'Xy z' }}", "4True"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_EQ(bracketed(source, "Xy z"), expected) << source;
  }
}

TEST(ChatTemplate, EscapesOfTheCallersTextStayTheCallers) {
  EXPECT_EQ(bracketed("{{ messages[0].content | tojson }}", "\"\n"), "\"[\\\"\\n]\"");
  EXPECT_EQ(bracketed("{{ messages[0].content | e }}", "<"), "[&lt;]");
  EXPECT_EQ(bracketed("{{ [messages[0].content] }}", "\n"), "['[\\n]']");
}

TEST(ChatTemplate, VariablesAndToolsAreTheCallersToo) {
  ChatTemplateInput input = conversation("x");
  input.variables = {{"style", "<b>"}};
  input.tools = {{{"name", "<t>"}}};
  input.documents = {"<d>"};
  const auto segments = render("{{ style }}-{{ tools[0].name }}-{{ documents[0] }}", input);
  ASSERT_TRUE(segments);
  const std::vector<TemplateSegment> expected = {{"<b>", TextOrigin::kMessage},
                                                 {"-", TextOrigin::kTemplate},
                                                 {"<t>", TextOrigin::kMessage},
                                                 {"-", TextOrigin::kTemplate},
                                                 {"<d>", TextOrigin::kMessage}};
  EXPECT_EQ(*segments, expected);
}

// A text of letters that no template writes (private use), with `filling` between them.
std::string random_content(uint64_t seed,
                           uint64_t stream,
                           const std::vector<std::string>& filling) {
  std::string text;
  const uint64_t pieces = 1 + random_bits(seed, stream, 0) % 6;
  for (uint64_t i = 0; i < pieces; ++i) {
    text += "\uE000\uE001";
    text += filling[random_bits(seed, stream, 1 + i) % filling.size()];
    text += "\uE002";
  }
  return text;
}

OrderedJson random_messages(uint64_t seed, const std::vector<std::string>& filling) {
  OrderedJson messages = OrderedJson::array();
  const uint64_t turns = 1 + random_bits(seed, 99, 0) % 4;
  for (uint64_t i = 0; i < turns; ++i) {
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"},
                        {"content", random_content(seed, i, filling)}});
  }
  return messages;
}

std::vector<std::string> template_texts(const std::vector<TemplateSegment>& segments) {
  std::vector<std::string> texts;
  for (const TemplateSegment& segment : segments) {
    if (segment.origin == TextOrigin::kTemplate) texts.push_back(segment.text);
  }
  return texts;
}

TEST(ChatTemplate, SpecialTokensInMessagesNeverReachTheTemplatesText) {
  const std::vector<std::string> hostile = {
      "<|im_end|>",  "<s>",     "</s>",    "<|eot_id|>",    "<|start|>",
      "[INST]",      "[/INST]", "<|end|>", "<end_of_turn>", "<\xEF\xBD\x9CUser\xEF\xBD\x9C>",
      "<SPECIAL_11>"};
  const std::vector<std::string> benign(hostile.size(), "x");
  const std::filesystem::path folder =
      std::filesystem::path(QUERN_SOURCE_DIR) / "tests" / "golden" / "chat_template" / "families";
  int rendered = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto source = read_file(entry.path(), 1 << 20);
    ASSERT_TRUE(source);
    const auto parsed = ChatTemplate::parse(*source);
    ASSERT_TRUE(parsed) << parsed.error().message;
    for (uint64_t seed = 0; seed < 50; ++seed) {
      SCOPED_TRACE(entry.path().filename().string() + ", seed " + std::to_string(seed));
      ChatTemplateInput input = conversation("");
      input.add_generation_prompt = true;
      input.messages = random_messages(seed, hostile);
      const auto attacked = parsed->render(input);
      input.messages = random_messages(seed, benign);
      const auto peaceful = parsed->render(input);
      ASSERT_TRUE(attacked) << attacked.error().message;
      ASSERT_TRUE(peaceful) << peaceful.error().message;
      EXPECT_EQ(template_texts(*attacked), template_texts(*peaceful));
      for (const std::string& text : template_texts(*attacked)) {
        EXPECT_EQ(text.find("\xEE\x80"), std::string::npos) << text;  // U+E000 and its neighbours
      }
      ++rendered;
    }
  }
  EXPECT_GE(rendered, 500);
}

TEST(ChatTemplate, ErrorsNameLineAndColumn) {
  EXPECT_THAT(error_of("a\nbc{{ 1 + }}"), HasSubstr("chat template line 2 column 10: "));
  EXPECT_THAT(error_of("a\n\xC3\xA4{% nope %}"), HasSubstr("line 2 column 5: unknown tag 'nope'"));
  EXPECT_THAT(error_of("{% if x %}"), HasSubstr("the end of the template"));
  EXPECT_THAT(error_of("\n\n{{ messages.x.y }}"), HasSubstr("chat template line 3: "));
  EXPECT_THAT(error_of("{{ raise_exception('only one system turn') }}"),
              HasSubstr("the template refuses: only one system turn"));
  EXPECT_THAT(error_of("{{ x|nope }}"), HasSubstr("no filter is named 'nope'"));
  EXPECT_THAT(error_of("{{ x is nope }}"), HasSubstr("no test is named 'nope'"));
  EXPECT_THAT(error_of("{{ '\xFF' }}"), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(error_of("{{ 99999999999999999999 }}"), HasSubstr("does not fit 64 bits"));
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("does not fit 64 bits"));
  EXPECT_THAT(error_of("{{ '%d%d' % 1 }}"), HasSubstr("fewer values than conversions"));
  EXPECT_THAT(error_of("{{ '%99999d' % 1 }}"), HasSubstr("larger than 4096"));
  EXPECT_THAT(error_of("{{ strftime_now('%Q') }}"), HasSubstr("unknown conversion '%Q'"));
}

TEST(ChatTemplate, RefusesInputThatItCannotShow) {
  ChatTemplateInput input = conversation("\xFF");
  auto segments = render("{{ messages }}", input);
  ASSERT_FALSE(segments);
  EXPECT_THAT(segments.error().message, HasSubstr("messages: a text is not valid UTF-8"));
  input = conversation("x");
  input.variables = OrderedJson::array();
  segments = render("", input);
  ASSERT_FALSE(segments);
  EXPECT_THAT(segments.error().message, HasSubstr("not a JSON object"));
  input = conversation("x");
  input.tools = OrderedJson::binary({1, 2});
  segments = render("", input);
  ASSERT_FALSE(segments);
  EXPECT_THAT(segments.error().message, HasSubstr("tools: binary"));
}

TEST(ChatTemplate, StopsAtItsLimits) {
  const std::string steps = "steps";
  const std::string memory = "bytes of memory";
  const std::string depth = "levels";
  const std::pair<std::string, std::string> cases[] = {
      {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", steps},
      {"{{ 'a' * 10**9 }}", memory},
      {"{{ 'ab' * 10**18 }}", memory},
      {"{{ [1] * 10**9 }}", steps},
      {"{{ [1] * 10**18 }}", steps},
      {"{{ '' * 10**18 ~ [] * 10**18 }}{{ x.y }}", "'x' is undefined"},
      {"{% set ns = namespace(s='abcdefgh') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}"
       "{% endfor %}",
       "its limit of"},
      {"{% set ns = namespace(s='abcdefgh') %}{% for i in range(60) %}{% set ns.s = ns.s * 3 %}"
       "{% endfor %}",
       "its limit of"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", depth},
      {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", depth},
      {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}"
       "{{ ns.x }}",
       depth},
      {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}"
       "{{ ns.x | tojson }}",
       depth},
      {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}"
       "{{ ns.x == [ns.x] }}",
       depth},
      {"{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", depth},
      {"{% macro m(n) %}{% for i in range(1000) %}{{ 'a' * 10000 }}{% endfor %}{{ m(n + 1) }}"
       "{% endmacro %}{{ m(0) }}",
       "limit of"},
      {"{% set s = 'a b c d ' * 300000 %}{{ s.split() | length }}", memory},
      {"{% set s = 'a b c d ' * 300000 %}{{ s.split(' ') | length }}", memory},
      {"{% set s = 'a b c d ' * 300000 %}{{ s.rsplit(' ') | length }}", memory},
      {"{% for i in range(100) %}{% set x = [[2, 1]] * 20000 %}{{ (x | sort)[0] }}{% endfor %}",
       "limit of"},
      {"{{ ([1] * 1500000) | sort | length }}", "limit of"},
      {"{{ range(100001) }}", "limit of 100000 elements"},
      {"{{ range(-9223372036854775807, 9223372036854775807) }}", "limit of 100000 elements"},
      {"{% for i in range(100000) %}{{ 'a' * 100000 }}{% endfor %}", "limit of"},
      {"{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x.count('b') }}{% endfor %}",
       steps},
      {"{% set x = ('a' * 100000) %}{% set y = 'b' ~ 'a' * 50000 %}{% for i in range(100000) %}"
       "{{ x.rfind(y) }}{% endfor %}",
       steps},
      {"{{ range(100000) | batch(1, 'x') | map('batch', 100000, 'x') | list }}", "limit of"},
  };
  ChatTemplateLimits limits;
  limits.steps = 2'000'000;
  limits.memory_bytes = int64_t{64} << 20;
  for (const auto& [source, expected] : cases) {
    EXPECT_THAT(error_of(source, limits), HasSubstr(expected)) << source;
  }
}

TEST(ChatTemplate, LimitsAreTheCallersToSet) {
  ChatTemplateLimits limits;
  limits.template_bytes = 3;
  EXPECT_THAT(error_of("abcd", limits), HasSubstr("has 4 bytes, at most 3"));
  limits = {};
  limits.output_bytes = 3;
  EXPECT_THAT(error_of("abcd", limits), HasSubstr("its limit of 3 bytes"));
  EXPECT_THAT(error_of("{{ 'ab' }}{{ 'cd' }}", limits), HasSubstr("its limit of 3 bytes"));
  limits = {};
  limits.steps = 10;
  EXPECT_THAT(error_of("{{ 1+1+1+1+1+1+1+1 }}", limits), HasSubstr("its limit of 10 steps"));
  limits = {};
  limits.depth = 5;
  EXPECT_THAT(error_of("{{ ((1+1)*2+1)*2+(1*(2+(1))) }}", limits), HasSubstr("limit of 5 levels"));
}

TEST(ChatTemplate, RefusesDeepSyntax) {
  const auto repeated = [](const std::string& text, int count) {
    std::string result;
    for (int i = 0; i < count; ++i) result += text;
    return result;
  };
  const std::string deep = "nested too deeply";
  EXPECT_THAT(error_of("{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}"),
              HasSubstr(deep));
  EXPECT_THAT(error_of("{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}"), HasSubstr(deep));
  EXPECT_THAT(error_of("{{ " + repeated("{1:", 5000) + "1" + repeated("}", 5000) + " }}"),
              HasSubstr(deep));
  EXPECT_THAT(error_of("{{ " + repeated("-", 5000) + "1 }}"), HasSubstr(deep));
  EXPECT_THAT(error_of("{{ " + repeated("not ", 5000) + "1 }}"), HasSubstr(deep));
  EXPECT_THAT(error_of("{{ 1" + repeated(" + 1", 5000) + " }}"), HasSubstr(deep));
  EXPECT_THAT(error_of("{{ 1" + repeated(" if 1 else 1", 5000) + " }}"), HasSubstr(deep));
  EXPECT_THAT(error_of("{{ a" + repeated(".a", 5000) + " }}"), HasSubstr(deep));
  EXPECT_THAT(error_of("{{ a" + repeated("|e", 5000) + " }}"), HasSubstr(deep));
  EXPECT_THAT(error_of("{{ a" + repeated("()", 5000) + " }}"), HasSubstr(deep));
  EXPECT_THAT(error_of(repeated("{% if 1 %}", 5000)), HasSubstr(deep));
  EXPECT_THAT(error_of("{% for " + repeated("(", 5000) + "a" + repeated(")", 5000) + " in x %}"),
              HasSubstr(deep));
}

TEST(ChatTemplate, LongLoopsOfOrdinaryWorkStayWithinTheLimits) {
  ChatTemplateInput input = conversation("");
  input.messages = OrderedJson::array();
  for (int i = 0; i < 2000; ++i) {
    input.messages.push_back({{"role", "user"}, {"content", std::string(500, 'x')}});
  }
  const auto segments = render(
      "{% for m in messages %}<u>{{ m.role + '\\n' + m.content | trim }}</u>{% endfor %}", input);
  ASSERT_TRUE(segments) << segments.error().message;
  EXPECT_EQ(concatenate(*segments).size(), 2000u * (3 + 4 + 1 + 500 + 4));
}

TEST(ChatTemplate, ObjectsKeepTheOrderOfTheirKeys) {
  const auto messages = parse_ordered_json(R"([{"z": 1, "a": {"y": 2, "b": 3}}])", "test");
  ASSERT_TRUE(messages);
  ChatTemplateInput input;
  input.messages = *messages;
  const auto segments = render("{{ messages[0] | tojson }}", input);
  ASSERT_TRUE(segments);
  EXPECT_EQ(concatenate(*segments), R"({"z": 1, "a": {"y": 2, "b": 3}})");
}

TEST(ChatTemplate, OrderedJsonRefusesWhatWouldBeSlow) {
  EXPECT_FALSE(parse_ordered_json("{", "body"));
  std::string text = "[{";
  for (int i = 0; i < 5000; ++i) text += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":1";
  const auto parsed = parse_ordered_json(text + "}]", "body");
  ASSERT_FALSE(parsed);
  EXPECT_THAT(parsed.error().message, HasSubstr("body: an object has more than 4096 keys"));
}

TEST(ChatTemplateSource, ReadsOneTemplateOrOneOfMany) {
  auto text = chat_template_from_tokenizer_config(R"({"chat_template": "abc"})");
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, "abc");
  const std::string many = R"({"chat_template": [{"name": "default", "template": "d"},
                                                 {"name": "tool_use", "template": "t"}]})";
  EXPECT_EQ(chat_template_from_tokenizer_config(many).value(), "d");
  EXPECT_EQ(chat_template_from_tokenizer_config(many, "tool_use").value(), "t");
  text = chat_template_from_tokenizer_config(many, "rag");
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(text.error().message, HasSubstr("'rag' (there are: default, tool_use)"));
}

TEST(ChatTemplateSource, RefusesOtherShapes) {
  EXPECT_EQ(chat_template_from_tokenizer_config("{}").error().code, ErrorCode::kNotFound);
  const std::pair<std::string, std::string> cases[] = {
      {"{", "not valid JSON"},
      {"[]", "expected an object"},
      {R"({"chat_template": 5})", "expected a string"},
      {R"({"chat_template": ["x"]})", "expected a list of objects"},
      {R"({"chat_template": [{"name": "default", "template": 1}]})", "expected a string"},
  };
  for (const auto& [config, expected] : cases) {
    const auto text = chat_template_from_tokenizer_config(config);
    ASSERT_FALSE(text);
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(text.error().message, HasSubstr(expected));
  }
}

TEST(ChatTemplateSource, PrefersTheFileOfItsOwn) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "quern_chat_template_source";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto nothing = read_chat_template(folder.string());
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code, ErrorCode::kNotFound);
  write_file(folder / "tokenizer_config.json", R"({"chat_template": "from config"})");
  EXPECT_EQ(read_chat_template(folder.string()).value(), "from config");
  write_file(folder / "chat_template.json", R"({"chat_template": "from json"})");
  EXPECT_EQ(read_chat_template(folder.string()).value(), "from json");
  write_file(folder / "chat_template.jinja", "from jinja");
  EXPECT_EQ(read_chat_template(folder.string()).value(), "from jinja");
  std::filesystem::remove(folder / "chat_template.jinja");
  write_file(folder / "chat_template.json", "{");
  EXPECT_EQ(read_chat_template(folder.string()).error().code, ErrorCode::kInvalidArgument);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace quern
