// .vq files: bit-packed codes that know their bundle and the size of their images (docs/architecture.md, "The codes").
#ifndef VQVAE_CODES_HPP_
#define VQVAE_CODES_HPP_

#include <cstdint>
#include <string>

#include "vqvae/tensor.hpp"

namespace vqvae {

struct Codes {
  Tensor values;                    // int32 (N, h, w).
  std::int64_t height = 0;          // Of the images, before they were padded.
  std::int64_t width = 0;           // The same.
  std::int64_t num_embeddings = 0;  // Rows of the codebook.
  std::string bundle;               // Bundle::digest of the bundle that made them.
};

// A whole file. Throws InputError if the codes do not fit the format.
Bytes codes_bytes(const Codes& codes);

// Parse a file's bytes. The name is for messages. Throws InputError.
Codes parse_codes(const Bytes& bytes, const std::string& name);

}  // namespace vqvae

#endif  // VQVAE_CODES_HPP_
