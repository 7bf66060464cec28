// PNG and JPEG files to pixels and back, by the rules of vqvae_gluon/data/images.py.
#ifndef VQVAE_IMAGE_HPP_
#define VQVAE_IMAGE_HPP_

#include <cstdint>
#include <string>

#include "vqvae/tensor.hpp"

namespace vqvae {

// Decode a PNG or JPEG to uint8 (1, H, W, channels), channels 1 or 3. Transparency is dropped; one channel is Rec. 601
// luma, which leaves gray images as they are. The name is for messages. Throws InputError.
Tensor decode_image(const Bytes& bytes, int channels, const std::string& name);

// Images uint8 (N, H, W, C) as a stride takes them: the last row and the last column are repeated, at the bottom and at
// the right, until `multiple` divides both sides.
Tensor pad_to(const Tensor& images, std::int64_t multiple);

// The top left part of images (N, H, W, C).
Tensor crop(const Tensor& images, std::int64_t height, std::int64_t width);

// Encode image `index` of uint8 (N, H, W, 1 or 3) as PNG.
Bytes encode_png(const Tensor& images, std::int64_t index);

// Images as a network takes them: uint8 (N, H, W, C) to float32 (N, C, H, W), still 0..255.
Tensor to_tensor(const Tensor& images);

// A reconstruction as images: float32 (N, C, H, W), 0..255, to uint8 (N, H, W, C), ties to the even number.
Tensor to_images(const Tensor& reconstruction);

}  // namespace vqvae

#endif  // VQVAE_IMAGE_HPP_
