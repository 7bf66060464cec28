// .npy files: what is parsed, written again and parsed again is the same.
#include "vqvae/npy.hpp"

#include "target.hpp"

void check(const vqvae::Bytes& bytes) {
  const vqvae::Tensor tensor = vqvae::parse_npy(bytes, "fuzz");
  require(vqvae::element_count(tensor.shape) * vqvae::item_size(tensor.dtype) == tensor.data.size(),
          "the values fit the shape");
  require(tensor.data.size() < bytes.size(), "the values are those of the file");
  require(equal(tensor, vqvae::parse_npy(vqvae::npy_bytes(tensor), "fuzz")), "the array is read again as it was");
}

std::size_t budget(const vqvae::Bytes& bytes) { return parser_budget(bytes); }

void mend(std::uint8_t* /*data*/, std::size_t /*size*/) {}
