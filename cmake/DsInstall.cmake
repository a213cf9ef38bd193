# cmake --install: libraries, headers, programs and a package for find_package.
#
# Two export sets, so that a program that needs no tensors needs no libtorch:
# find_package(deepspeed COMPONENTS base) gives deepspeed::base alone.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/deepspeed)

install(
  DIRECTORY deepspeed
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN "*_test*" EXCLUDE
  PATTERN "test_*" EXCLUDE)

set_target_properties(ds_base PROPERTIES EXPORT_NAME base)
install(TARGETS ds_base EXPORT deepspeedBaseTargets)
install(EXPORT deepspeedBaseTargets NAMESPACE deepspeed::
        DESTINATION ${package_dir})
if(DS_WITH_TORCH)
  install(TARGETS deepspeed EXPORT deepspeedTorchTargets)
  install(EXPORT deepspeedTorchTargets NAMESPACE deepspeed::
          DESTINATION ${package_dir})
  install(FILES cmake/FindLibtorch.cmake DESTINATION ${package_dir})
endif()
# Where comm/cuda_module.h looks: lib/ beside the program's folder, or the rpath
# of a program of somebody else.
if(TARGET deepspeed_cuda)
  install(TARGETS deepspeed_cuda LIBRARY DESTINATION lib)
  target_link_options(
    deepspeed INTERFACE $<INSTALL_INTERFACE:-Wl,-rpath,$<INSTALL_PREFIX>/lib>)
endif()

# Programs that need tensors find libtorch by the rpath of Libtorch::torch.
get_property(programs GLOBAL PROPERTY DS_PROGRAMS)
install(TARGETS ${programs})

configure_package_config_file(
  cmake/deepspeedConfig.cmake.in ${CMAKE_BINARY_DIR}/deepspeedConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(
  ${CMAKE_BINARY_DIR}/deepspeedConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/deepspeedConfig.cmake
              ${CMAKE_BINARY_DIR}/deepspeedConfigVersion.cmake
        DESTINATION ${package_dir})
install(FILES LICENSE README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
