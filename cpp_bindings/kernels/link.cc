#include "link.hpp"

#include "convolution.hpp"
#include "sheet.hpp"

namespace vqvae::kernels {

Link::Link(const Node& node, const Extent& in) : in_(in), out_(Convolution(node, in).extent()) {
  const bool transposed = node.op == "Deconvolution";
  const auto [rows, columns] = node.pair("kernel", 1);
  const int stride = node.pair("stride", 1).first;
  const auto [pad_y, pad_x] = node.pair("pad", 0);
  places_ = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  // Both keep their kernels as (small side, large side, row, column).
  row_step_ = transposed ? out_.channels * places_ : places_;
  column_step_ = transposed ? places_ : in_.channels * places_;
  if (places_ > 1 && in_.channels <= Numbers::kFewChannels) {
    windows_ = Form::kInputWindows;
  } else if (places_ > 1 && out_.channels <= Numbers::kFewChannels) {
    windows_ = Form::kOutputWindows;
  }
  taken_.resize(out_.pixels());
  given_.resize(in_.pixels());
  const Extent& small = transposed ? in_ : out_;
  const Extent& large = transposed ? out_ : in_;
  for (std::size_t pixel = 0; pixel < small.pixels(); ++pixel) {
    for (int place = 0; place < rows * columns; ++place) {
      const int y = static_cast<int>(pixel / small.width) * stride + place / columns - pad_y;
      const int x = static_cast<int>(pixel % small.width) * stride + place % columns - pad_x;
      if (y < 0 || x < 0 || y >= static_cast<int>(large.height) || x >= static_cast<int>(large.width)) continue;
      const std::size_t other = static_cast<std::size_t>(y) * large.width + static_cast<std::size_t>(x);
      const auto from = static_cast<std::uint32_t>(transposed ? pixel : other);
      const auto to = static_cast<std::uint32_t>(transposed ? other : pixel);
      taken_[to].push_back({from, static_cast<std::uint32_t>(place)});
      given_[from].push_back({to, static_cast<std::uint32_t>(place)});
    }
  }
}

std::vector<std::uint32_t> Link::windows() const {
  const std::vector<std::vector<Tap>>& taps = windows_ == Form::kInputWindows ? taken_ : given_;
  std::vector<std::uint32_t> result(taps.size() * places_, kOutside);
  for (std::size_t pixel = 0; pixel < taps.size(); ++pixel) {
    for (const Tap& tap : taps[pixel]) result[pixel * places_ + tap.place] = tap.pixel;
  }
  return result;
}

}  // namespace vqvae::kernels
