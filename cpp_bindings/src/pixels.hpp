// What reads the kinds of image files: bytes in, pixels as they are stored out.
#ifndef VQVAE_PIXELS_HPP_
#define VQVAE_PIXELS_HPP_

#include <cstddef>
#include <cstdint>
#include <string>

#include "vqvae/error.hpp"
#include "vqvae/tensor.hpp"

namespace vqvae {

// Pillow refuses the same number, as a decompression bomb.
constexpr std::uint64_t kMaxPixels = 178956970;

struct Picture {
  Tensor pixels;   // uint8 (1, H, W, 1) of a gray image, else (1, H, W, 3).
  int turned = 1;  // The orientation of its EXIF data.
};

// The bytes begin as PNG or JPEG files do. The name is for messages. Throws InputError.
Picture read_png(const Bytes& bytes, const std::string& name);
Picture read_jpeg(const Bytes& bytes, const std::string& name);

// The orientation 1..8 of the EXIF data that begins with a TIFF header; 1, not turned, if it tells none or is damaged.
int exif_orientation(const std::uint8_t* tiff, std::size_t size);

// Pixels (1, H, W, C) as they are to be seen.
Tensor upright(Tensor pixels, int turned);

inline InputError unreadable(const std::string& name, const std::string& why) {
  return {name, "is not a readable PNG or JPEG image (" + why + ")"};
}

}  // namespace vqvae

#endif  // VQVAE_PIXELS_HPP_
