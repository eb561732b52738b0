# What `cmake --install` puts where, and the Debian package that `scripts/package` makes of it.
include(GNUInstallDirs)

set(generated ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${generated})
add_custom_command(
  OUTPUT ${generated}/quern.1 ${generated}/quern.bash ${generated}/_quern ${generated}/quern.fish
  COMMAND quern manual > ${generated}/quern.1
  COMMAND quern completion bash > ${generated}/quern.bash
  COMMAND quern completion zsh > ${generated}/_quern
  COMMAND quern completion fish > ${generated}/quern.fish
  DEPENDS quern VERBATIM)
add_custom_target(documents DEPENDS ${generated}/quern.1)

install(TARGETS quern RUNTIME)
install(FILES ${generated}/quern.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${generated}/quern.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME quern)
install(FILES ${generated}/_quern DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${generated}/quern.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES deploy/quern.service DESTINATION /lib/systemd/system)
install(DIRECTORY data/hardware DESTINATION ${CMAKE_INSTALL_DATADIR}/quern)
install(FILES deploy/grafana.json DESTINATION ${CMAKE_INSTALL_DATADIR}/quern)
install(FILES README.md docs/serving.md docs/json.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME quern)
set(CPACK_PACKAGE_CONTACT "The Quern authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "quantise, serve, measure and price open-weight language models")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3-pip, ca-certificates")  # `quern pull` of the catalogue
include(CPack)
