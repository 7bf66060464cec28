// .vq files: the form is the only one, so what is parsed is written again byte for byte.
#include "vqvae/codes.hpp"

#include <cstring>

#include "target.hpp"

void check(const vqvae::Bytes& bytes) {
  const vqvae::Codes codes = vqvae::parse_codes(bytes, "fuzz");
  require(is_whole(codes.values) && codes.values.dtype == vqvae::DType::kInt32 && codes.values.shape.size() == 3,
          "the codes fit the shape");
  const auto* values = codes.values.as<std::int32_t>();
  for (std::size_t i = 0; i < vqvae::element_count(codes.values.shape); ++i) {
    require(values[i] >= 0 && values[i] < codes.num_embeddings, "every code is a row of the codebook");
  }
  require(codes.height >= codes.values.shape[1] && codes.width >= codes.values.shape[2], "an image is no smaller");
  require(vqvae::codes_bytes(codes) == bytes, "the file is written again as it was");
}

// A code of one bit is an int32 in memory: 32 times the file, then the round trip's copies of the file.
std::size_t budget(const vqvae::Bytes& bytes) { return parser_budget(bytes) + 32 * bytes.size(); }

void mend(std::uint8_t* data, std::size_t size) {
  if (size < sizeof(std::uint32_t)) return;
  const std::uint32_t crc = crc32(data, size - sizeof crc);
  std::memcpy(data + size - sizeof crc, &crc, sizeof crc);
}
