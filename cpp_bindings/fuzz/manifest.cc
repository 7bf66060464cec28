// Manifests: what a reader is told is within the limits.
#include "target.hpp"
#include "vqvae/bundle.hpp"

void check(const vqvae::Bytes& bytes) {
  const vqvae::Manifest manifest = vqvae::parse_manifest(bytes, "fuzz");
  require(manifest.channels == 1 || manifest.channels == 3, "images are gray or colour");
  require(manifest.stride >= 1 && manifest.stride <= 1024, "the stride is within its limits");
  require(manifest.num_embeddings >= 1 && manifest.num_embeddings <= 1 << 24, "the codebook is within its limits");
  require(manifest.digests.size() == 4, "there is a digest for every file");
}

std::size_t budget(const vqvae::Bytes& bytes) { return parser_budget(bytes); }

void mend(std::uint8_t* /*data*/, std::size_t /*size*/) {}
