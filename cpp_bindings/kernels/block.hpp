// A block of 32 pixels by 32 channels on its way from a product to memory, and what is done to it there.
#ifndef VQVAE_KERNELS_BLOCK_HPP_
#define VQVAE_KERNELS_BLOCK_HPP_

#include <cstddef>
#include <cstdint>

#include "matmul.hpp"

namespace vqvae::kernels {

// Where a row of a block is in the tensors of its images.
struct Place {
  std::size_t image = 0;
  std::size_t y = 0;
  std::size_t x = 0;
};

struct Block {
  alignas(kAlignment) float values[kBlock * kBlock];  // C order
  std::size_t rows = 0;
  std::size_t columns = 0;  // 1..32
  std::size_t first = 0;    // channel of the first column
  Place places[kBlock];
};

// Functions of one number.
enum class Function { kPlus, kTimes, kOver, kClip, kRelu, kTanh, kSigmoid, kRint, kHalf };

// `a` and `b` are the scalar, or the two bounds of a clip.
void apply(Function function, float a, float b, Block* block);
void apply(Function function, float a, float b, float* numbers, std::size_t count);

// Add, or multiply by, one number for each channel.
void add_channels(const float* numbers, Block* block);
void scale_channels(const float* numbers, Block* block);

// The rows of a tensor of floats; rows[i] is where row i of the block begins, its first column already counted.
void load(const float* const* rows, Block* block);
void add(const float* const* rows, Block* block);
void store(float* const* rows, const Block& block);

// The same as an operand of a product; plane p of a row is p * plane_stride bytes further on. Rows that are null are
// left out.
void store_operand(Format format, std::uint8_t* const* rows, std::size_t plane_stride, const Block& block);

// So many numbers of one pixel, and zeros up to the end of the last chunk; the chunks are so many bytes apart.
void store_numbers(Format format, std::uint8_t* place, std::size_t chunk_stride, std::size_t plane_stride,
                   const float* numbers, std::size_t count);

// The smallest number of each row, over blocks of ascending columns, and the first column where it is.
class Smallest {
 public:
  void start();
  void look(const Block& block);
  // Put that column's number into the first column.
  void give(Block* block) const;

 private:
  static constexpr std::size_t kLanes = 16;

  alignas(kAlignment) float values_[kBlock * kLanes];
  alignas(kAlignment) std::int32_t columns_[kBlock * kLanes];
};

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_BLOCK_HPP_
