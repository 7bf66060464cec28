#include "vqvae/bundle.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "vqvae/error.hpp"
#include "vqvae/files.hpp"

namespace vqvae {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
constexpr std::size_t kFiles = 4;
constexpr std::size_t kMaxManifestBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxSymbolBytes = std::size_t{1} << 28;
constexpr std::size_t kMaxParamsBytes = std::size_t{1} << 36;
constexpr const char* kManifest = "manifest.json";

// A whole number of the manifest within bounds.
std::int64_t number(const Json& section, const char* key, std::int64_t low, std::int64_t high) {
  const Json& value = section.at(key);
  if (!value.is_number_integer() || value < low || value > high) {
    throw std::out_of_range(std::string(key) + " is " + value.dump());
  }
  return value.get<std::int64_t>();
}

Json read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kManifest;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw InputError(directory.string(), std::string("is not a bundle: it has no ") + kManifest +
                                             "; give a directory that 'vqvae-gluon export' wrote");
  }
  const Bytes bytes = read_file(path, kMaxManifestBytes);
  Json manifest = Json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (manifest.is_discarded()) throw InputError(path.string(), "is not JSON; export the network again");
  return manifest;
}

using Digest = std::optional<std::string>;

// A file, checked against its digest if one is given.
Bytes read_checked(const std::filesystem::path& path, std::size_t limit, const Digest& digest) {
  Bytes bytes = read_file(path, limit);
  if (digest && sha256(bytes) != *digest) {
    throw InputError(path.string(),
                     "its SHA-256 is not the manifest's; export the network again, or copy the whole bundle");
  }
  return bytes;
}

Export read_export(const std::filesystem::path& symbol, const std::filesystem::path& params,
                   const Digest& symbol_digest, const Digest& params_digest) {
  Graph graph = parse_graph(read_checked(symbol, kMaxSymbolBytes, symbol_digest), symbol.string());
  Bytes bytes = read_checked(params, kMaxParamsBytes, params_digest);
  Parameters parameters = parse_parameters(bytes, params.string());
  return {std::move(graph), std::move(parameters), params.string(), std::move(bytes)};
}

void require_finite(const Export& network) {
  for (const auto& [name, tensor] : network.parameters) {
    if (count_nonfinite(tensor) > 0) {
      throw InputError(network.params_name, name + " holds NaN or infinity; export the network again");
    }
  }
}

}  // namespace

Export read_export(const std::filesystem::path& symbol, const std::filesystem::path& params) {
  return read_export(symbol, params, std::nullopt, std::nullopt);
}

Bundle read_bundle(const std::filesystem::path& directory, bool verify) {
  const Json manifest = read_manifest(directory);
  Bundle bundle;
  const auto digest = [&](const std::string& file) {
    const auto& wanted = manifest.at("files").at(file).at("sha256").get_ref<const std::string&>();
    return verify ? Digest(wanted) : std::nullopt;
  };
  const auto half = [&](const std::string& stage) {
    const std::string symbol = stage + "-symbol.json";
    const std::string params = stage + "-0000.params";
    return read_export(directory / symbol, directory / params, digest(symbol), digest(params));
  };
  try {
    number(manifest, "format", kFormat, kFormat);
    if (manifest.at("files").size() != kFiles) throw std::out_of_range("its files are not those of a bundle");
    bundle.channels = number(manifest.at("input"), "channels", 1, 3);
    if (bundle.channels == 2) throw std::out_of_range("channels is 2");
    bundle.stride = number(manifest.at("input"), "stride", 1, 1024);
    bundle.num_embeddings = number(manifest.at("codes"), "num_embeddings", 1, 1 << 24);
    const Json& model = manifest.at("config").at("model");
    number(model, "image_channels", bundle.channels, bundle.channels);
    number(model, "num_embeddings", bundle.num_embeddings, bundle.num_embeddings);
    bundle.encoder = half("encoder");
    bundle.decoder = half("decoder");
  } catch (const Json::exception& error) {
    throw InputError((directory / kManifest).string(),
                     std::string("is not a sound manifest (") + error.what() + "); export the network again");
  } catch (const std::out_of_range& error) {
    throw InputError((directory / kManifest).string(),
                     std::string("is not a sound manifest (") + error.what() + "); export the network again");
  }
  if (verify) {
    require_finite(bundle.encoder);
    require_finite(bundle.decoder);
  }
  return bundle;
}

}  // namespace vqvae
