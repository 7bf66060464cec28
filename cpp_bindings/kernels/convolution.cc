#include "convolution.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>

namespace vqvae::kernels {
namespace {

constexpr std::size_t kFewColumns = 16;  // one tile

int floor_divide(int a, int b) { return a / b - (a % b < 0 ? 1 : 0); }

// Output pixel y * stride + place of a transposed convolution takes input pixel y + d by kernel row
// place + pad - d * stride: the first d and the last.
int first_tap(int place, int pad, int size, int stride) { return -floor_divide(size - 1 - place - pad, stride); }
int last_tap(int place, int pad, int stride) { return floor_divide(place + pad, stride); }

std::size_t natural(int number) { return static_cast<std::size_t>(number); }

}  // namespace

Convolution::Convolution(const Node& node, const Extent& in)
    : transposed_(node.op == "Deconvolution"),
      height_(node.pair("kernel", 1).first),
      width_(node.pair("kernel", 1).second),
      stride_(node.pair("stride", 1).first),
      pad_y_(node.pair("pad", 0).first),
      pad_x_(node.pair("pad", 0).second),
      filters_(static_cast<std::size_t>(node.number("num_filter", 0))),
      in_(in) {
  const auto adjust = node.pair("adj", 0);
  const auto side = [&](std::size_t extent, int size, int pad, int more) {
    const int whole = static_cast<int>(extent);
    const int result =
        transposed_ ? (whole - 1) * stride_ - 2 * pad + size + more : (whole + 2 * pad - size) / stride_ + 1;
    if (result < 1) throw std::invalid_argument(node.name + " takes too small an image");
    return natural(result);
  };
  out_ = {filters_, side(in.height, height_, pad_y_, adjust.first), side(in.width, width_, pad_x_, adjust.second)};
}

std::size_t Convolution::kernel_size() const { return filters_ * in_.channels * natural(height_) * natural(width_); }

Windows Convolution::windows() const {
  if (!transposed_) {
    return {natural(height_), natural(width_), natural(stride_), -pad_y_, -pad_x_, out_.height, out_.width};
  }
  const int y = first_tap(0, pad_y_, height_, stride_);
  const int x = first_tap(0, pad_x_, width_, stride_);
  const int rows = last_tap(stride_ - 1, pad_y_, stride_) - y + 1;
  const int columns = last_tap(stride_ - 1, pad_x_, stride_) - x + 1;
  return {natural(rows),
          natural(columns),
          1,
          y,
          x,
          (out_.height + spread() - 1) / spread(),
          (out_.width + spread() - 1) / spread()};
}

std::vector<Product> Convolution::products(const std::vector<float>& kernel, const Tensor& operand) const {
  std::vector<Place> places;
  for (int y = 0; y < static_cast<int>(spread()); ++y) {
    for (int x = 0; x < static_cast<int>(spread()); ++x) places.push_back({y, x});
  }
  Product whole;
  whole.rows = operand.windows.rows;
  whole.columns = operand.windows.columns;
  if (places.size() * filters_ <= kFewColumns || places.size() == 1) return {multiply(whole, places, kernel, operand)};
  std::vector<Product> result;
  for (const Place& place : places) result.push_back(multiply(part_of(place, operand), {place}, kernel, operand));
  return result;
}

// The part of the windows that one place takes. A folded window is one pixel, and is taken whole.
Product Convolution::part_of(const Place& place, const Tensor& operand) const {
  const Windows& windows = operand.windows;
  Product part;
  part.rows = windows.rows;
  part.columns = windows.columns;
  part.offset_y = natural(place.y);
  part.offset_x = natural(place.x);
  if (operand.folded()) return part;
  const int top = first_tap(place.y, pad_y_, height_, stride_);
  const int left = first_tap(place.x, pad_x_, width_, stride_);
  part.top = natural(top - windows.y);
  part.left = natural(left - windows.x);
  part.rows = natural(last_tap(place.y, pad_y_, stride_) - top + 1);
  part.columns = natural(last_tap(place.x, pad_x_, stride_) - left + 1);
  return part;
}

// The kernel as a matrix: (window column, window row, channel) by (place, filter), in the operand's order.
Product Convolution::multiply(Product part, const std::vector<Place>& places, const std::vector<float>& kernel,
                              const Tensor& operand) const {
  const Windows& windows = operand.windows;
  const std::size_t channels = in_.channels;
  const std::size_t wide = places.size() * filters_;
  std::vector<float> matrix(part.rows * part.columns * channels * wide, 0.0F);
  for (std::size_t place = 0; place < places.size(); ++place) {
    for (std::size_t r = 0; r < part.rows; ++r) {
      for (std::size_t c = 0; c < part.columns; ++c) {
        const int row = static_cast<int>(part.top + r);
        const int column = static_cast<int>(part.left + c);
        const int y = transposed_ ? places[place].y + pad_y_ - (windows.y + row) * stride_ : row;
        const int x = transposed_ ? places[place].x + pad_x_ - (windows.x + column) * stride_ : column;
        if (y < 0 || y >= height_ || x < 0 || x >= width_) continue;
        for (std::size_t channel = 0; channel < channels; ++channel) {
          const std::size_t depth = operand.by_channel ? (channel * part.rows + r) * part.columns + c
                                                       : (c * part.rows + r) * channels + channel;
          float* to = &matrix[depth * wide + place * filters_];
          for (std::size_t filter = 0; filter < filters_; ++filter) {
            const std::size_t map = transposed_ ? channel * filters_ + filter : filter * channels + channel;
            to[filter] = kernel[(map * natural(height_) + natural(y)) * natural(width_) + natural(x)];
          }
        }
      }
    }
  }
  part.places = places.size();
  part.weights = operand.folded()
                     ? std::make_shared<const Weights>(operand.format, matrix, 1, 1, matrix.size() / wide, wide)
                     : std::make_shared<const Weights>(operand.format, matrix, part.columns, part.rows, channels, wide);
  return part;
}

}  // namespace vqvae::kernels
