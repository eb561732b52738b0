# What `cmake --install` puts where, and the Debian package that `scripts/package` makes of it.
include(GNUInstallDirs)

# Who answers for packages that are given to others: "NAME <ADDRESS>".
set(QUERN_MAINTAINER "The Quern authors <quern@localhost>" CACHE STRING "Maintainer field of packages")

set(generated ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${generated})
add_custom_command(
  OUTPUT ${generated}/quern.1 ${generated}/quern.bash ${generated}/_quern ${generated}/quern.fish
  COMMAND quern manual > ${generated}/quern.1
  COMMAND quern completion bash > ${generated}/quern.bash
  COMMAND quern completion zsh > ${generated}/_quern
  COMMAND quern completion fish > ${generated}/quern.fish
  DEPENDS quern VERBATIM)
string(TIMESTAMP quern_date "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(WRITE ${generated}/changelog
     "quern (${PROJECT_VERSION}) stable; urgency=medium\n\n  * Built from its sources.\n\n"
     " -- ${QUERN_MAINTAINER}  ${quern_date}\n")
add_custom_command(
  OUTPUT ${generated}/quern.1.gz ${generated}/changelog.gz
  COMMAND gzip -9nkf ${generated}/quern.1 ${generated}/changelog
  DEPENDS ${generated}/quern.1 VERBATIM)
add_custom_target(documents DEPENDS ${generated}/quern.1.gz ${generated}/changelog.gz)

install(TARGETS quern RUNTIME)
install(FILES ${generated}/quern.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${generated}/quern.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME quern)
install(FILES ${generated}/_quern DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${generated}/quern.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES deploy/quern.service DESTINATION /lib/systemd/system)
install(DIRECTORY data/hardware DESTINATION ${CMAKE_INSTALL_DATADIR}/quern)
install(FILES deploy/grafana.json DESTINATION ${CMAKE_INSTALL_DATADIR}/quern)
install(FILES README.md docs/serving.md docs/json.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES deploy/copyright ${generated}/changelog.gz DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME quern)
set(CPACK_PACKAGE_CONTACT "${QUERN_MAINTAINER}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "quantise, serve, measure and price open-weight language models")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "One program for operators of open-weight language models. It fetches a
 checkpoint, quantises it to INT4 with activation-aware scales and error
 feedback, shows what that cost in quality, serves it to clients of OpenAI's
 and Anthropic's interfaces, measures it beside the limits of the machine
 and prices its tokens.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3-pip, ca-certificates")  # `quern pull` of the catalogue
include(CPack)
