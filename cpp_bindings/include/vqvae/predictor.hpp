// A bundle, ready to encode and decode.
#ifndef VQVAE_PREDICTOR_HPP_
#define VQVAE_PREDICTOR_HPP_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "vqvae/bundle.hpp"
#include "vqvae/network.hpp"
#include "vqvae/tensor.hpp"
#include "vqvae/trace.hpp"

namespace vqvae {

// Move-only. One thread at a time may use a predictor; several threads may have one each (threads.hpp).
class Predictor {
 public:
  // Is told of work that is done in parts, how many of how many.
  using Progress = std::function<void(std::size_t, std::size_t)>;

  // Runs need at most `memory_limit` bytes for their tensors, half of it in each graph, beside the images themselves:
  // batches are run in parts, and large images in tiles, which overlap by what an output depends on; 0 is no limit.
  // Without `prove` the graphs may give other shapes than the bundle says; then nothing but traces can be relied on.
  // Throws InputError if the files of the bundle do not fit together, or the graphs do not give what the bundle says.
  explicit Predictor(Bundle bundle, Engine engine = Engine::kCachedOp, Fusion fusion = Fusion::kSafe,
                     std::size_t memory_limit = 0, bool prove = true);
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;
  Predictor(Predictor&&) noexcept;
  Predictor& operator=(Predictor&&) noexcept;
  ~Predictor();

  std::int64_t channels() const;  // Of an image: 1 or 3.
  std::int64_t stride() const;    // Image pixels for each latent pixel and side.
  std::int64_t num_embeddings() const;
  const std::string& digest() const;  // Bundle::digest

  void set_progress(Progress progress);

  // Throws InputError unless images are uint8 (N, H, W, C) of the right number of channels. `name` is what the message
  // calls them.
  void check_images(const Tensor& images, const std::string& name = "images") const;

  // Throws InputError unless codes are int32 (N, h, w) of this codebook.
  void check_codes(const Tensor& codes, const std::string& name = "codes") const;

  // Images that pass check_images, of any size, to codes int32 (N, h, w). Where the stride does not divide a side, the
  // image is padded (pad_to).
  Tensor encode(const Tensor& images);

  // Codes to a reconstruction float32 (N, C, H, W), 0..255, H and W multiples of the stride; in one run.
  Tensor decode(const Tensor& codes);

  // Codes to images uint8 (N, height, width, C). Throws InputError if the codes are not those of images of this size.
  Tensor decode(const Tensor& codes, std::int64_t height, std::int64_t width);

  // uint8 (N, H, W, C) to uint8 (N, H, W, C).
  Tensor reconstruct(const Tensor& images);

  // The same in one run, and record the way there: the images, every node of both graphs (with `taps`), and the results
  // of the graphs as they are run without taps.
  Tensor reconstruct(const Tensor& images, TraceWriter* trace, bool taps = true);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqvae

#endif  // VQVAE_PREDICTOR_HPP_
