# libvqvae_kernels: the fused operators, which MXNet loads (kernels/).
find_package(OpenMP REQUIRED COMPONENTS CXX)

# What MXNet's library wants of a library of operators comes as source with its headers.
get_filename_component(mxnet_root "${MXNet_INCLUDE_DIR}/.." ABSOLUTE)
find_file(MXNet_LIB_API lib_api.cc HINTS "${mxnet_root}/src" NO_DEFAULT_PATH REQUIRED)
mark_as_advanced(MXNet_LIB_API)
get_filename_component(mxnet_real_root "${mxnet_root}" REALPATH)  # The compiler may write either.

# Only these are for the processors that have it; the library asks before it calls them. They come last: of a function
# that several files have, such as one of a standard container, the linker takes the first, which every processor runs.
set(kernels_for_amx kernels/block.cc kernels/matmul.cc kernels/square.cc)
add_library(vqvae_kernels MODULE
  kernels/adam.cc
  kernels/convolution.cc
  kernels/graph.cc
  kernels/layer.cc
  kernels/library.cc
  kernels/link.cc
  kernels/plan.cc
  kernels/processor.cc
  kernels/program.cc
  kernels/sheet.cc
  kernels/tape.cc
  "${MXNet_LIB_API}"
  ${kernels_for_amx})
target_compile_features(vqvae_kernels PRIVATE cxx_std_17)
target_include_directories(vqvae_kernels SYSTEM PRIVATE "${MXNet_INCLUDE_DIR}")
# Each operation rounds by itself, as MXNet's do.
target_compile_options(vqvae_kernels PRIVATE ${VQVAE_WARNINGS} $<$<NOT:$<CONFIG:Debug>>:-O3> -ffp-contract=off
  "-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}=." "-ffile-prefix-map=${mxnet_root}=mxnet"
  "-ffile-prefix-map=${mxnet_real_root}=mxnet")
target_link_libraries(vqvae_kernels PRIVATE OpenMP::OpenMP_CXX)
set_source_files_properties("${MXNet_LIB_API}" PROPERTIES COMPILE_OPTIONS "-w;-fno-sanitize=all")
# gcc warns of variables in its own headers.
set_source_files_properties(${kernels_for_amx} PROPERTIES COMPILE_OPTIONS
  "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;-mamx-tile;-mamx-int8;-mamx-bf16;-Wno-uninitialized;-Wno-maybe-uninitialized")
# A square root that tells of no error is one instruction.
set_source_files_properties(kernels/adam.cc PROPERTIES COMPILE_OPTIONS -fno-math-errno)
set_target_properties(vqvae_kernels PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS vqvae_kernels LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
