#include "vqvae/image.hpp"

#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "pixels.hpp"
#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr std::array<std::uint8_t, 8> kPng = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::array<std::uint8_t, 3> kJpeg = {0xFF, 0xD8, 0xFF};
constexpr std::size_t kMaxBytes = std::size_t{1} << 30U;

template <std::size_t size>
bool begins(const Bytes& bytes, const std::array<std::uint8_t, size>& signature) {
  return bytes.size() >= size && std::equal(signature.begin(), signature.end(), bytes.begin());
}

Tensor luma(const Tensor& rgb) {
  Tensor gray(DType::kUint8, {1, rgb.shape[1], rgb.shape[2], 1});
  const std::uint8_t* in = rgb.data.data();
  for (std::uint8_t& out : gray.data) {
    out = static_cast<std::uint8_t>((19595U * in[0] + 38470U * in[1] + 7471U * in[2] + 32768U) >> 16U);
    in += 3;
  }
  return gray;
}

Tensor repeated(const Tensor& gray) {
  Tensor rgb(DType::kUint8, {1, gray.shape[1], gray.shape[2], 3});
  std::uint8_t* out = rgb.data.data();
  for (const std::uint8_t value : gray.data) out = std::fill_n(out, 3, value);
  return rgb;
}

// Copy (N, A, B) to (N, B, A), element by element through `convert`.
template <typename Out, typename In, typename Convert>
void transpose(const In* in, Out* out, std::size_t n, std::size_t a, std::size_t b, Convert convert) {
  for (std::size_t i = 0; i < n; ++i, in += a * b, out += a * b) {
    for (std::size_t x = 0; x < a; ++x) {
      for (std::size_t y = 0; y < b; ++y) out[y * a + x] = convert(in[x * b + y]);
    }
  }
}

}  // namespace

Tensor decode_image(const Bytes& bytes, int channels, const std::string& name) {
  if (bytes.size() > kMaxBytes) throw unreadable(name, "it is too large");
  if (!begins(bytes, kPng) && !begins(bytes, kJpeg)) throw unreadable(name, "it is of no kind that is known");
  Picture picture = begins(bytes, kPng) ? read_png(bytes, name) : read_jpeg(bytes, name);
  const std::int64_t found = picture.pixels.shape[3];
  if (found == 1 && channels == 3) picture.pixels = repeated(picture.pixels);
  if (found == 3 && channels == 1) picture.pixels = luma(picture.pixels);
  return upright(std::move(picture.pixels), picture.turned);
}

Tensor pad_to(const Tensor& images, std::int64_t multiple) {
  const std::int64_t height = images.shape[1];
  const std::int64_t width = images.shape[2];
  const auto channels = static_cast<std::size_t>(images.shape[3]);
  const auto next = [multiple](std::int64_t side) { return (side + multiple - 1) / multiple * multiple; };
  if (height == next(height) && width == next(width)) return images;
  Tensor padded(DType::kUint8, {images.shape[0], next(height), next(width), images.shape[3]});
  const std::size_t row = static_cast<std::size_t>(width) * channels;
  std::uint8_t* out = padded.data.data();
  for (std::int64_t y = 0; y < images.shape[0] * next(height); ++y) {
    const std::int64_t from = y / next(height) * height + std::min(y % next(height), height - 1);
    const std::uint8_t* in = images.data.data() + static_cast<std::size_t>(from) * row;
    out = std::copy(in, in + row, out);
    for (std::int64_t x = width; x < next(width); ++x) out = std::copy(in + row - channels, in + row, out);
  }
  return padded;
}

Tensor crop(const Tensor& images, std::int64_t height, std::int64_t width) {
  if (height == images.shape[1] && width == images.shape[2]) return images;
  Tensor part(images.dtype, {images.shape[0], height, width, images.shape[3]});
  const std::size_t pixel = item_size(images.dtype) * static_cast<std::size_t>(images.shape[3]);
  const std::size_t row = static_cast<std::size_t>(width) * pixel;
  std::uint8_t* out = part.data.data();
  for (std::int64_t y = 0; y < images.shape[0] * height; ++y) {
    const std::int64_t from = y / height * images.shape[1] + y % height;
    const std::uint8_t* in = images.data.data() + static_cast<std::size_t>(from * images.shape[2]) * pixel;
    out = std::copy(in, in + row, out);
  }
  return part;
}

Bytes encode_png(const Tensor& images, std::int64_t index) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.height = static_cast<png_uint_32>(images.shape[1]);
  header.width = static_cast<png_uint_32>(images.shape[2]);
  header.format = images.shape[3] == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(header);
  Bytes bytes(size);
  const Tensor image = slice(images, index, index + 1);
  if (png_image_write_to_memory(&header, bytes.data(), &size, 0, image.data.data(), 0, nullptr) == 0) {
    throw RuntimeFailure("PNG", header.message);
  }
  bytes.resize(size);
  return bytes;
}

Tensor to_tensor(const Tensor& images) {
  const Shape& s = images.shape;
  Tensor tensor(DType::kFloat32, {s[0], s[3], s[1], s[2]});
  transpose(images.data.data(), tensor.as<float>(), static_cast<std::size_t>(s[0]),
            static_cast<std::size_t>(s[1] * s[2]), static_cast<std::size_t>(s[3]),
            [](std::uint8_t value) { return static_cast<float>(value); });
  return tensor;
}

Tensor to_images(const Tensor& reconstruction) {
  const Shape& s = reconstruction.shape;
  Tensor images(DType::kUint8, {s[0], s[2], s[3], s[1]});
  // The rounding mode is the default one, ties to even. The graph has clipped to 0..255; NaN becomes 0.
  transpose(reconstruction.as<float>(), images.data.data(), static_cast<std::size_t>(s[0]),
            static_cast<std::size_t>(s[1]), static_cast<std::size_t>(s[2] * s[3]), [](float value) {
              const float rounded = std::nearbyint(value);
              return rounded >= 0.0F && rounded <= 255.0F ? static_cast<std::uint8_t>(rounded) : std::uint8_t{0};
            });
  return images;
}

}  // namespace vqvae
