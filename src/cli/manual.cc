#include "cli/manual.h"

#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace quern {
namespace {

// Text that roff takes as it is: a backslash or a minus sign is escaped anywhere, a full stop or an
// apostrophe where it would begin a request.
std::string roff(std::string_view text) {
  std::string out;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
    line_begins = c == '\n';
  }
  return out;
}

// "-o, --output"
std::string flags(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  return fmt::format("{}", fmt::join(names, ", "));
}

void append_option(std::string& out, const CLI::Option& option) {
  const bool positional = flags(option).empty();
  out += fmt::format(".TP\n\\fB{}\\fR", roff(positional ? option.get_name(true) : flags(option)));
  if (option.get_items_expected_max() > 0 && !option.get_type_name().empty()) {
    out += fmt::format(" \\fI{}\\fR", roff(option.get_type_name()));
  }
  std::vector<std::string> sentences;
  if (!option.get_description().empty()) sentences.push_back(roff(option.get_description()));
  if (option.get_required()) sentences.push_back("Required");
  if (!option.get_default_str().empty()) {
    sentences.push_back(fmt::format("Default: {}", roff(option.get_default_str())));
  }
  if (!sentences.empty()) out += fmt::format("\n{}.", fmt::join(sentences, ". "));
  out += '\n';
}

bool shown(const CLI::App& command) { return !command.get_group().empty(); }

void append_command(std::string& out, const CLI::App& command) {
  out += fmt::format(".SS \"quern {}\"\n{}.\n", roff(command.get_name()),
                     roff(command.get_description()));
  for (const CLI::Option* option : command.get_options()) append_option(out, *option);
  if (const std::string footer = command.get_footer(); !footer.empty()) {
    out += fmt::format(".PP\n.nf\n{}\n.fi\n", roff(footer));
  }
}

constexpr std::string_view kEnd = R"(.SH ENVIRONMENT
.TP
\fBQUERN_MODELS\fR
Where fetched models are kept (default: $XDG_CACHE_HOME/quern/models, else ~/.cache/quern/models).
.TP
\fBHF_TOKEN\fR, \fBHF_ENDPOINT\fR
Token and server of \fBquern pull hf:ORG/NAME\fR.
.TP
\fBOPENAI_API_KEY\fR
The key of \fBquern load\fR.
.SH EXIT STATUS
.TP
\fB0\fR
The whole command did what it says.
.TP
\fB2\fR to \fB8\fR
Bad input: an argument, a file or a request that cannot be served.
.TP
\fB10\fR
A disk, the memory, the network or a child process failed.
.TP
\fB130\fR
Interrupted.
)";

}  // namespace

std::string manual_page(const CLI::App& app, const std::string& version) {
  std::string out = fmt::format(
      ".TH QUERN 1 \"\" \"quern {}\" \"User Commands\"\n.SH NAME\nquern \\- quantise, serve, "
      "measure "
      "and price open\\-weight language models\n.SH SYNOPSIS\n\\fBquern\\fR \\fICOMMAND\\fR "
      "[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n{}\nMODEL is a directory, a GGUF file, or a name that "
      "\\fBquern pull\\fR fetched. Tables go to standard output and progress to standard error; "
      "with \\fB\\-\\-json\\fR standard output is one JSON object.\n.SH COMMANDS\n",
      version, roff(app.get_description()));
  for (const CLI::App* command : app.get_subcommands([](const CLI::App* c) { return shown(*c); })) {
    append_command(out, *command);
  }
  out += kEnd;
  return out;
}

namespace {

// "fast", "float32" of "TEXT:{fast,float32}"; none when any value goes.
std::vector<std::string> choices(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t open = type.find('{');
  const size_t close = type.find('}', open);
  if (open == std::string::npos || close == std::string::npos) return {};
  return CLI::detail::split(type.substr(open + 1, close - open - 1), ',');
}

struct CommandWords {
  std::string name;
  std::string summary;
  std::vector<const CLI::Option*> options;  // without positionals
};

std::vector<CommandWords> command_words(const CLI::App& app) {
  std::vector<CommandWords> out;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App* c) { return shown(*c); })) {
    CommandWords words{.name = command->get_name(), .summary = command->get_description()};
    for (const CLI::Option* option : command->get_options()) {
      if (!flags(*option).empty()) words.options.push_back(option);
    }
    out.push_back(std::move(words));
  }
  return out;
}

std::vector<std::string> dashed(const CLI::Option& option) {
  return CLI::detail::split(flags(option), ',');
}

// In single quotes, for any of the shells.
std::string single_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string trimmed(std::string text) { return CLI::detail::trim(text); }

std::string bash_completion(const std::vector<CommandWords>& commands) {
  std::vector<std::string> names;
  std::string words;
  std::string values;
  for (const CommandWords& command : commands) {
    names.push_back(command.name);
    std::vector<std::string> all;
    for (const CLI::Option* option : command.options) {
      std::vector<std::string> own = dashed(*option);
      for (std::string& name : own) name = trimmed(name);
      all.insert(all.end(), own.begin(), own.end());
      if (const auto of = choices(*option); !of.empty()) {
        for (const std::string& name : own) {
          values +=
              fmt::format("    '{} {}') words='{}' ;;\n", command.name, name, fmt::join(of, " "));
        }
      }
    }
    words += fmt::format("    {}) words='{}' ;;\n", command.name, fmt::join(all, " "));
  }
  return fmt::format(R"(# bash completion for quern
_quern() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[1]}}" words=''
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W '{} --help --version' -- "$current")
    return
  fi
  case "$command $previous" in
{}  esac
  if [ -z "$words" ] && [[ "$current" == -* ]]; then
    case "$command" in
{}    esac
  fi
  if [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    return
  fi
  local store="${{QUERN_MODELS:-${{XDG_CACHE_HOME:-$HOME/.cache}}/quern/models}}"
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$current"; cd "$store" 2>/dev/null && compgen -d -- "$current")
}}
complete -F _quern quern
)",
                     fmt::join(names, " "), values, words);
}

// zsh's _arguments reads brackets and colons of its own.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_completion(const std::vector<CommandWords>& commands) {
  std::string names;
  std::string cases;
  for (const CommandWords& command : commands) {
    names += fmt::format("    {}\n", single_quoted(command.name + ":" + zsh_text(command.summary)));
    cases += fmt::format("    {})\n      _arguments", command.name);
    for (const CLI::Option* option : command.options) {
      const bool takes = option->get_items_expected_max() > 0;
      const std::vector<std::string> of = choices(*option);
      const std::string value = !takes       ? ""
                                : of.empty() ? ":value:_files"
                                             : fmt::format(":value:({})", fmt::join(of, " "));
      for (const std::string& name : dashed(*option)) {
        cases +=
            fmt::format(" \\\n        {}",
                        single_quoted(fmt::format("{}[{}]{}", trimmed(name),
                                                  zsh_text(option->get_description()), value)));
      }
    }
    cases += " \\\n        '*:model:_quern_models' ;;\n";
  }
  return fmt::format(R"(#compdef quern
_quern_models() {{
  local store="${{QUERN_MODELS:-${{XDG_CACHE_HOME:-$HOME/.cache}}/quern/models}}"
  compadd -- "$store"/*(N/:t)
  _files
}}
_quern() {{
  local -a commands
  commands=(
{})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command="${{words[2]}}"
  shift words
  (( CURRENT-- ))
  case "$command" in
{}  esac
}}
_quern "$@"
)",
                     names, cases);
}

std::string fish_completion(const std::vector<CommandWords>& commands) {
  std::string out = "# fish completion for quern\n";
  for (const CommandWords& command : commands) {
    out += fmt::format("complete -c quern -n __fish_use_subcommand -f -a {} -d {}\n", command.name,
                       single_quoted(command.summary));
    for (const CLI::Option* option : command.options) {
      out += fmt::format("complete -c quern -n '__fish_seen_subcommand_from {}'", command.name);
      for (const std::string& name : option->get_snames()) out += " -s " + name;
      for (const std::string& name : option->get_lnames()) out += " -l " + name;
      if (option->get_items_expected_max() > 0) out += " -r";
      if (const auto of = choices(*option); !of.empty()) {
        out += fmt::format(" -f -a {}", single_quoted(fmt::format("{}", fmt::join(of, " "))));
      }
      out += fmt::format(" -d {}\n", single_quoted(option->get_description()));
    }
  }
  return out;
}

}  // namespace

Result<std::string> completion_script(const CLI::App& app, const std::string& shell) {
  const std::vector<CommandWords> commands = command_words(app);
  if (shell == "bash") return bash_completion(commands);
  if (shell == "zsh") return zsh_completion(commands);
  if (shell == "fish") return fish_completion(commands);
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("completion for `{}`: known are bash, zsh and fish", shell)};
}

}  // namespace quern
