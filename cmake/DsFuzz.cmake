# Each tests/fuzz/NAME_fuzz.cpp becomes a libFuzzer program NAME_fuzz, linked
# with the folders that parse files. The preset `fuzz` compiles those with clang
# and -fsanitize=fuzzer-no-link,address,undefined; `make fuzz` runs all.
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  message(FATAL_ERROR "DS_FUZZ needs clang: cmake --preset fuzz")
endif()

add_library(ds_fuzzed STATIC)
foreach(folder base file text formats checkpoint machine settings report config)
  target_sources(ds_fuzzed PRIVATE $<TARGET_OBJECTS:ds_${folder}_objects>)
  target_link_libraries(
    ds_fuzzed
    PUBLIC $<TARGET_PROPERTY:ds_${folder}_objects,INTERFACE_LINK_LIBRARIES>)
endforeach()
target_include_directories(ds_fuzzed PUBLIC ${CMAKE_SOURCE_DIR})

add_custom_target(fuzz_programs)
file(GLOB fuzz_sources CONFIGURE_DEPENDS
     ${CMAKE_SOURCE_DIR}/tests/fuzz/*_fuzz.cpp)
foreach(source ${fuzz_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${source})
  target_link_libraries(${name} PRIVATE ds_fuzzed)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzz_programs ${name})
endforeach()
