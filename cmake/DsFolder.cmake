# ds_folder(NAME): the sources of deepspeed/NAME as an object library
# ds_NAME_objects, its *_test.cpp files as one test program NAME_test.
# A new file is picked up by itself; a folder's dependencies are its includes,
# which tools/lint_includes.py checks against docs/architecture.md.
function(ds_folder name)
  cmake_parse_arguments(arg "TORCH" "" "LINK" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/deepspeed/${name})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cpp)
  file(GLOB tests CONFIGURE_DEPENDS ${dir}/*_test.cpp)
  if(tests)
    list(REMOVE_ITEM sources ${tests})
  endif()

  if(NOT sources)
    return()
  endif()
  add_library(ds_${name}_objects OBJECT ${sources})
  target_include_directories(
    ds_${name}_objects PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>)
  target_link_libraries(ds_${name}_objects PUBLIC ${arg_LINK})
  set_target_properties(ds_${name}_objects PROPERTIES DS_TORCH ${arg_TORCH})
  if(arg_TORCH)
    target_link_libraries(ds_${name}_objects PUBLIC Libtorch::torch)
    ds_precompile_torch(ds_${name}_objects)
    target_sources(ds_torch_parts INTERFACE
                   $<BUILD_INTERFACE:$<TARGET_OBJECTS:ds_${name}_objects>>)
  else()
    target_sources(ds_base_parts INTERFACE
                   $<BUILD_INTERFACE:$<TARGET_OBJECTS:ds_${name}_objects>>)
  endif()

  if(DS_TESTS AND tests)
    ds_test(${name} ${tests})
  endif()
endfunction()

# The test program NAME_test.
function(ds_test name)
  add_executable(${name}_test ${ARGN})
  target_compile_definitions(
    ${name}_test PRIVATE DS_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                         DS_BINARY_DIR="${CMAKE_BINARY_DIR}")
  get_target_property(torch ds_${name}_objects DS_TORCH)
  if(torch)
    target_link_libraries(${name}_test PRIVATE deepspeed)
    ds_precompile_torch(${name}_test)
  else()
    target_link_libraries(${name}_test PRIVATE ds_base)
    # gtest's macros take twice as long to compile at -O3. (Files with the
    # precompiled torch headers must be compiled as those are.)
    target_compile_options(${name}_test PRIVATE -O1)
  endif()
  target_link_libraries(${name}_test PRIVATE GTest::gmock_main)
  add_test(NAME ${name} COMMAND ${name}_test)
endfunction()

# The torch headers are read once for all targets that see tensors.
function(ds_precompile_torch target)
  if(NOT TARGET ds_torch_pch)
    set(pch_source ${CMAKE_BINARY_DIR}/torch_pch.cpp)
    file(WRITE ${pch_source} "")
    add_library(ds_torch_pch OBJECT ${pch_source})
    target_link_libraries(ds_torch_pch PRIVATE Libtorch::torch)
    target_precompile_headers(
      ds_torch_pch PRIVATE ${CMAKE_SOURCE_DIR}/deepspeed/flat/torch_headers.h)
  endif()
  target_precompile_headers(${target} REUSE_FROM ds_torch_pch)
  # A precompiled header fits only the same kind of position independence;
  # programs would have -fPIE.
  target_compile_options(${target} PRIVATE -fPIC)
endfunction()
