# cmake --install: a directory that may be moved, and runs without Python, the wheel and this repository.
include(CMakePackageConfigHelpers)
set(package "${CMAKE_INSTALL_LIBDIR}/cmake/vqvae")

install(TARGETS vqvae EXPORT vqvae LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(TARGETS reconstruct RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(DIRECTORY include/vqvae DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES ../LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/vqvae")

# libvqvae's own dependencies are in the library; a program that uses it finds and links nothing else.
install(EXPORT vqvae NAMESPACE vqvae:: FILE vqvaeTargets.cmake DESTINATION "${package}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/vqvaeConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES cmake/vqvaeConfig.cmake "${PROJECT_BINARY_DIR}/vqvaeConfigVersion.cmake" DESTINATION "${package}")

# libmxnet's RPATH is $ORIGIN: it finds its two libraries where it lies itself.
if(VQVAE_INSTALL_MXNET)
  install(FILES "${MXNet_LIBRARY}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  foreach(library libopenblas.so.0 libgfortran.so.3)
    install(FILES "${MXNet_LIBRARY_DIR}/${library}" DESTINATION "${CMAKE_INSTALL_LIBDIR}" OPTIONAL)
  endforeach()
endif()
