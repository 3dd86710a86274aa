# What `cmake --install` puts where: the program, the library, its two headers, and the files by
# which pkg-config and CMake find them.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS diptych diptych_library
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
# diptych.h includes "core/status.h": found beside it.
install(FILES ${CMAKE_SOURCE_DIR}/model/diptych.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/diptych)
install(FILES ${CMAKE_SOURCE_DIR}/core/status.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/diptych/core)

# What this build's options add to the libraries that a static link must name.
set(DIPTYCH_PC_LIBS "")
set(DIPTYCH_PC_REQUIRES "")
if(DIPTYCH_ONEDNN)
    string(APPEND DIPTYCH_PC_LIBS " -ldnnl")
endif()
if(WEBP_FOUND)
    string(APPEND DIPTYCH_PC_REQUIRES " libwebp")
endif()
if(with_cuda)
    string(APPEND DIPTYCH_PC_LIBS " ${CUDA_cudart_static_LIBRARY} -lrt")
endif()

# ${pcfiledir} keeps the file true when the whole prefix is moved or installed with --prefix.
file(RELATIVE_PATH DIPTYCH_PREFIX_FROM_PC /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${CMAKE_CURRENT_LIST_DIR}/diptych.pc.in ${CMAKE_BINARY_DIR}/diptych.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/diptych.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

configure_package_config_file(
    ${CMAKE_CURRENT_LIST_DIR}/diptychConfig.cmake.in ${CMAKE_BINARY_DIR}/diptychConfig.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/diptych
    PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(
    ${CMAKE_BINARY_DIR}/diptychConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/diptychConfig.cmake
              ${CMAKE_BINARY_DIR}/diptychConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/diptych)
