// The steps of a program, made of a graph and its parameters for images of one size.
#ifndef VQVAE_KERNELS_PLAN_HPP_
#define VQVAE_KERNELS_PLAN_HPP_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block.hpp"
#include "graph.hpp"
#include "matmul.hpp"
#include "program.hpp"

namespace vqvae::kernels {

struct Extent {
  std::size_t channels = 0;
  std::size_t height = 0;
  std::size_t width = 0;

  std::size_t pixels() const { return height * width; }
};

// The windows that a convolution takes of an image: `rows` by `columns` pixels, the first one beginning at (y, x), each
// `stride` pixels from the one before; `grid_height` by `grid_width` of them.
struct Windows {
  std::size_t rows = 1;
  std::size_t columns = 1;
  std::size_t stride = 1;
  int y = 0;
  int x = 0;
  std::size_t grid_height = 0;
  std::size_t grid_width = 0;

  bool operator==(const Windows& other) const {
    return rows == other.rows && columns == other.columns && stride == other.stride && y == other.y && x == other.x &&
           grid_height == other.grid_height && grid_width == other.grid_width;
  }
};

// What one step writes and later ones read. As floats: (y, x, image, channel).
//
// As the operand of a product: (plane, chunk of channels, x % stride, y % stride, y / stride, x / stride, image,
// channel), where x and y count from the first window on. So the pixels that successive windows have at one place lie
// one behind the other, and a tile of AMX is a piece of memory. Where windows hang over the edge there are zeros, which
// the end of one row and the beginning of the next have in common; the windows that would lie across both are nobody's.
//
// Of images with few channels whole windows are laid out, one behind the other ("folded").
struct Tensor {
  Extent extent;
  bool is_operand = false;
  Format format = Format::kSplit;
  Windows windows;
  bool by_channel = false;  // folded windows are (channel, row, column), not (column, row, channel)
  std::size_t pitch = 0;    // of an operand: windows and gap of a row, in pixels
  std::size_t first_step = 0;
  std::size_t last_step = 0;

  bool folded() const {
    const std::size_t pixels = windows.rows * windows.columns;
    return pixels > 1 && pixels * extent.channels * element_bytes(format) <= (by_channel ? 2 : 1) * kChunkBytes;
  }
  std::size_t channels() const { return folded() ? windows.rows * windows.columns * extent.channels : extent.channels; }
  // Bytes from one pixel to the next.
  std::size_t pixel() const { return is_operand ? kChunkBytes : extent.channels * sizeof(float); }
  std::size_t chunks() const { return pixel_bytes(format, channels()) / kChunkBytes; }
  // Rows that begin every `stride` rows at the same one.
  std::size_t lines() const { return windows.grid_height + (folded() ? 0 : (windows.rows - 1) / windows.stride); }
  std::size_t stride() const { return folded() ? 1 : windows.stride; }
  std::size_t line(std::size_t images) const { return images * pitch * pixel(); }
  // All rows of every `stride`-th column, and what the last windows have beyond them.
  std::size_t copy(std::size_t images) const {
    return stride() * lines() * line(images) + windows.columns * images * pixel();
  }
  // One chunk of all pixels, and all chunks.
  std::size_t sheet(std::size_t images) const { return stride() * copy(images); }
  std::size_t plane(std::size_t images) const { return chunks() * sheet(images); }
  std::size_t bytes(std::size_t images) const {
    if (is_operand) return plane(images) * plane_count(format);
    return (images * extent.pixels() * pixel() + kAlignment - 1) / kAlignment * kAlignment;
  }
};

// A product of an operand's windows, or of a part of each, with weights. A transposed convolution is one for each place
// within its stride, or one for all of them, side by side in the columns.
struct Product {
  std::shared_ptr<const Weights> weights;
  std::size_t top = 0;  // the part of the windows
  std::size_t left = 0;
  std::size_t rows = 1;
  std::size_t columns = 1;
  std::size_t offset_y = 0;  // results are `spread` pixels apart, from here on
  std::size_t offset_x = 0;
  std::size_t places = 1;  // side by side in the columns: spread * spread, or 1
};

// What is done to a block, in order.
struct Action {
  enum class Kind { kFunction, kAddChannels, kScaleChannels, kAddTensor, kSmallest, kStore, kOutput };

  Kind kind = Kind::kFunction;
  Function function = Function::kRelu;
  float a = 0;
  float b = 0;
  std::shared_ptr<const std::vector<float>> numbers;  // one for each channel
  std::size_t tensor = 0;                             // to add, or to store in
  std::size_t output = 0;                             // number of the graph's
  std::size_t channels = 0;                           // of the output
  bool channels_last = false;                         // of the output
};

struct Step {
  // kWindows lays the windows of images out, folded; the actions are functions, and the tensor is its own.
  enum class Source { kProduct, kImages, kWindows, kCodes, kFloats, kNothing };

  Source source = Source::kProduct;
  std::size_t input = 0;  // tensor, or number of the variable
  std::vector<Product> products;
  std::size_t output = 0;  // tensor, of kWindows
  std::size_t spread = 1;
  bool searches = false;  // for the smallest number of each pixel
  std::shared_ptr<const std::vector<float>> codebook;
  Extent extent;  // of what is written
  std::vector<Action> actions;
};

struct Plan {
  std::vector<Tensor> tensors;
  std::vector<Step> steps;
  // Outputs that are parameters, or made of them.
  std::vector<std::pair<std::size_t, std::shared_ptr<const std::vector<float>>>> fixed_outputs;
  std::size_t images = 0;
  bool is_for_one_run = false;  // made for the numbers that are fed, not only for the parameters
};

// The function that a node applies to every number. Throws std::invalid_argument.
void set_function(const Node& node, Action* action);

// Throws std::invalid_argument.
Plan make_plan(const Graph& graph, const std::vector<Data>& inputs);

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_PLAN_HPP_
