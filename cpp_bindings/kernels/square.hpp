// A block of one pixel of 32 images by 32 channels, as training computes it: its functions, and its three forms as an
// operand of a product.
#ifndef VQVAE_KERNELS_SQUARE_HPP_
#define VQVAE_KERNELS_SQUARE_HPP_

#include <cstddef>
#include <cstdint>

#include "block.hpp"
#include "matmul.hpp"

namespace vqvae::kernels {

constexpr std::size_t kSquare = kBlock * kBlock;  // numbers of a block, (image, channel) in C order

// As the left operand of a product over channels: rows are images.
void to_left(const float* block, std::uint8_t* operand);
// Of such an operand, the right one of a product over its rows ...
void to_right(const std::uint8_t* left, std::uint8_t* operand);
// ... or over its columns, so that its rows are the columns of the product ...
void to_turned_right(const std::uint8_t* left, std::uint8_t* operand);
// For a product over the rows of both, the right and the left one; the columns of the first are those of the product,
// the columns of the second its rows, both in the order of `mixed`, which is faster.
void to_mixed_right(const std::uint8_t* left, std::uint8_t* operand);
void to_mixed_left(const std::uint8_t* left, std::uint8_t* operand);

// The column of the operand that is at this place of the product.
constexpr std::size_t mixed(std::size_t place) { return place % 16 / 4 * 8 + place / 16 * 4 + place % 4; }

void clear(float* block);
void copy(const float* block, float* to);
void add(const float* block, float* to);
void add_columns(const float* numbers, float* block);
void sum_columns(const float* block, float* numbers);

// The first `width` numbers of each row, one row behind the other, and back, with zeros; 8 or 32 of them.
void narrow(const float* block, std::size_t width, float* to);
void widen(const float* numbers, std::size_t width, float* block);

// Rows and columns exchanged of up to 16 by 16 numbers, whose rows are so far apart.
void turn(const float* from, std::size_t from_step, std::size_t rows, std::size_t columns, float* to,
          std::size_t to_step);

// Multiply a gradient by the derivative of a function, of which `result` is the value.
void derive(Function function, float a, const float* result, float* gradient);
// The same of a rectifier, whose value is kept as an operand.
void derive_relu(const std::uint8_t* left, float* gradient);

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_SQUARE_HPP_
