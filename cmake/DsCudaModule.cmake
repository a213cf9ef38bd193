# libdeepspeed_cuda.so, the shared object with NCCL that comm/ opens where GPUs
# are to communicate. Made where libtorch has CUDA and the headers of CUDA and
# NCCL are found: in .deps/cuda (tools/setup.sh --with-cuda), in the wheels
# beside the wheel torch, or in a CUDA toolkit. g++ is enough.
#
# It is linked to no library of CUDA: they come with libtorch_cuda.so when the
# program loads it (deepspeed/cuda/module.h).
set(cuda_wheels ${CMAKE_SOURCE_DIR}/.deps/cuda/nvidia ${TORCH_ROOT}/../nvidia)
set(cuda_toolkits $ENV{CUDA_HOME} /usr/local/cuda /usr)
find_library(LIBTORCH_CUDA torch_cuda PATHS ${TORCH_ROOT}/lib NO_DEFAULT_PATH)
# The folder that has all of it: a wheel of the run time alone lacks crt/.
find_path(CUDA_INCLUDE crt/host_config.h NO_DEFAULT_PATH
          PATHS ${cuda_wheels} ${cuda_toolkits}
          PATH_SUFFIXES cu13/include include)
find_path(NCCL_INCLUDE nccl.h NO_DEFAULT_PATH
          PATHS ${cuda_wheels} ${cuda_toolkits}
          PATH_SUFFIXES nccl/include include)
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
target_include_directories(
  deepspeed_cuda SYSTEM PRIVATE ${CUDA_INCLUDE} ${CUDA_INCLUDE}/cccl
                                ${NCCL_INCLUDE})
target_compile_options(deepspeed_cuda PRIVATE ${DS_COLD})
# Lazy, so that a test can look at it where there is no CUDA.
target_link_options(deepspeed_cuda PRIVATE -Wl,-z,lazy)
set_target_properties(
  deepspeed_cuda PROPERTIES CXX_VISIBILITY_PRESET hidden
                            LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

# It takes what it calls from the test itself.
if(DS_TESTS)
  add_executable(cuda_test ${CMAKE_SOURCE_DIR}/deepspeed/cuda/module.cpp
                           ${CMAKE_SOURCE_DIR}/deepspeed/cuda/module_test.cpp)
  target_include_directories(cuda_test PRIVATE ${CMAKE_SOURCE_DIR})
  target_include_directories(
    cuda_test SYSTEM PRIVATE ${CUDA_INCLUDE} ${CUDA_INCLUDE}/cccl
                             ${NCCL_INCLUDE})
  target_compile_options(cuda_test PRIVATE ${DS_COLD})
  target_link_libraries(cuda_test PRIVATE GTest::gmock_main)
  add_test(NAME cuda COMMAND cuda_test)
endif()
