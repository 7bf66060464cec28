#include "matmul.hpp"

#include <immintrin.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace vqvae::kernels {
namespace {

constexpr std::size_t kTile = 16;                        // rows and columns of a tile
constexpr std::size_t kTileBytes = kTile * kChunkBytes;  // of any tile

struct alignas(kAlignment) TileConfig {
  std::uint8_t palette;
  std::uint8_t start_row;
  std::uint8_t reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};

// Eight tiles of 16 rows of 64 bytes. Not on the stack: gcc takes the intrinsic to read its first bytes alone, and
// leaves the others out.
constexpr TileConfig kEightTiles = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// How many tiles a block has: two rows of them or one, two columns or one.
enum class Tiling { kWhole, kOneRow, kOneColumn, kOne };

constexpr bool has_two_rows(Tiling tiling) { return tiling == Tiling::kWhole || tiling == Tiling::kOneColumn; }
constexpr bool has_two_columns(Tiling tiling) { return tiling == Tiling::kWhole || tiling == Tiling::kOneRow; }

// Tiles 0..3 are the result's two by two, 4 and 5 the left operand's, 6 and 7 the right one's.
template <Tiling tiling>
inline void load_left(const std::uint8_t* left) {
  _tile_loadd(4, left, kChunkBytes);
  if constexpr (has_two_rows(tiling)) _tile_loadd(5, left + kTileBytes, kChunkBytes);
}

template <Tiling tiling>
inline void load_right(const std::uint8_t* right) {
  _tile_loadd(6, right, kChunkBytes);
  if constexpr (has_two_columns(tiling)) _tile_loadd(7, right + kTileBytes, kChunkBytes);
}

// AMX's instructions take the numbers of their tiles as constants.
#define VQVAE_ADD_PRODUCTS(instruction)                        \
  instruction(0, 4, 6);                                        \
  if constexpr (has_two_columns(tiling)) instruction(1, 4, 7); \
  if constexpr (has_two_rows(tiling)) instruction(2, 5, 6);    \
  if constexpr (tiling == Tiling::kWhole) instruction(3, 5, 7)

template <Format format, Tiling tiling>
inline void add_products() {
  if constexpr (format == Format::kByte) {
    VQVAE_ADD_PRODUCTS(_tile_dpbusd);
  } else if constexpr (format == Format::kSignedByte) {
    VQVAE_ADD_PRODUCTS(_tile_dpbssd);
  } else {
    VQVAE_ADD_PRODUCTS(_tile_dpbf16ps);
  }
}

#undef VQVAE_ADD_PRODUCTS

// The left operand of a block.
struct Left {
  const std::uint8_t* base;
  const std::size_t* offsets;
  std::size_t outer;
  std::size_t inner;
  std::size_t chunks;
  std::size_t chunk_stride;
  std::size_t plane_stride;
};

// From the small products to the large ones, and each operand loaded as rarely as eight tiles allow.
template <Tiling tiling>
inline void multiply_split(const std::uint8_t* left, std::size_t plane_stride, const std::uint8_t* right) {
  const std::uint8_t* middle = right + 2 * kTileBytes;
  const std::uint8_t* low = right + 4 * kTileBytes;
  load_left<tiling>(left + 2 * plane_stride);
  load_right<tiling>(right);
  add_products<Format::kSplit, tiling>();
  load_left<tiling>(left + plane_stride);
  add_products<Format::kSplit, tiling>();
  load_right<tiling>(middle);
  add_products<Format::kSplit, tiling>();
  load_left<tiling>(left);
  add_products<Format::kSplit, tiling>();
  load_right<tiling>(low);
  add_products<Format::kSplit, tiling>();
  load_right<tiling>(right);
  add_products<Format::kSplit, tiling>();
}

// The same of two planes.
template <Tiling tiling>
inline void multiply_halves(const std::uint8_t* left, const std::uint8_t* right) {
  load_left<tiling>(left + kPlaneBytes);
  load_right<tiling>(right);
  add_products<Format::kSplit, tiling>();
  load_left<tiling>(left);
  add_products<Format::kSplit, tiling>();
  load_right<tiling>(right + kPlaneBytes);
  add_products<Format::kSplit, tiling>();
}

template <Format format, Tiling tiling>
void multiply_chunks(const Left& left, const std::uint8_t* right) {
  constexpr std::size_t kStep = 2 * kTileBytes;
  for (std::size_t o = 0; o < left.outer; ++o) {
    for (std::size_t chunk = 0; chunk < left.chunks; ++chunk) {
      // Innermost the pixels whose neighbours have just been read.
      for (std::size_t i = 0; i < left.inner; ++i) {
        const std::uint8_t* pixel = left.base + left.offsets[o * left.inner + i] + chunk * left.chunk_stride;
        if constexpr (format == Format::kSplit) {
          multiply_split<tiling>(pixel, left.plane_stride, right);
          right += 3 * kStep;
        } else {
          load_left<tiling>(pixel);
          load_right<tiling>(right);
          add_products<format, tiling>();
          right += kStep;
        }
      }
    }
  }
}

template <Format format>
void multiply_tiles(const Left& left, const std::uint8_t* right, bool two_rows, bool two_columns) {
  if (two_rows && two_columns) {
    multiply_chunks<format, Tiling::kWhole>(left, right);
  } else if (two_columns) {
    multiply_chunks<format, Tiling::kOneRow>(left, right);
  } else if (two_rows) {
    multiply_chunks<format, Tiling::kOneColumn>(left, right);
  } else {
    multiply_chunks<format, Tiling::kOne>(left, right);
  }
}

constexpr std::size_t kResultStride = kBlock * sizeof(float);

inline void clear_result() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void load_result(const float* block) {
  _tile_loadd(0, block, kResultStride);
  _tile_loadd(1, block + kTile, kResultStride);
  _tile_loadd(2, block + kTile * kBlock, kResultStride);
  _tile_loadd(3, block + kTile * kBlock + kTile, kResultStride);
}

inline void store_result(float* block) {
  _tile_stored(0, block, kResultStride);
  _tile_stored(1, block + kTile, kResultStride);
  _tile_stored(2, block + kTile * kBlock, kResultStride);
  _tile_stored(3, block + kTile * kBlock + kTile, kResultStride);
}

void to_floats(float* block) {
  for (std::size_t i = 0; i < kBlock * kBlock; i += kTile) {
    const __m512i whole = _mm512_load_si512(block + i);
    _mm512_store_ps(block + i, _mm512_cvtepi32_ps(whole));
  }
}

std::uint16_t take_bfloat16(float* value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, value, sizeof bits);
  const std::uint32_t kept = bits & 0xffff0000U;
  float taken = 0;
  std::memcpy(&taken, &kept, sizeof taken);
  *value -= taken;
  return static_cast<std::uint16_t>(kept >> 16);
}

}  // namespace

void Free::operator()(void* memory) const { std::free(memory); }

Memory allocate(std::size_t bytes) {
  const std::size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
  void* memory = std::aligned_alloc(kAlignment, whole);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, whole);
  return Memory(static_cast<std::uint8_t*>(memory));
}

Tiles::Tiles() { _tile_loadconfig(&kEightTiles); }

Tiles::~Tiles() { _tile_release(); }

Weights::Weights(Format format, const std::vector<float>& values, std::size_t outer, std::size_t inner,
                 std::size_t channels, std::size_t columns)
    : format_(format),
      outer_(outer),
      inner_(inner),
      chunks_(pixel_bytes(format, channels) / kChunkBytes),
      columns_(columns),
      packed_(
          allocate((columns + kBlock - 1) / kBlock * outer * inner * chunks_ * plane_count(format) * 2 * kTileBytes)) {
  const std::size_t planes = plane_count(format);
  const std::size_t size = element_bytes(format);
  const std::size_t per_chunk = kChunkBytes / size;
  const std::size_t together = 4 / size;  // elements of a column that lie side by side
  const float* next = values.data();
  for (std::size_t o = 0; o < outer; ++o) {
    for (std::size_t i = 0; i < inner; ++i) {
      for (std::size_t k = 0; k < channels; ++k) {
        for (std::size_t n = 0; n < columns; ++n) {
          const std::size_t block = ((n / kBlock * outer + o) * chunks_ + k / per_chunk) * inner + i;
          const std::size_t within =
              k % per_chunk / together * kChunkBytes + (n % kTile * together + k % together) * size;
          float value = *next++;
          for (std::size_t plane = 0; plane < planes; ++plane) {
            std::uint8_t* place =
                packed_.get() + ((block * planes + plane) * 2 + n % kBlock / kTile) * kTileBytes + within;
            if (size == 1) {
              *place = static_cast<std::uint8_t>(static_cast<std::int8_t>(value));
            } else {
              const std::uint16_t half = take_bfloat16(&value);
              std::memcpy(place, &half, sizeof half);
            }
          }
        }
      }
    }
  }
}

void Weights::multiply(const std::uint8_t* left, const std::vector<std::size_t>& offsets, std::size_t chunk_stride,
                       std::size_t plane_stride, std::size_t rows, std::size_t first, float* block) const {
  const std::size_t block_bytes = outer_ * inner_ * chunks_ * plane_count(format_) * 2 * kTileBytes;
  const std::uint8_t* right = packed_.get() + first / kBlock * block_bytes;
  const Left operand = {left, offsets.data(), outer_, inner_, chunks_, chunk_stride, plane_stride};
  const bool two_rows = rows > kTile;
  const bool two_columns = columns_ - first > kTile;
  clear_result();
  switch (format_) {
    case Format::kSplit:
      multiply_tiles<Format::kSplit>(operand, right, two_rows, two_columns);
      break;
    case Format::kHalf:
      multiply_tiles<Format::kHalf>(operand, right, two_rows, two_columns);
      break;
    case Format::kByte:
      multiply_tiles<Format::kByte>(operand, right, two_rows, two_columns);
      break;
    case Format::kSignedByte:
      multiply_tiles<Format::kSignedByte>(operand, right, two_rows, two_columns);
      break;
  }
  store_result(block);
  if (element_bytes(format_) == 1) to_floats(block);
}

void multiply(const std::uint8_t* left, const std::uint8_t* right, const std::vector<Factors>& products,
              std::size_t columns, bool more, float* block) {
  if (more) {
    load_result(block);
  } else {
    clear_result();
  }
  const auto each = [&](const auto& add_product) {
    for (const Factors& at : products) add_product(left + at.left, right + at.right);
  };
  columns > kTile ? each(multiply_halves<Tiling::kWhole>) : each(multiply_halves<Tiling::kOneColumn>);
  store_result(block);
}

}  // namespace vqvae::kernels
