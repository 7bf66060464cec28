// Bundles: directories with everything a runtime needs (docs/architecture.md, "The bundle").
#ifndef VQVAE_BUNDLE_HPP_
#define VQVAE_BUNDLE_HPP_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "vqvae/graph.hpp"
#include "vqvae/parameters.hpp"

namespace vqvae {

// What the graphs of a bundle are fed: images (N, C, H, W) and codes (N, h, w), and which axis is their height.
constexpr const char* kImagesInput = "data";
constexpr const char* kCodesInput = "codes";
constexpr std::size_t kFirstSideOfImages = 2;
constexpr std::size_t kFirstSideOfCodes = 1;

// One exported network: Gluon's pair of files.
struct Export {
  Graph graph;
  Parameters parameters;
  std::string params_name;  // Of the parameter file, for messages.
};

// Read a plain Gluon export. Throws InputError.
Export read_export(const std::filesystem::path& symbol, const std::filesystem::path& params);

// What a manifest says that a predictor needs.
struct Manifest {
  std::int64_t channels = 0;                   // Of an image: 1 or 3.
  std::int64_t stride = 0;                     // Image pixels for each latent pixel and side.
  std::int64_t num_embeddings = 0;             // Rows of the codebook.
  std::map<std::string, std::string> digests;  // SHA-256 of every file, by its name.
};

// Check a manifest's bytes. The name is for messages. Throws InputError.
Manifest parse_manifest(const Bytes& bytes, const std::string& name);

struct Bundle {
  std::int64_t channels = 0;
  std::int64_t stride = 0;
  std::int64_t num_embeddings = 0;
  std::string digest;  // Of the four files, 64 hexadecimal digits: docs/architecture.md, "The bundle".
  Export encoder;
  Export decoder;
};

// Read a bundle. With `verify` every file must have the manifest's digest, and no parameter may be NaN or infinite.
// Without, the manifest may be missing: what it would say is then told from the graphs. Every structural check is done
// in any case. Throws InputError.
Bundle read_bundle(const std::filesystem::path& directory, bool verify);

}  // namespace vqvae

#endif  // VQVAE_BUNDLE_HPP_
