// A convolution in training: its kernel and what it reads as operands, and the three products of them.
//
// What is multiplied are numbers of 16 significant bits, and what is added up is float32: between TensorFloat-32, which
// has 11 bits, and float32, which has 24 (Henry, Tang and Heinecke 2019, arXiv:1904.06376, section 3).
#ifndef VQVAE_KERNELS_LAYER_HPP_
#define VQVAE_KERNELS_LAYER_HPP_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "link.hpp"
#include "sheet.hpp"

namespace vqvae::kernels {

// What the layers use one after the other on the way back.
struct Bench {
  void make(std::size_t groups);

  std::size_t read = 0;  // operands of a group that there must be room for
  std::size_t given = 0;
  Memory turned;  // what is read, turned
  Memory paired;  // the gradient of what is given, as right operands
};

class Layer {
 public:
  Layer(const Node& node, const Extent& in) : link_(node, in) {}

  const Link& link() const { return link_; }
  void allocate_for(std::size_t groups, Bench* bench);

  // Of a group of images: what is read, and the gradient of what is given.
  std::size_t read_bytes() const { return x_.blocks() * x_.block_bytes(); }
  std::size_t given_bytes() const { return dy_.blocks() * dy_.block_bytes(); }

  // Each thread of a team calls these; `spare` is a block of its own. Before the others:
  void take_kernel(const Team& team, const float* kernel, const float* bias, float* spare);
  void take_kernel_back(const Team& team, const float* kernel, float* spare);

  // What is read: block by block, or, where windows are made of it, at once.
  bool reads_windows() const { return link_.forward() == Form::kInputWindows; }
  void read(const float* block, const Spot& spot) const;
  void read_windows(const Part& part, const Numbers& image, float* spare) const;
  const std::uint8_t* kept(const Spot& spot) const { return x_.at(spot); }
  // A block of what the layer gives.
  void compute(const Spot& spot, float* block) const;

  // The same of the way back: first the gradients of what is given, then those of what is read ...
  bool gives_windows() const { return link_.backward() == Form::kOutputWindows; }
  void read_gradient(const float* block, const Spot& spot) const;
  void read_gradient_windows(const Part& part, float* spare) const;
  void compute_gradient(const Spot& spot, float* block) const;
  // ... and those of the kernel, matrix by matrix, and of the bias.
  void prepare_kernel_gradient(const Part& part, const Bench& bench) const;
  // Of this part, added to that of others, or, if it `begins`, written over what is there.
  void compute_kernel_gradient(const Part& part, const Bench& bench, bool begins, float* matrices) const;
  void give_kernel_gradient(const Team& team, const std::vector<float*>& matrices, float* kernel) const;
  void give_bias_gradient(const Team& team, float* bias) const;
  std::size_t own_matrices() const { return matrices(link_.own()); }

 private:
  std::size_t matrices(Form form) const;
  void take_matrix(Form form, const float* kernel, std::size_t row, std::size_t column, std::size_t place,
                   float* block) const;
  void lay_out(const Part& part, const Numbers& image, const Sheet& to, float* spare) const;

  Link link_;
  std::vector<std::uint32_t> windows_;
  // What is multiplied: for each pixel that is given, for each that is read, and for each place of the kernel.
  std::vector<std::vector<Factors>> taken_;
  std::vector<std::vector<Factors>> given_;
  std::vector<std::vector<Factors>> own_;
  Memory forward_;           // the kernel as right operands: (32 columns, place, 32 rows)
  Memory backward_;          // (32 rows, place, 32 columns)
  std::vector<float> bias_;  // filled up
  std::size_t groups_ = 0;
  Sheet x_;         // what is read
  Sheet dy_;        // the gradient of what is given
  Numbers few_dy_;  // the same, where windows are made of it
  Sheet sums_;      // the same, added up over the images
};

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_LAYER_HPP_
