// Matrix products on AMX, of operands kept as bfloat16 or bytes.
//
// A float32 number is the exact sum of three bfloat16 numbers of 8 significant bits each. The product of two such sums
// is nine products; the six that are not smaller than float32's own rounding are computed by AMX's bfloat16 units,
// which add up in float32. So float32 matrices are multiplied with float32's accuracy, about three times as fast as by
// AVX-512's float32 units (the idea: Henry, Tang and Heinecke 2019, arXiv:1904.06376).
#ifndef VQVAE_KERNELS_MATMUL_HPP_
#define VQVAE_KERNELS_MATMUL_HPP_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace vqvae::kernels {

// How the left operand is kept.
enum class Format {
  kSplit,       // float32, as three planes of bfloat16
  kHalf,        // bfloat16, one plane
  kByte,        // 0..255
  kSignedByte,  // -128..127
};

inline std::size_t element_bytes(Format format) {
  return format == Format::kByte || format == Format::kSignedByte ? 1 : 2;
}
inline std::size_t plane_count(Format format) { return format == Format::kSplit ? 3 : 1; }

constexpr std::size_t kBlock = 32;       // rows and columns of a product that is computed at once
constexpr std::size_t kChunkBytes = 64;  // of a row of the left operand that are multiplied at once
constexpr std::size_t kAlignment = 64;

// Bytes that so many channels of a pixel take, filled up with zeros.
inline std::size_t pixel_bytes(Format format, std::size_t channels) {
  return (channels * element_bytes(format) + kChunkBytes - 1) / kChunkBytes * kChunkBytes;
}

struct Free {
  void operator()(void* memory) const;
};
using Memory = std::unique_ptr<std::uint8_t[], Free>;
// Aligned, and zero.
Memory allocate(std::size_t bytes);

// Lives in a thread while it multiplies: AMX's tiles, set up.
class Tiles {
 public:
  Tiles();
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
  ~Tiles();
};

// The right operand, laid out as AMX reads it. The depth of the product is that of windows: `outer` by `inner` pixels
// of so many channels each.
class Weights {
 public:
  // `values` is (outer, inner, channels, columns) in C order. Of kHalf they must be bfloat16 numbers, of bytes whole
  // and -128..127.
  Weights(Format format, const std::vector<float>& values, std::size_t outer, std::size_t inner, std::size_t channels,
          std::size_t columns);

  std::size_t columns() const { return columns_; }

  // Columns first..first+31 of the product, into a C-order block of kBlock x kBlock. `rows` is at most kBlock; memory
  // of whole tiles of 16 rows is read. Chunk c of plane p of pixel (o, i) of row r's window is at
  // left + offsets[o * inner + i] + r * kChunkBytes + c * chunk_stride + p * plane_stride.
  void multiply(const std::uint8_t* left, const std::vector<std::size_t>& offsets, std::size_t chunk_stride,
                std::size_t plane_stride, std::size_t rows, std::size_t first, float* block) const;

 private:
  Format format_;
  std::size_t outer_;
  std::size_t inner_;
  std::size_t chunks_;  // of a pixel
  std::size_t columns_;
  Memory packed_;  // [32 columns][outer][chunk][inner][plane][16 columns] of tiles
};

// 32 by 32 numbers as an operand in training: two planes of two tiles (square.hpp), 16 significant bits in all.
constexpr std::size_t kPlaneBytes = kBlock * kChunkBytes;
constexpr std::size_t kSquareBytes = 2 * kPlaneBytes;
// Where the two of a product are, from the first operand of each side on.
struct Factors {
  std::size_t left;
  std::size_t right;
};

// The sum of products of such operands, of whose columns so many are wanted, as a C-order block of kBlock x kBlock;
// with `more`, what is added to the block that is there. Of the four products of planes three are computed.
void multiply(const std::uint8_t* left, const std::uint8_t* right, const std::vector<Factors>& products,
              std::size_t columns, bool more, float* block);

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_MATMUL_HPP_
