// What the processor has. In a file of its own, which is compiled for every processor.
#ifndef VQVAE_KERNELS_PROCESSOR_HPP_
#define VQVAE_KERNELS_PROCESSOR_HPP_

namespace vqvae::kernels {

// Whether this processor has AMX, and the system lets this process use it. The first call asks the system for it.
bool has_amx();

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_PROCESSOR_HPP_
