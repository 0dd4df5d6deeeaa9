# The GPU kernels, core/ops/*_cuda.cu: with nvcc as sluice_cuda_objects, with the host's C++ compiler as sluice_gpu_host.
# nvcc is called by hand: enable_language(CUDA) would slow every configuration and claim the .cu files for itself.
if(gpu_sources AND NOT SLUICE_CUDA STREQUAL "OFF")
  find_program(NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
  if(NVCC)
    file(GLOB gpu_headers CONFIGURE_DEPENDS core/gpu/*.h core/ops/*.h core/ops/*.def)
    foreach(source IN LISTS gpu_sources)
      get_filename_component(name ${source} NAME_WE)
      set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
      add_custom_command(
        OUTPUT ${object}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
        COMMAND ${NVCC} -std=c++17 -O3 -I${CMAKE_SOURCE_DIR}/core -Xcompiler=-fPIC,-Wall
                -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
                -c ${source} -o ${object}
        DEPENDS ${source} ${gpu_headers} VERBATIM
        COMMENT "nvcc ${name}.cu")
      list(APPEND cuda_objects ${object})
    endforeach()
    set(all "")
    if(SLUICE_CUDA STREQUAL "ON")
      set(all ALL)
    endif()
    add_custom_target(sluice_cuda_objects ${all} DEPENDS ${cuda_objects})
  elseif(SLUICE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SLUICE_CUDA=ON, but nvcc was found neither in PATH nor in CUDA_HOME/bin nor in /usr/local/cuda/bin")
  endif()
endif()

if(gpu_sources AND BUILD_TESTING)
  file(GLOB gpu_host_sources CONFIGURE_DEPENDS core/gpu/*.cpp)
  add_library(sluice_gpu_host STATIC EXCLUDE_FROM_ALL ${gpu_sources} ${gpu_host_sources})
  set_source_files_properties(${gpu_sources} PROPERTIES LANGUAGE CXX)
  target_compile_definitions(sluice_gpu_host PUBLIC SL_GPU_HOST=1)
  # Fibers leave their stacks by longjmp, which fortified libc takes for an attack
  target_compile_options(sluice_gpu_host PRIVATE -U_FORTIFY_SOURCE)
  target_link_libraries(sluice_gpu_host PUBLIC sluice_core)
endif()
