# Each tests/fuzz/NAME_fuzz.cpp becomes a libFuzzer program NAME_fuzz, linked
# with the torch-free library. The preset `fuzz` compiles that library with
# clang and -fsanitize=fuzzer-no-link,address,undefined; `make fuzz` runs all.
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  message(FATAL_ERROR "DS_FUZZ needs clang: cmake --preset fuzz")
endif()

file(GLOB fuzz_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/*_fuzz.cpp)
foreach(source ${fuzz_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ds_base)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endforeach()
