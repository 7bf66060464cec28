#include "vqvae/image.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support.hpp"
#include "vqvae/error.hpp"

namespace {

vqvae::Tensor gradient(std::int64_t channels) {
  vqvae::Tensor image(vqvae::DType::kUint8, {1, 5, 7, channels});
  for (std::size_t i = 0; i < image.data.size(); ++i) image.data[i] = static_cast<std::uint8_t>(i * 37);
  return image;
}

}  // namespace

TEST_CASE("PNG keeps every pixel") {
  for (const int channels : {1, 3}) {
    const vqvae::Tensor image = gradient(channels);
    const vqvae::Tensor read = vqvae::decode_image(vqvae::encode_png(image, 0), channels, "x");
    CHECK(read.shape == image.shape);
    CHECK(read.data == image.data);
  }
}

TEST_CASE("a PNG file that is cut off anywhere is rejected") {
  const vqvae::Bytes whole = vqvae::encode_png(gradient(3), 0);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const vqvae::Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK_THROWS_AS(vqvae::decode_image(part, 3, "x"), vqvae::InputError);
  }
}

TEST_CASE("images are padded with their last row and column, and cropped back") {
  vqvae::Tensor image(vqvae::DType::kUint8, {2, 2, 3, 1});
  image.data = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const vqvae::Tensor padded = vqvae::pad_to(image, 4);
  CHECK(padded.shape == vqvae::Shape{2, 4, 4, 1});
  CHECK(padded.data == vqvae::Bytes{1, 2, 3, 3, 4,  5,  6,  6,  4,  5,  6,  6,  4,  5,  6,  6,
                                    7, 8, 9, 9, 10, 11, 12, 12, 10, 11, 12, 12, 10, 11, 12, 12});
  CHECK(vqvae::crop(padded, 2, 3).data == image.data);
  CHECK(vqvae::crop(padded, 2, 3).shape == image.shape);
  CHECK(vqvae::pad_to(padded, 4).data == padded.data);
  const vqvae::Tensor colours = gradient(3);
  CHECK(vqvae::pad_to(colours, 4).shape == vqvae::Shape{1, 8, 8, 3});
  CHECK(vqvae::crop(vqvae::pad_to(colours, 4), 5, 7).data == colours.data);
}

TEST_CASE("channels move to the front and back again") {
  const vqvae::Tensor image = gradient(3);
  const vqvae::Tensor tensor = vqvae::to_tensor(image);
  CHECK(tensor.shape == vqvae::Shape{1, 3, 5, 7});
  CHECK(tensor.as<float>()[35] == static_cast<float>(image.data[1]));
  CHECK(vqvae::to_images(tensor).data == image.data);
}

TEST_CASE("reconstructions are rounded to the nearest, ties to even, NaN to 0") {
  vqvae::Tensor tensor(vqvae::DType::kFloat32, {1, 1, 1, 5});
  const float values[] = {0.5F, 1.5F, 2.4F, 255.0F, std::nanf("")};
  std::copy(std::begin(values), std::end(values), tensor.as<float>());
  CHECK(vqvae::to_images(tensor).data == vqvae::Bytes{0, 2, 2, 255, 0});
}
