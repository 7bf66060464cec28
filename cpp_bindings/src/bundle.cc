#include "vqvae/bundle.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "document.hpp"
#include "refusal.hpp"
#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/reach.hpp"

namespace vqvae {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
constexpr std::size_t kMaxManifestBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxSymbolBytes = std::size_t{1} << 25;  // MXNet takes some ten times as much to read it.
constexpr std::size_t kMaxParamsBytes = std::size_t{1} << 36;
constexpr const char* kManifest = "manifest.json";

constexpr std::int64_t kMaxStride = 1024;
constexpr std::int64_t kMaxEmbeddings = 1 << 24;
constexpr std::size_t kDigestDigits = 64;

// The files beside the manifest, each half's graph before its parameters.
const std::vector<std::string>& file_names() {
  static const std::vector<std::string> names = {"encoder-symbol.json", "encoder-0000.params", "decoder-symbol.json",
                                                 "decoder-0000.params"};
  return names;
}

class Unsound : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void require(const Json& section, const char* key, const Json& wanted) {
  const Json& value = section.at(key);
  if (value.dump() != wanted.dump()) throw Unsound(std::string(key) + " is " + value.dump());
}

// A whole number within bounds.
std::int64_t number(const Json& section, const char* key, std::int64_t low, std::int64_t high) {
  const Json& value = section.at(key);
  if (!value.is_number_integer() || value < low || value > high) {
    throw Unsound(std::string(key) + " is " + value.dump());
  }
  return value.get<std::int64_t>();
}

bool is_digest(const std::string& text) {
  return text.size() == kDigestDigits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Manifest check_manifest(const Json& document) {
  Manifest manifest;
  number(document, "format", kFormat, kFormat);
  const Json& files = document.at("files");
  if (!files.is_object() || files.size() != file_names().size()) throw Unsound("its files are not those of a bundle");
  for (const std::string& name : file_names()) {
    manifest.digests[name] = files.at(name).at("sha256").get<std::string>();
    if (!is_digest(manifest.digests[name])) throw Unsound(name + " has no SHA-256");
  }
  const Json& input = document.at("input");
  manifest.channels = number(input, "channels", 1, 3);
  if (manifest.channels == 2) throw Unsound("channels is 2");
  manifest.stride = number(input, "stride", 1, kMaxStride);
  require(input, "layout", "NCHW");
  require(input, "dtype", "float32");
  require(input, "range", {0, 255});
  const Json& codes = document.at("codes");
  manifest.num_embeddings = number(codes, "num_embeddings", 1, kMaxEmbeddings);
  require(codes, "layout", "NHW");
  require(codes, "dtype", "int32");
  const Json& model = document.at("config").at("model");
  number(model, "image_channels", manifest.channels, manifest.channels);
  number(model, "num_embeddings", manifest.num_embeddings, manifest.num_embeddings);
  if (!document.at("data").at("name").is_string()) throw Unsound("its data has no name");
  return manifest;
}

Export make_export(const Bytes& symbol, const std::filesystem::path& symbol_path, const Bytes& params,
                   const std::filesystem::path& params_path, Operators which) {
  Graph graph = parse_graph(symbol, symbol_path.string(), which);
  Parameters parameters = parse_parameters(params, params_path.string());
  return {std::move(graph), std::move(parameters), params_path.string()};
}

void require_finite(const Export& network) {
  for (const auto& [name, tensor] : network.parameters) {
    if (count_nonfinite(tensor) > 0) {
      throw InputError(network.params_name, "non-finite value: " + name +
                                                " holds NaN or infinity; take a checkpoint of before the training "
                                                "diverged; if the original is finite, copy it again");
    }
  }
}

// Of the raw digests of all files, one after the other.
std::string digest_of(const std::vector<std::string>& digests) {
  Bytes raw;
  for (const std::string& digest : digests) {
    for (std::size_t i = 0; i < digest.size(); i += 2) {
      raw.push_back(static_cast<std::uint8_t>(std::stoul(digest.substr(i, 2), nullptr, 16)));
    }
  }
  return sha256(raw);
}

// An extent of the second input, the weight, of the first node of this kind; 0 if there is none.
std::int64_t weight_extent(const Export& network, const std::string& op, std::size_t axis) {
  for (const Node& node : network.graph.nodes) {
    if (node.op != op || node.inputs.size() < 2) continue;
    const auto weight = network.parameters.find("arg:" + network.graph.nodes[node.inputs[1].first].name);
    return weight != network.parameters.end() && weight->second.shape.size() > axis ? weight->second.shape[axis] : 0;
  }
  return 0;
}

// What a manifest would say. Whatever is wrong here is refused when the graphs are asked for their shapes.
Manifest told_by_graphs(const std::filesystem::path& directory, const Bundle& bundle) {
  Manifest manifest;
  manifest.channels = weight_extent(bundle.encoder, "Convolution", 1);
  manifest.num_embeddings = weight_extent(bundle.decoder, "Embedding", 0);
  const auto reach = find_reach(bundle.encoder.graph, kImagesInput, kFirstSideOfImages);
  const bool known = reach && reach->up == 1 && reach->down <= kMaxStride && manifest.num_embeddings > 0 &&
                     manifest.num_embeddings <= kMaxEmbeddings;
  if (!known || (manifest.channels != 1 && manifest.channels != 3)) {
    throw InputError(directory.string(), std::string("has no ") + kManifest +
                                             ", and its graphs do not tell what images they take; "
                                             "give a directory that 'vqvae-gluon export' wrote");
  }
  manifest.stride = reach->down;
  return manifest;
}

}  // namespace

Export read_export(const std::filesystem::path& symbol, const std::filesystem::path& params) {
  const Bytes graph = read_file(symbol, kMaxSymbolBytes);
  return make_export(graph, symbol, read_file(params, kMaxParamsBytes), params, Operators::kAll);
}

Manifest parse_manifest(const Bytes& bytes, const std::string& name) {
  const Json document = parse_document(bytes, name, kCopyBundle);
  try {
    return check_manifest(document);
  } catch (const Json::exception& error) {
    throw InputError(name, std::string("is not a sound manifest (") + error.what() + "); " + kCopyBundle);
  } catch (const Unsound& error) {
    throw InputError(name, std::string("is not a sound manifest (") + error.what() + "); " + kCopyBundle);
  }
}

Bundle read_bundle(const std::filesystem::path& directory, bool verify) {
  const std::filesystem::path path = directory / kManifest;
  std::error_code error;
  std::optional<Manifest> manifest;
  if (std::filesystem::exists(path, error)) {
    manifest = parse_manifest(read_file(path, kMaxManifestBytes), path.string());
  } else if (verify || !std::filesystem::exists(directory / file_names().front(), error)) {
    throw InputError(directory.string(), std::string("is not a bundle: it has no ") + kManifest +
                                             "; give a directory that 'vqvae-gluon export' wrote");
  }
  std::vector<std::string> digests;
  const auto read = [&](const std::string& file, std::size_t limit) {
    Bytes bytes = read_file(directory / file, limit);
    digests.push_back(sha256(bytes));
    if (verify && digests.back() != manifest->digests.at(file)) {
      throw InputError((directory / file).string(), std::string("its SHA-256 is not the manifest's; ") + kCopyBundle);
    }
    return bytes;
  };
  const auto half = [&](const std::string& symbol, const std::string& params) {
    const Bytes graph = read(symbol, kMaxSymbolBytes);
    return make_export(graph, directory / symbol, read(params, kMaxParamsBytes), directory / params,
                       Operators::kOfBundles);
  };
  Bundle bundle;
  bundle.encoder = half(file_names()[0], file_names()[1]);
  bundle.decoder = half(file_names()[2], file_names()[3]);
  bundle.digest = digest_of(digests);
  if (verify) {
    require_finite(bundle.encoder);
    require_finite(bundle.decoder);
  }
  if (!manifest) manifest = told_by_graphs(directory, bundle);
  bundle.channels = manifest->channels;
  bundle.stride = manifest->stride;
  bundle.num_embeddings = manifest->num_embeddings;
  return bundle;
}

}  // namespace vqvae
