# What scripts/make-reference makes in the build folder of the documentation comments: help_texts, the module of sluice.help's texts,
# and luals/sluice.lua, annotations for the Lua language server.
set(help_texts ${CMAKE_BINARY_DIR}/generated/lua/sluice/help_texts.lua)
set(luals_file ${CMAKE_BINARY_DIR}/luals/sluice.lua)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/generated/lua/sluice ${CMAKE_BINARY_DIR}/luals)
file(GLOB reference_scripts CONFIGURE_DEPENDS scripts/reference/*.lua)
add_custom_command(
  OUTPUT ${help_texts} ${luals_file}
  COMMAND ${LUA_PROGRAM} ${CMAKE_SOURCE_DIR}/scripts/make-reference --help-texts ${help_texts} --annotations ${luals_file}
  DEPENDS ${binding_sources} ${program_sources} ${lua_sources} core/ops/ops.h core/ops/ops.def scripts/make-reference ${reference_scripts}
  COMMENT "Making help texts and annotations of the documentation comments")

include(GNUInstallDirs)
install(FILES ${luals_file} DESTINATION ${CMAKE_INSTALL_DATADIR}/sluice/luals)
