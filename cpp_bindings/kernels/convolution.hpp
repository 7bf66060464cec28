// A convolution, or a transposed one, as products of windows of its input with its kernel.
#ifndef VQVAE_KERNELS_CONVOLUTION_HPP_
#define VQVAE_KERNELS_CONVOLUTION_HPP_

#include <cstddef>
#include <utility>
#include <vector>

#include "graph.hpp"
#include "plan.hpp"

namespace vqvae::kernels {

class Convolution {
 public:
  // Of an input of this extent. Throws std::invalid_argument if there is no result.
  Convolution(const Node& node, const Extent& in);

  const Extent& extent() const { return out_; }
  std::size_t kernel_size() const;
  // Of a transposed convolution the stride, by which its results are spread; else 1.
  std::size_t spread() const { return transposed_ ? static_cast<std::size_t>(stride_) : 1; }

  Windows windows() const;
  // What is computed of an operand that holds these windows; `kernel` as MXNet has it.
  std::vector<Product> products(const std::vector<float>& kernel, const Tensor& operand) const;

 private:
  struct Place {  // within the stride of a transposed convolution
    int y;
    int x;
  };

  Product part_of(const Place& place, const Tensor& operand) const;
  Product multiply(Product part, const std::vector<Place>& places, const std::vector<float>& kernel,
                   const Tensor& operand) const;

  bool transposed_;
  int height_;
  int width_;
  int stride_;
  int pad_y_;
  int pad_x_;
  std::size_t filters_;
  Extent in_;
  Extent out_;
};

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_CONVOLUTION_HPP_
