// A bundle, ready to encode and decode.
#ifndef VQVAE_PREDICTOR_HPP_
#define VQVAE_PREDICTOR_HPP_

#include <cstdint>

#include "vqvae/bundle.hpp"
#include "vqvae/network.hpp"
#include "vqvae/tensor.hpp"
#include "vqvae/trace.hpp"

namespace vqvae {

// Move-only. One thread at a time may use a predictor.
class Predictor {
 public:
  // Throws InputError if the files of the bundle do not fit together.
  explicit Predictor(Bundle bundle, Engine engine = Engine::kCachedOp, Fusion fusion = Fusion::kSafe);

  // Channels of an image: 1 or 3.
  std::int64_t channels() const { return channels_; }

  // Throws InputError unless images are uint8 (N, H, W, C) of the right number of channels, with sides that the stride
  // divides. `name` is what the message calls them.
  void check_images(const Tensor& images, const std::string& name = "images") const;

  // Images that pass check_images to codes int32 (N, h, w).
  Tensor encode(const Tensor& images);

  // Codes int32 (N, h, w) to a reconstruction float32 (N, C, H, W), 0..255. Throws InputError if these are no codes of
  // this network.
  Tensor decode(const Tensor& codes);

  // uint8 (N, H, W, C) to uint8 (N, H, W, C).
  Tensor reconstruct(const Tensor& images);

  // The same, and record the way there: the images, every node of both graphs (with `taps`), and the results of the
  // graphs as they are run without taps.
  Tensor reconstruct(const Tensor& images, TraceWriter* trace, bool taps = true);

 private:
  std::int64_t channels_;
  std::int64_t stride_;
  std::int64_t num_embeddings_;
  Network encoder_;
  Network decoder_;
};

}  // namespace vqvae

#endif  // VQVAE_PREDICTOR_HPP_
