// A convolution, or a transposed one, as training sees it: which pixels it links by which place of its kernel. What it
// gives, and both of its gradients, are sums of products along these links.
#ifndef VQVAE_KERNELS_LINK_HPP_
#define VQVAE_KERNELS_LINK_HPP_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph.hpp"
#include "plan.hpp"

namespace vqvae::kernels {

// How the kernel is taken as matrices of (channels read, channels given), one for each place. An image of few channels
// is laid out as windows, so that a place of the kernel and a channel are one channel together, and there is one
// matrix.
enum class Form { kPlain, kInputWindows, kOutputWindows };

struct Tap {
  std::uint32_t pixel;  // on the other side
  std::uint32_t place;  // of the kernel
};

class Link {
 public:
  // Throws std::invalid_argument if there is no result.
  Link(const Node& node, const Extent& in);

  const Extent& in() const { return in_; }
  const Extent& out() const { return out_; }
  std::size_t kernel_size() const { return in_.channels * out_.channels * places_; }

  // How the kernel is read going forward, for the input's gradient, and for its own.
  Form forward() const { return windows_ == Form::kInputWindows ? windows_ : Form::kPlain; }
  Form backward() const { return windows_ == Form::kOutputWindows ? windows_ : Form::kPlain; }
  Form own() const { return windows_; }

  std::size_t places(Form form) const { return form == Form::kPlain ? places_ : 1; }
  std::size_t rows(Form form) const { return in_.channels * (form == Form::kInputWindows ? places_ : 1); }
  std::size_t columns(Form form) const { return out_.channels * (form == Form::kOutputWindows ? places_ : 1); }
  // Where MXNet's array has an entry of a matrix.
  std::size_t address(Form form, std::size_t row, std::size_t column, std::size_t place) const {
    if (form == Form::kInputWindows) return row / places_ * row_step_ + column * column_step_ + row % places_;
    if (form == Form::kOutputWindows) return row * row_step_ + column / places_ * column_step_ + column % places_;
    return row * row_step_ + column * column_step_ + place;
  }

  // For each pixel of the output, those of the input that it takes; and the other way round.
  const std::vector<std::vector<Tap>>& taken() const { return taken_; }
  const std::vector<std::vector<Tap>>& given() const { return given_; }

  // The windows: for each of these pixels, and each place, the pixel of the image that is there, or kOutside.
  static constexpr std::uint32_t kOutside = ~std::uint32_t{0};
  std::vector<std::uint32_t> windows() const;

 private:
  Extent in_;
  Extent out_;
  std::size_t places_;
  std::size_t row_step_;
  std::size_t column_step_;
  Form windows_ = Form::kPlain;
  std::vector<std::vector<Tap>> taken_;
  std::vector<std::vector<Tap>> given_;
};

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_LINK_HPP_
