# GPUs. core/ops/*_cuda.cu are kernels; with core/*/*_cuda.c, which need no kernel language, they make
#   sluice_cuda      with nvcc, linked into the program, the module and the shared library (not into libsluice.a's tests)
#   sluice_gpu_host  with the host's compilers and core/gpu/gpu_host.cpp, for tests: device "gpu-host"
# nvcc is called by hand: enable_language(CUDA) would slow every configuration and claim the .cu files for itself.
file(GLOB gpu_kernels CONFIGURE_DEPENDS core/ops/*_cuda.cu)
file(GLOB gpu_both CONFIGURE_DEPENDS core/ops/*_cuda.c)                  # dispatch: for CUDA and for the stand-in
file(GLOB gpu_cuda_only CONFIGURE_DEPENDS core/gpu/*.c core/tensor/*_cuda.c) # libraries and driver
file(GLOB gpu_host_only CONFIGURE_DEPENDS core/gpu/*.cpp core/tensor/*_gpu_host.c)

set(SLUICE_HAS_CUDA OFF)
if(NOT SLUICE_CUDA STREQUAL "OFF")
  find_program(NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
  if(NVCC)
    get_filename_component(nvcc_real ${NVCC} REALPATH)
    get_filename_component(cuda_root ${nvcc_real}/../.. ABSOLUTE)
    find_path(CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ${cuda_root}/include ${cuda_root}/targets/x86_64-linux/include)
    find_library(CUDART_STATIC libcudart_static.a HINTS ${cuda_root}/lib64 ${cuda_root}/targets/x86_64-linux/lib)
    find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${CUDA_INCLUDE_DIR})
    find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDA_INCLUDE_DIR} $ENV{CUDNN_HOME}/include)
  endif()
  if(NVCC AND CUDA_INCLUDE_DIR AND CUDART_STATIC AND CUBLASLT_INCLUDE_DIR AND CUDNN_INCLUDE_DIR)
    set(SLUICE_HAS_CUDA ON)
  elseif(SLUICE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SLUICE_CUDA=ON needs nvcc, cuda_runtime_api.h, cublasLt.h, cudnn.h and libcudart_static.a; found: "
      "${NVCC}, ${CUDA_INCLUDE_DIR}, ${CUBLASLT_INCLUDE_DIR}, ${CUDNN_INCLUDE_DIR}, ${CUDART_STATIC}. "
      "Set CUDA_HOME to the toolkit's folder, CUDNN_HOME to cuDNN's.")
  endif()
endif()
message(STATUS "CUDA: ${SLUICE_HAS_CUDA}")

if(SLUICE_HAS_CUDA)
  file(GLOB gpu_headers CONFIGURE_DEPENDS core/gpu/*.h core/ops/*.h core/ops/*.def core/tensor/*.h core/base/*.h core/graph/*.h)
  set(nvcc_warnings -Xcompiler=-fPIC,-Wall)
  if(SLUICE_WERROR)
    list(APPEND nvcc_warnings -Werror all-warnings)
  endif()
  foreach(source IN LISTS gpu_kernels)
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
      COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${NVCC} -std=c++17 -O3 -I${CMAKE_SOURCE_DIR}/core ${nvcc_warnings}
              -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
              -c ${source} -o ${object}
      DEPENDS ${source} ${gpu_headers} VERBATIM
      COMMENT "nvcc ${name}.cu")
    list(APPEND cuda_objects ${object})
  endforeach()
  add_custom_target(sluice_cuda_kernels DEPENDS ${cuda_objects})
  add_library(sluice_cuda_c OBJECT ${gpu_both} ${gpu_cuda_only})
  set_target_properties(sluice_cuda_c PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(sluice_cuda_c SYSTEM PRIVATE ${CUDA_INCLUDE_DIR} ${CUBLASLT_INCLUDE_DIR} ${CUDNN_INCLUDE_DIR})
  target_include_directories(sluice_cuda_c PUBLIC core)
  target_link_libraries(sluice_cuda_c PUBLIC sluice_flags sluice_dependencies)
  # Objects, not an archive: the core refers to them weakly, which pulls nothing out of an archive
  add_library(sluice_cuda INTERFACE)
  target_sources(sluice_cuda INTERFACE ${cuda_objects} $<TARGET_OBJECTS:sluice_cuda_c>)
  target_link_libraries(sluice_cuda INTERFACE ${CUDART_STATIC} rt stdc++)
  add_dependencies(sluice_cuda sluice_cuda_kernels)
  set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
endif()

if(BUILD_TESTING)
  add_library(sluice_gpu_host OBJECT EXCLUDE_FROM_ALL ${gpu_kernels} ${gpu_both} ${gpu_host_only})
  set_target_properties(sluice_gpu_host PROPERTIES POSITION_INDEPENDENT_CODE ON)
  set_source_files_properties(${gpu_kernels} PROPERTIES LANGUAGE CXX)
  target_compile_definitions(sluice_gpu_host PUBLIC SL_GPU_HOST=1)
  # gcc sees unwritten values where every thread of a
  # row that is there writes them; contraction would change draws
  target_compile_options(sluice_gpu_host PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> -ffp-contract=off)
  target_link_libraries(sluice_gpu_host PUBLIC sluice_core)
endif()
