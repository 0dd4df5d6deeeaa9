# What is installed, and which symbols the libraries show.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(SLUICE_INSTALL_LUADIR lib/lua/${LUA54_VERSION_SHORT} CACHE STRING "Where the Lua module goes, below the prefix")
# Libraries outside the system's folders, and a sanitizer's
set_target_properties(sluice sluice_shared sluice_module PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON INSTALL_RPATH "${asan_folder}")

# The shared library shows what the public headers declare, and nothing else.
file(GLOB public_headers CONFIGURE_DEPENDS core/sluice/*.h)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${public_headers})
set(public_names "")
foreach(header IN LISTS public_headers)
  file(READ ${header} text)
  string(REGEX MATCHALL "sl_[a-z0-9_]+\\(" names "${text}")
  list(APPEND public_names ${names})
endforeach()
list(REMOVE_DUPLICATES public_names)
list(SORT public_names)
string(REPLACE ";" "" text "${public_names}")
string(REPLACE "(" ";\n  " text "${text}")
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/libsluice.map CONTENT "{\nglobal:\n  @text@\nlocal:\n  *;\n};\n" @ONLY)
target_link_options(sluice_shared PRIVATE LINKER:--version-script=${CMAKE_BINARY_DIR}/generated/libsluice.map)
set_property(TARGET sluice_shared APPEND PROPERTY LINK_DEPENDS ${CMAKE_BINARY_DIR}/generated/libsluice.map)
target_link_options(sluice_module PRIVATE LINKER:--version-script=${CMAKE_SOURCE_DIR}/cmake/module.map)
set_property(TARGET sluice_module APPEND PROPERTY LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/module.map)

install(TARGETS sluice sluice_shared sluice_core
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS sluice_module LIBRARY DESTINATION ${SLUICE_INSTALL_LUADIR})
install(FILES core/sluice.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/sluice)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES models/digits.safetensors models/README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/sluice/models)
install(DIRECTORY recipes data DESTINATION ${CMAKE_INSTALL_DATADIR}/sluice)

# --- for those who build against it ---

# What libsluice.a needs beside it; libsluice.so brings its own.
set(sluice_requires libpng zlib libcjson libarchive libjpeg libzstd)
set(sluice_private_libs -ldnnl)
get_filename_component(dnnl_folder ${DNNL_LIBRARY} DIRECTORY)
if(NOT dnnl_folder IN_LIST CMAKE_C_IMPLICIT_LINK_DIRECTORIES)
  list(PREPEND sluice_private_libs -L${dnnl_folder})
endif()
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  list(APPEND sluice_private_libs -lgomp)
else()
  list(APPEND sluice_private_libs ${OpenMP_omp_LIBRARY})
endif()
list(APPEND sluice_private_libs -lpthread -ldl -lm)
set(sluice_both_libs "") # a sanitized library asks the same of its host
if(SLUICE_SANITIZE)
  set(sluice_both_libs -fsanitize=address,undefined)
  if(CMAKE_C_COMPILER_ID MATCHES Clang)
    list(APPEND sluice_both_libs -shared-libasan -Wl,-rpath,${asan_folder})
  endif()
endif()

file(RELATIVE_PATH prefix_of_pc ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" prefix_of_pc ${prefix_of_pc})
foreach(variable sluice_requires sluice_private_libs sluice_both_libs)
  string(REPLACE ";" " " ${variable}_text "${${variable}}")
endforeach()
foreach(name sluice sluice-static)
  configure_file(cmake/${name}.pc.in ${CMAKE_BINARY_DIR}/generated/${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/generated/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/sluice)
configure_package_config_file(cmake/sluiceConfig.cmake.in ${CMAKE_BINARY_DIR}/generated/sluiceConfig.cmake
  INSTALL_DESTINATION ${package} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/sluiceConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/sluiceConfig.cmake ${CMAKE_BINARY_DIR}/generated/sluiceConfigVersion.cmake
  DESTINATION ${package})

# --- made by the program, once it has the commands ---

# sluice_install_output(FOLDER NAME COMMAND…): what `sluice COMMAND…` prints, as a file
function(sluice_install_output folder name)
  install(CODE "execute_process(COMMAND \"$<TARGET_FILE:sluice>\" ${ARGN} OUTPUT_FILE \"${CMAKE_BINARY_DIR}/generated/${name}\"
    COMMAND_ERROR_IS_FATAL ANY)")
  install(FILES ${CMAKE_BINARY_DIR}/generated/${name} DESTINATION ${folder})
endfunction()

if(EXISTS ${CMAKE_SOURCE_DIR}/lua/sluice/cli/man_command.lua)
  sluice_install_output(${CMAKE_INSTALL_MANDIR}/man1 sluice.1 man)
endif()
if(EXISTS ${CMAKE_SOURCE_DIR}/lua/sluice/cli/completion_command.lua)
  sluice_install_output(${CMAKE_INSTALL_DATADIR}/bash-completion/completions sluice completion bash)
  sluice_install_output(${CMAKE_INSTALL_DATADIR}/zsh/site-functions _sluice completion zsh)
  sluice_install_output(${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d sluice.fish completion fish)
endif()
