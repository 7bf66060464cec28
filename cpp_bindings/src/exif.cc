// How a picture is turned: the steps of vqvae_gluon/data/exif.py.

#include <algorithm>
#include <utility>

#include "pixels.hpp"

namespace vqvae {
namespace {

constexpr std::uint32_t kOrientation = 0x0112;
constexpr std::uint32_t kShort = 3;

// Numbers in either order of bytes. The caller stays within the data.
struct Reader {
  const std::uint8_t* data;
  bool little;

  std::uint32_t number(std::size_t at, std::size_t size) const {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < size; ++i) value = value << 8U | data[little ? at + size - 1 - i : at + i];
    return value;
  }
};

}  // namespace

int exif_orientation(const std::uint8_t* tiff, std::size_t size) {
  if (size < 8 || tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M')) return 1;
  const Reader reader{tiff, tiff[0] == 'I'};
  const std::size_t start = reader.number(4, 4);
  if (reader.number(2, 2) != 42 || start + 2 > size) return 1;
  const std::size_t end = std::min(start + 2 + std::size_t{12} * reader.number(start, 2), size);
  for (std::size_t at = start + 2; at < end && at + 12 <= size; at += 12) {
    if (reader.number(at, 2) != kOrientation) continue;
    const std::uint32_t value = reader.number(at + 8, 2);
    const bool sound = reader.number(at + 2, 2) == kShort && reader.number(at + 4, 4) == 1 && value >= 1 && value <= 8;
    return sound ? static_cast<int>(value) : 1;
  }
  return 1;
}

Tensor upright(Tensor pixels, int turned) {
  if (turned == 1) return pixels;
  const bool swapped = turned > 4;  // Rows and columns; then each may be mirrored.
  const bool rows_mirrored = turned == 3 || turned == 4 || turned == 7 || turned == 8;
  const bool columns_mirrored = turned == 2 || turned == 3 || turned == 6 || turned == 7;
  Shape shape = pixels.shape;
  if (swapped) std::swap(shape[1], shape[2]);
  Tensor result(pixels.dtype, shape);
  const auto height = static_cast<std::ptrdiff_t>(shape[1]);
  const auto width = static_cast<std::ptrdiff_t>(shape[2]);
  const auto channels = static_cast<std::ptrdiff_t>(shape[3]);
  const std::ptrdiff_t stored_width = swapped ? height : width;
  const std::ptrdiff_t step = (swapped ? stored_width : 1) * channels;  // From a pixel to its right neighbour.
  std::uint8_t* out = result.data.data();
  for (std::ptrdiff_t y = 0; y < height; ++y) {
    const std::ptrdiff_t row = rows_mirrored ? height - 1 - y : y;
    const std::ptrdiff_t column = columns_mirrored ? width - 1 : 0;
    const std::uint8_t* in =
        pixels.data.data() + (swapped ? column * stored_width + row : row * stored_width + column) * channels;
    for (std::ptrdiff_t x = 0; x < width; ++x, in += columns_mirrored ? -step : step) {
      out = std::copy(in, in + channels, out);
    }
  }
  return result;
}

}  // namespace vqvae
