# Libraries, all from Debian packages. A missing one is named with its package.
find_package(PkgConfig QUIET)
if(NOT PKG_CONFIG_FOUND)
  message(FATAL_ERROR "pkg-config is missing: apt-get install pkgconf")
endif()

function(sluice_missing what package)
  message(FATAL_ERROR "${what} is missing: apt-get install ${package}\n"
    "scripts/quickstart installs everything that the build needs; scripts/test --deps what the tests need.")
endfunction()

# sluice_pkg(PREFIX module package): the imported target PkgConfig::PREFIX
macro(sluice_pkg prefix module package)
  pkg_check_modules(${prefix} QUIET IMPORTED_TARGET ${module})
  if(NOT ${prefix}_FOUND)
    sluice_missing(${module} ${package})
  endif()
endmacro()

add_library(sluice_dependencies INTERFACE)
sluice_pkg(LUA54 lua5.4 liblua5.4-dev)
string(REGEX MATCH "^[0-9]+\\.[0-9]+" LUA54_VERSION_SHORT "${LUA54_VERSION}")
sluice_pkg(PNG libpng libpng-dev)
sluice_pkg(ZLIB zlib zlib1g-dev)
sluice_pkg(CJSON libcjson libcjson-dev)
sluice_pkg(XXHASH libxxhash libxxhash-dev)
sluice_pkg(ARCHIVE libarchive libarchive-dev)
sluice_pkg(JPEG libjpeg libjpeg62-turbo-dev)
sluice_pkg(ZSTD libzstd libzstd-dev)
sluice_pkg(CHAFA chafa "libchafa-dev libglib2.0-dev") # bindings only
sluice_pkg(EDIT libedit libedit-dev) # the program only
target_link_libraries(sluice_dependencies INTERFACE
  PkgConfig::PNG PkgConfig::ZLIB PkgConfig::CJSON PkgConfig::XXHASH PkgConfig::ARCHIVE
  PkgConfig::JPEG PkgConfig::ZSTD)

# Not dnnl's own CMake files: Debian's ask for OpenCL's headers, which nothing here uses.
find_path(DNNL_INCLUDE_DIR dnnl.h)
find_library(DNNL_LIBRARY dnnl)
if(NOT DNNL_INCLUDE_DIR OR NOT DNNL_LIBRARY)
  sluice_missing("oneDNN (dnnl.h, libdnnl.so)" libdnnl-dev)
endif()
target_include_directories(sluice_dependencies SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(sluice_dependencies INTERFACE ${DNNL_LIBRARY})

find_path(RANDOM123_INCLUDE_DIR Random123/philox.h)
if(NOT RANDOM123_INCLUDE_DIR)
  sluice_missing("Random123 (Random123/philox.h)" librandom123-dev)
endif()
target_include_directories(sluice_dependencies SYSTEM INTERFACE ${RANDOM123_INCLUDE_DIR})

find_package(OpenMP QUIET COMPONENTS C)
if(NOT OpenMP_C_FOUND)
  sluice_missing("OpenMP for ${CMAKE_C_COMPILER_ID}" "libomp-dev (clang) or libgomp1 (gcc)")
endif()
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
target_link_libraries(sluice_dependencies INTERFACE OpenMP::OpenMP_C Threads::Threads m ${CMAKE_DL_LIBS})

# Also runs the scripts of the build: the texts of sluice.help are made from the sources' comments
find_program(LUA_PROGRAM lua5.4)
if(NOT LUA_PROGRAM)
  sluice_missing("the program lua5.4" lua5.4)
endif()

if(BUILD_TESTING)
  pkg_check_modules(CMOCKA QUIET IMPORTED_TARGET cmocka)
  find_program(BUSTED_SCRIPT busted)
  foreach(need "CMOCKA_FOUND libcmocka-dev" "BUSTED_SCRIPT lua-busted")
    separate_arguments(need)
    list(GET need 0 variable)
    list(GET need 1 package)
    if(NOT ${variable})
      sluice_missing("${package} (for the tests; -D BUILD_TESTING=OFF builds without)" ${package})
    endif()
  endforeach()
endif()
