// Bundles: directories with everything a runtime needs (docs/architecture.md, "The bundle").
#ifndef VQVAE_BUNDLE_HPP_
#define VQVAE_BUNDLE_HPP_

#include <cstdint>
#include <filesystem>

#include "vqvae/graph.hpp"
#include "vqvae/parameters.hpp"

namespace vqvae {

// One exported network: Gluon's pair of files.
struct Export {
  Graph graph;
  Parameters parameters;
  std::string params_name;  // Of the parameter file, for messages.
  Bytes params_bytes;       // What the parameters were parsed from, for an engine that reads the file itself.
};

// Read a plain Gluon export. Throws InputError.
Export read_export(const std::filesystem::path& symbol, const std::filesystem::path& params);

struct Bundle {
  std::int64_t channels = 0;        // Of an image.
  std::int64_t stride = 0;          // Image pixels for each latent pixel and side.
  std::int64_t num_embeddings = 0;  // Rows of the codebook.
  Export encoder;
  Export decoder;
};

// Read a bundle. With `verify` every file must have the manifest's digest, and no parameter may be NaN or infinite;
// every structural check is done in any case. Throws InputError.
Bundle read_bundle(const std::filesystem::path& directory, bool verify);

}  // namespace vqvae

#endif  // VQVAE_BUNDLE_HPP_
