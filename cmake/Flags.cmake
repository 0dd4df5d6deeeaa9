# Compiler flags: the target sluice_flags, and sluice_kernel_flags() for single files.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_C_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(SLUICE_X86 ON)
endif()

add_library(sluice_flags INTERFACE)
# No -ffast-math: results must not depend on how a compiler reorders sums, and NaN must stay visible.
target_compile_options(sluice_flags INTERFACE -fno-math-errno -fno-trapping-math -fopenmp-simd)
# clang reports loops that it leaves scalar, as it must without optimization or under a sanitizer
target_compile_options(sluice_flags INTERFACE $<$<C_COMPILER_ID:Clang>:-Wno-pass-failed>)
# POSIX and glibc's functions under -std=c11. Empty, so that a file may say `#define _GNU_SOURCE` itself.
target_compile_options(sluice_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-D_GNU_SOURCE=>)
if(SLUICE_X86)
  target_compile_options(sluice_flags INTERFACE -march=x86-64-v2)
endif()
if(SLUICE_WERROR)
  target_compile_options(sluice_flags INTERFACE -Wall -Wextra -Wshadow -Werror
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes>)
else()
  target_compile_options(sluice_flags INTERFACE -Wall -Wextra)
endif()
if(SLUICE_SANITIZE)
  # -O2 last, so that it wins over the build type's: the whole suite runs under the sanitizers
  set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all)
  target_compile_options(sluice_flags INTERFACE ${sanitize} -fno-omit-frame-pointer -g1 -O2)
  target_compile_definitions(sluice_flags INTERFACE SLUICE_CHECKED=1)
  target_link_options(sluice_flags INTERFACE ${sanitize})
  if(CMAKE_C_COMPILER_ID MATCHES Clang)
    # The shared runtime: the Lua module is loaded by an interpreter that knows nothing of sanitizers
    set(asan_name libclang_rt.asan-x86_64.so)
    target_link_options(sluice_flags INTERFACE -shared-libasan)
    target_compile_options(sluice_flags INTERFACE -shared-libasan)
  else()
    set(asan_name libasan.so)
  endif()
  execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=${asan_name}
    OUTPUT_VARIABLE SLUICE_ASAN_LIBRARY OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT EXISTS ${SLUICE_ASAN_LIBRARY})
    message(FATAL_ERROR "${asan_name} is missing: apt-get install libclang-rt-14-dev (clang) or libgcc-12-dev (gcc)")
  endif()
  get_filename_component(asan_folder ${SLUICE_ASAN_LIBRARY} DIRECTORY)
  list(APPEND CMAKE_BUILD_RPATH ${asan_folder})
endif()
add_link_options(LINKER:--as-needed)

# Kernels for one instruction set are files of their own, chosen at run time; all else runs on any x86-64-v2.
function(sluice_kernel_flags)
  foreach(source IN LISTS ARGN)
    if(SLUICE_X86 AND source MATCHES "_avx2\\.c$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    elseif(SLUICE_X86 AND source MATCHES "_avx512\\.c$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;-mf16c;-mprefer-vector-width=512")
    elseif(source MATCHES "/core/base/random\\.c$")
      # Normal deviates must be the same bits on every machine
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
    endif()
  endforeach()
endfunction()
