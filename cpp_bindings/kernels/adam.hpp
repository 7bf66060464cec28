// Adam (Kingma and Ba 2015, arXiv:1412.6980), of many parameters at a time.
#ifndef VQVAE_KERNELS_ADAM_HPP_
#define VQVAE_KERNELS_ADAM_HPP_

#include <cstddef>
#include <vector>

namespace vqvae::kernels {

struct Parameter {
  float* values;
  const float* gradient;
  float* mean;
  float* variance;
  std::size_t size;
  float rate;  // with the corrections of this step
};

// The gradients are multiplied by `scale`.
void step_adam(const std::vector<Parameter>& parameters, float scale, float beta1, float beta2, float epsilon,
               int threads);

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_ADAM_HPP_
