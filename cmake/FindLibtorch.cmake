# Finds libtorch in TORCH_ROOT: the `torch` folder of a PyPI wheel (CPU or
# CUDA) or an unpacked libtorch archive. `find_package(Torch)` of a CUDA wheel
# insists on a CUDA toolkit; this module needs only headers and two libraries.
#
# Defines the target Libtorch::torch.
if(NOT TORCH_ROOT AND DEFINED ENV{TORCH_ROOT})
  set(TORCH_ROOT $ENV{TORCH_ROOT})
endif()
find_library(LIBTORCH_CPU torch_cpu PATHS ${TORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10 c10 PATHS ${TORCH_ROOT}/lib NO_DEFAULT_PATH)
find_file(LIBTORCH_GOMP libgomp.so.1 PATHS ${TORCH_ROOT}/lib NO_DEFAULT_PATH)
find_path(LIBTORCH_INCLUDE ATen/ATen.h PATHS ${TORCH_ROOT}/include
          NO_DEFAULT_PATH)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  Libtorch
  REQUIRED_VARS LIBTORCH_CPU LIBTORCH_C10 LIBTORCH_INCLUDE
  REASON_FAILURE_MESSAGE
    "pass -DTORCH_ROOT=.../site-packages/torch, or run `make setup`")

if(Libtorch_FOUND AND NOT TARGET Libtorch::torch)
  add_library(Libtorch::torch INTERFACE IMPORTED)
  target_include_directories(
    Libtorch::torch SYSTEM
    INTERFACE ${LIBTORCH_INCLUDE} ${LIBTORCH_INCLUDE}/torch/csrc/api/include)
  target_link_libraries(Libtorch::torch INTERFACE ${LIBTORCH_CPU}
                                                  ${LIBTORCH_C10})
  # at::parallel_for is inlined: without -fopenmp it would run serially. The
  # OpenMP runtime must be the one libtorch uses, or two pools compete.
  target_compile_options(Libtorch::torch INTERFACE -fopenmp)
  if(LIBTORCH_GOMP)
    target_link_libraries(Libtorch::torch INTERFACE ${LIBTORCH_GOMP})
  else()
    target_link_options(Libtorch::torch INTERFACE -fopenmp)
  endif()
  # DT_RPATH (not RUNPATH) so that it also serves libtorch's own dependencies;
  # the CUDA libraries of a CUDA wheel need not be there on a CPU machine.
  target_link_options(
    Libtorch::torch INTERFACE -Wl,--disable-new-dtags
    -Wl,--unresolved-symbols=ignore-in-shared-libs
    -Wl,-rpath,${TORCH_ROOT}/lib)
endif()
