#include "adam.hpp"

#include <algorithm>
#include <cmath>

namespace vqvae::kernels {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 13;  // what a thread takes at once

}  // namespace

void step_adam(const std::vector<Parameter>& parameters, float scale, float beta1, float beta2, float epsilon,
               int threads) {
  struct Piece {
    const Parameter* parameter;
    std::size_t first;
  };
  std::vector<Piece> pieces;
  for (const Parameter& parameter : parameters) {
    for (std::size_t first = 0; first < parameter.size; first += kPiece) pieces.push_back({&parameter, first});
  }
  const auto all = static_cast<std::ptrdiff_t>(pieces.size());
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::ptrdiff_t at = 0; at < all; ++at) {
    const Piece& piece = pieces[static_cast<std::size_t>(at)];
    const Parameter& parameter = *piece.parameter;
    const std::size_t count = std::min(kPiece, parameter.size - piece.first);
    float* values = parameter.values + piece.first;
    const float* gradient = parameter.gradient + piece.first;
    float* mean = parameter.mean + piece.first;
    float* variance = parameter.variance + piece.first;
    const float rate = parameter.rate;
#pragma omp simd
    for (std::size_t i = 0; i < count; ++i) {
      const float g = gradient[i] * scale;
      mean[i] = beta1 * mean[i] + (1.0F - beta1) * g;
      variance[i] = beta2 * variance[i] + (1.0F - beta2) * g * g;
      values[i] -= rate * mean[i] / (std::sqrt(variance[i]) + epsilon);
    }
  }
}

}  // namespace vqvae::kernels
