# ds_folder(NAME): the sources of deepspeed/NAME and of its folders as an object
# library ds_NAME_objects, its *_test.cpp files as one test program NAME_test.
# A new file is picked up by itself; a folder's dependencies are its includes,
# which tools/lint_includes.py checks against docs/architecture.md.
# HOT: it holds loops that take time, and is compiled at -O3.
function(ds_folder name)
  cmake_parse_arguments(arg "TORCH;HOT" "" "LINK" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/deepspeed/${name})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cpp ${dir}/*/*.cpp)
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
    ds_join_sources(ds_${name}_objects)
    target_sources(ds_torch_parts INTERFACE
                   $<BUILD_INTERFACE:$<TARGET_OBJECTS:ds_${name}_objects>>)
  else()
    if(NOT arg_HOT)
      ds_precompile_base(ds_${name}_objects)
    endif()
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
    ds_join_sources(${name}_test)
  else()
    target_link_libraries(${name}_test PRIVATE ds_base)
    ds_precompile_test(${name}_test)
  endif()
  target_link_libraries(${name}_test PRIVATE GTest::gmock_main)
  add_test(NAME ${name} COMMAND ${name}_test)
endfunction()

# Precompiled headers, and the optimization that goes with them: a file must be
# compiled as its precompiled headers are. -O3 takes twice the time of -O1 for
# code that runs once.
set(DS_COLD $<$<CONFIG:Release,RelWithDebInfo>:-O1>)
set(DS_WARM $<$<CONFIG:Release>:-O2;-fvect-cost-model=dynamic>)
set(DS_BASE_HEADERS <nlohmann/json.hpp> <algorithm> <filesystem> <fstream>
    <functional> <map> <memory> <optional> <string> <vector>)

# ds_precompile(TARGET NAME): with the headers of ds_NAME_pch. Position
# independence must be the same, too: programs would have -fPIE.
function(ds_precompile target name)
  target_compile_options(${target} PRIVATE -fPIC ${ARGN})
  if(TARGET ds_${name}_pch)
    target_precompile_headers(${target} REUSE_FROM ds_${name}_pch)
  endif()
endfunction()

function(ds_add_pch name options)
  set(source ${CMAKE_BINARY_DIR}/${name}_pch.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "") # not touched when it is there
  add_library(ds_${name}_pch OBJECT ${source})
  target_compile_options(ds_${name}_pch PRIVATE ${options})
  target_precompile_headers(ds_${name}_pch PRIVATE ${ARGN})
endfunction()

if(DS_WITH_TORCH)
  ds_add_pch(torch "${DS_WARM}" ${CMAKE_SOURCE_DIR}/deepspeed/flat/torch_headers.h)
  target_link_libraries(ds_torch_pch PRIVATE Libtorch::torch)
endif()
# The sanitized builds do without, so that a missing include shows.
if(NOT DS_SANITIZE)
  ds_add_pch(base "${DS_COLD}" ${DS_BASE_HEADERS})
  if(DS_TESTS)
    ds_add_pch(test "${DS_COLD}" ${DS_BASE_HEADERS} <gmock/gmock.h>)
    target_link_libraries(ds_test_pch PRIVATE GTest::gmock_main)
  endif()
endif()

function(ds_precompile_torch target)
  ds_precompile(${target} torch ${DS_WARM})
endfunction()

function(ds_precompile_base target)
  ds_precompile(${target} base ${DS_COLD})
endfunction()

function(ds_precompile_test target)
  ds_precompile(${target} test ${DS_COLD})
endfunction()

# Each file that sees torch instantiates its templates for five seconds, however
# short it is: they are compiled in groups of four.
function(ds_join_sources target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON
                        UNITY_BUILD_BATCH_SIZE 4)
endfunction()
