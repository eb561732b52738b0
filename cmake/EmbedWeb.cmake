# Embeds the files of web/ into quern_serve, so that the program serves its page from itself alone.
file(GLOB web_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/web/*)
set(web_source ${CMAKE_BINARY_DIR}/web_files.cc)
add_custom_command(OUTPUT ${web_source}
  COMMAND ${CMAKE_COMMAND} -DOUTPUT=${web_source} -DFOLDER=${CMAKE_SOURCE_DIR}/web
          -P ${CMAKE_SOURCE_DIR}/cmake/embed_files.cmake
  DEPENDS ${web_files} ${CMAKE_SOURCE_DIR}/cmake/embed_files.cmake VERBATIM)
target_sources(quern_serve PRIVATE ${web_source})
