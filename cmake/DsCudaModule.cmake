# libdeepspeed_cuda.so, the shared object with NCCL that comm/ opens where GPUs
# are to communicate. Made where libtorch has CUDA and the headers of CUDA and
# NCCL are found: in the wheels beside the wheel torch, in .deps/nccl
# (tools/setup.sh --with-cuda), or in a CUDA toolkit. g++ is enough.
#
# It is linked to no library of CUDA: they come with libtorch_cuda.so when the
# program loads it (deepspeed/cuda/module.h).
set(cuda_wheels ${TORCH_ROOT}/../nvidia)
set(cuda_toolkits $ENV{CUDA_HOME} /usr/local/cuda /usr)
find_library(LIBTORCH_CUDA torch_cuda PATHS ${TORCH_ROOT}/lib NO_DEFAULT_PATH)
find_path(
  CUDA_INCLUDE cuda_runtime_api.h NO_DEFAULT_PATH
  PATHS ${cuda_wheels}/cu13/include ${cuda_wheels}/cuda_runtime/include
        ${cuda_toolkits}
  PATH_SUFFIXES include)
find_path(
  NCCL_INCLUDE nccl.h NO_DEFAULT_PATH
  PATHS ${cuda_wheels}/nccl/include
        ${CMAKE_SOURCE_DIR}/.deps/nccl/nvidia/nccl/include ${cuda_toolkits}
  PATH_SUFFIXES include)
mark_as_advanced(LIBTORCH_CUDA CUDA_INCLUDE NCCL_INCLUDE)

set(missing "")
foreach(name LIBTORCH_CUDA CUDA_INCLUDE NCCL_INCLUDE)
  if(NOT ${name})
    list(APPEND missing ${name})
  endif()
endforeach()
if(missing)
  list(JOIN missing ", " missing)
  message(STATUS "NCCL: libdeepspeed_cuda.so is not built, for want of "
                 "${missing} (tools/setup.sh --with-cuda)")
  return()
endif()
message(STATUS "NCCL: libdeepspeed_cuda.so is built, with the headers of "
               "${NCCL_INCLUDE} and ${CUDA_INCLUDE}")

add_library(deepspeed_cuda MODULE ${CMAKE_SOURCE_DIR}/deepspeed/cuda/module.cpp)
target_include_directories(deepspeed_cuda PRIVATE ${CMAKE_SOURCE_DIR})
target_include_directories(deepspeed_cuda SYSTEM PRIVATE ${CUDA_INCLUDE}
                                                         ${NCCL_INCLUDE})
target_compile_options(deepspeed_cuda PRIVATE ${DS_COLD})
# Lazy, so that a test can look at it where there is no CUDA.
target_link_options(deepspeed_cuda PRIVATE -Wl,-z,lazy)
set_target_properties(
  deepspeed_cuda PROPERTIES CXX_VISIBILITY_PRESET hidden
                            LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
