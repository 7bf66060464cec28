#include "vqvae/image.hpp"

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

// Pillow refuses the same number, as a decompression bomb.
constexpr std::uint64_t kMaxPixels = 178956970;

InputError rejected(const std::string& name, const std::string& why) {
  return {name, "is not a readable PNG or JPEG image (" + why + ")"};
}

// libpng over bytes in memory. libpng reports errors by longjmp, so nothing with a destructor lives in the functions
// that call setjmp.
class PngReader {
 public:
  PngReader(const Bytes& bytes, std::string name) : left_(bytes.size()), next_(bytes.data()), name_(std::move(name)) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    info_ = png_ != nullptr ? png_create_info_struct(png_) : nullptr;
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw RuntimeFailure(name_, "libpng could not start");
    }
    png_set_read_fn(png_, this, on_read);
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  // uint8 (1, H, W, 3).
  Tensor read() {
    if (!read_header()) throw rejected(name_, message_);
    const std::int64_t height = png_get_image_height(png_, info_);
    const std::int64_t width = png_get_image_width(png_, info_);
    if (static_cast<std::uint64_t>(height) * static_cast<std::uint64_t>(width) > kMaxPixels) {
      throw rejected(name_, "it has too many pixels");
    }
    if (png_get_bit_depth(png_, info_) == 16 && png_get_color_type(png_, info_) == PNG_COLOR_TYPE_GRAY) {
      throw rejected(name_, "its pixels are 16-bit gray; save it with 8 bits a channel, gray or RGB");
    }
    Tensor image(DType::kUint8, {1, height, width, 3});
    std::vector<png_bytep> rows(static_cast<std::size_t>(height));
    for (std::size_t y = 0; y < rows.size(); ++y) rows[y] = image.data.data() + y * static_cast<std::size_t>(width) * 3;
    if (!read_rows(rows.data())) throw rejected(name_, message_);
    return image;
  }

 private:
  bool read_header() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(cert-err52-cpp,modernize-avoid-setjmp-longjmp)
    png_read_info(png_, info_);
    return true;
  }

  bool read_rows(png_bytepp rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(cert-err52-cpp,modernize-avoid-setjmp-longjmp)
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    png_set_gray_to_rgb(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }

  static void on_read(png_structp png, png_bytep out, png_size_t size) {
    auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
    if (size > reader->left_) png_error(png, "it ends early");
    std::memcpy(out, reader->next_, size);
    reader->next_ += size;
    reader->left_ -= size;
  }
  static void on_error(png_structp png, png_const_charp message) {
    static_cast<PngReader*>(png_get_error_ptr(png))->message_ = message;
    png_longjmp(png, 1);
  }
  static void on_warning(png_structp /*png*/, png_const_charp /*message*/) {}

  std::size_t left_;
  const std::uint8_t* next_;
  std::string name_;
  std::string message_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

// uint8 (1, H, W, 3).
Tensor read_jpeg(const Bytes& bytes, const std::string& name) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  if (!decoder) throw RuntimeFailure(name, "libjpeg-turbo could not start");
  int width = 0;
  int height = 0;
  int subsampling = 0;
  int colorspace = 0;
  const auto size = static_cast<unsigned long>(bytes.size());  // NOLINT(google-runtime-int): TurboJPEG's type.
  if (tjDecompressHeader3(decoder.get(), bytes.data(), size, &width, &height, &subsampling, &colorspace) != 0) {
    throw rejected(name, tjGetErrorStr2(decoder.get()));
  }
  if (static_cast<std::uint64_t>(width) * static_cast<std::uint64_t>(height) > kMaxPixels) {
    throw rejected(name, "it has too many pixels");
  }
  if (colorspace == TJCS_CMYK || colorspace == TJCS_YCCK) {
    throw rejected(name, "its pixels are CMYK; save it with 8 bits a channel, gray or RGB");
  }
  Tensor image(DType::kUint8, {1, height, width, 3});
  if (tjDecompress2(decoder.get(), bytes.data(), size, image.data.data(), width, 0, height, TJPF_RGB,
                    TJFLAG_ACCURATEDCT) != 0) {
    throw rejected(name, tjGetErrorStr2(decoder.get()));
  }
  return image;
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
  Tensor image;
  if (bytes.size() >= 8 && png_sig_cmp(bytes.data(), 0, 8) == 0) {
    image = PngReader(bytes, name).read();
  } else if (bytes.size() >= 3 && bytes[0] == 0xFF && bytes[1] == 0xD8 && bytes[2] == 0xFF) {
    image = read_jpeg(bytes, name);
  } else {
    throw rejected(name, "it is of no kind that is known");
  }
  return channels == 1 ? luma(image) : image;
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
