# find_package(vqvae): the target vqvae::vqvae.
include("${CMAKE_CURRENT_LIST_DIR}/vqvaeTargets.cmake")
