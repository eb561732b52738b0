// The files of web/, which the build embeds.
#pragma once

#include <span>
#include <string_view>

namespace quern {

struct WebFile {
  std::string_view path;  // "/" + name
  std::string_view content_type;
  std::string_view content;
};

// All of them. cmake/EmbedWeb.cmake writes the source.
std::span<const WebFile> web_files();

// The file at `path`, index.html at "/"; nullptr when there is none.
inline const WebFile* find_web_file(std::string_view path) {
  if (path == "/") path = "/index.html";
  for (const WebFile& file : web_files()) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

}  // namespace quern
