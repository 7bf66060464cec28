#include "vqvae/bundle.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

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
  return {parse_graph(read_checked(symbol, kMaxSymbolBytes, symbol_digest), symbol.string()),
          parse_parameters(read_checked(params, kMaxParamsBytes, params_digest), params.string()), params.string()};
}

bool is_finite(float value) { return std::isfinite(value); }
bool is_finite(double value) { return std::isfinite(value); }
// A half-precision number's bits: NaN and infinity have every bit of the exponent set.
bool is_finite(std::uint16_t bits) { return (bits & 0x7C00U) != 0x7C00U; }

template <typename T>
bool all_finite(const Tensor& tensor) {
  const T* values = tensor.as<T>();
  return std::all_of(values, values + element_count(tensor.shape), [](T value) { return is_finite(value); });
}

bool is_finite(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kFloat16:
      return all_finite<std::uint16_t>(tensor);
    case DType::kFloat32:
      return all_finite<float>(tensor);
    case DType::kFloat64:
      return all_finite<double>(tensor);
    default:
      return true;
  }
}

void require_finite(const Export& network) {
  for (const auto& [name, tensor] : network.parameters) {
    if (!is_finite(tensor)) {
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
