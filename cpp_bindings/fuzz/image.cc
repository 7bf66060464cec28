// PNG and JPEG files, as gray and as colours: the pixels fit the size, and written as PNG they are read again.
#include "vqvae/image.hpp"

#include <algorithm>
#include <cstring>

#include "target.hpp"

namespace {

constexpr std::size_t kSignature = 8;
// A chunk of a PNG: length, type, data, CRC.
constexpr std::size_t kLength = 4;
constexpr std::size_t kType = 4;
constexpr std::size_t kCrc = 4;

// Large images are legal, and cost time and no new paths.
constexpr std::size_t kMaxPixels = std::size_t{1} << 20U;

std::uint32_t big_endian(const std::uint8_t* at) {
  return std::uint32_t{at[0]} << 24U | std::uint32_t{at[1]} << 16U | std::uint32_t{at[2]} << 8U | at[3];
}

bool is_png(const std::uint8_t* data, std::size_t size) {
  return size >= kSignature && std::memcmp(data, "\x89PNG\r\n\x1a\n", kSignature) == 0;
}

// Pixels that the file claims to have; 0 where it cannot be told.
std::size_t claimed_pixels(const vqvae::Bytes& bytes) {
  if (is_png(bytes.data(), bytes.size())) {
    return bytes.size() < 24 ? 0 : std::size_t{big_endian(&bytes[16])} * big_endian(&bytes[20]);
  }
  std::size_t most = 0;
  for (std::size_t i = 0; i + 9 <= bytes.size(); ++i) {  // Anything that may be a start of frame.
    if (bytes[i] != 0xFF || bytes[i + 1] < 0xC0 || bytes[i + 1] > 0xCF) continue;
    const std::size_t height = bytes[i + 5] * 256U + bytes[i + 6];
    const std::size_t width = bytes[i + 7] * 256U + bytes[i + 8];
    most = std::max(most, height * width);
  }
  return most;
}

void check_as(const vqvae::Bytes& bytes, int channels) {
  const vqvae::Tensor image = vqvae::decode_image(bytes, channels, "fuzz");
  require(is_whole(image) && image.dtype == vqvae::DType::kUint8, "the pixels fit the shape");
  require(image.shape.size() == 4 && image.shape[0] == 1 && image.shape[3] == channels, "there is one image");
  const vqvae::Bytes png = vqvae::encode_png(image, 0);
  require(equal(image, vqvae::decode_image(png, channels, "fuzz")), "the pixels are read again as they were");
}

}  // namespace

void check(const vqvae::Bytes& bytes) {
  if (claimed_pixels(bytes) > kMaxPixels) return;
  check_as(bytes, 1);
  check_as(bytes, 3);
}

// Pixels, their copies when they are turned, padded or made gray, and the PNG of the round trip; libjpeg holds the
// coefficients of a progressive file, 6 bytes a pixel and more.
std::size_t budget(const vqvae::Bytes& bytes) {
  return parser_budget(bytes) + 64 * std::min(claimed_pixels(bytes), kMaxPixels);
}

void mend(std::uint8_t* data, std::size_t size) {
  if (!is_png(data, size)) return;
  for (std::size_t at = kSignature; size - at >= kLength + kType + kCrc;) {
    const std::size_t length = big_endian(data + at);
    if (length > size - at - kLength - kType - kCrc) return;
    const std::uint32_t crc = crc32(data + at + kLength, kType + length);
    at += kLength + kType + length;
    for (const unsigned shift : {24U, 16U, 8U, 0U}) data[at++] = static_cast<std::uint8_t>(crc >> shift);
  }
}
