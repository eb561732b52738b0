# Writes OUTPUT: the files of FOLDER as the table of src/serve/server_web.h.
set(types_html "text/html; charset=utf-8")
set(types_css "text/css; charset=utf-8")
set(types_js "text/javascript; charset=utf-8")
set(types_svg "image/svg+xml")

file(GLOB files ${FOLDER}/*)
list(SORT files)
set(rows "")
foreach(file IN LISTS files)
  get_filename_component(name "${file}" NAME)
  string(REGEX REPLACE "^.*\\." "" extension "${name}")
  if(NOT DEFINED types_${extension})
    message(FATAL_ERROR "${file}: no content type is known for .${extension}")
  endif()
  file(READ "${file}" hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" literal "${hex}")
  string(REPLACE "\n" "\"\n     \"" literal "${literal}")
  file(SIZE "${file}" bytes)
  string(APPEND rows "    {\"/${name}\", \"${types_${extension}}\",\n"
                     "     std::string_view(\"${literal}\", ${bytes})},\n")
endforeach()
file(WRITE "${OUTPUT}" "#include \"serve/server_web.h\"

namespace quern {
namespace {

constexpr WebFile kFiles[] = {
${rows}};

}  // namespace

std::span<const WebFile> web_files() { return kFiles; }

}  // namespace quern
")
