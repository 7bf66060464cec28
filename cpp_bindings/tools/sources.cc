#include "sources.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <system_error>

#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/image.hpp"
#include "vqvae/npy.hpp"

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxInputBytes = std::size_t{1} << 33;
constexpr std::size_t kMaxImageBytes = std::size_t{1} << 30;
constexpr const char* kArray = ".npy";

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::vector<fs::path> find_files(const fs::path& directory, const std::set<std::string>& extensions) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    const bool wanted = extensions.count(lower(entry->path().extension().string())) > 0;
    if (wanted && entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  if (error) throw vqvae::InputError(directory.string(), error.message());
  if (files.empty()) {
    const bool images = extensions == image_extensions();
    throw vqvae::InputError(directory.string(), images ? "holds no PNG or JPEG file; give a directory of images"
                                                       : "holds no .vq file; give a directory of codes");
  }
  std::sort(files.begin(), files.end());
  return files;
}

vqvae::Bytes read_standard_input() {
  vqvae::Bytes bytes;
  std::array<std::uint8_t, 1 << 16> chunk{};
  while (const std::size_t size = std::fread(chunk.data(), 1, chunk.size(), stdin)) {
    if (bytes.size() + size > kMaxInputBytes) {
      throw vqvae::InputError("standard input",
                              "is larger than the limit of " + std::to_string(kMaxInputBytes) + " bytes");
    }
    bytes.insert(bytes.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(size));
  }
  if (std::ferror(stdin) != 0) throw vqvae::InputError("standard input", "could not be read");
  return bytes;
}

}  // namespace

const std::set<std::string>& image_extensions() {
  static const std::set<std::string> extensions = {".png", ".jpg", ".jpeg"};
  return extensions;
}

const std::set<std::string>& code_extensions() {
  static const std::set<std::string> extensions = {".vq"};
  return extensions;
}

std::vector<Source> find_sources(const std::vector<std::string>& arguments, const std::set<std::string>& extensions) {
  std::vector<Source> sources;
  for (const std::string& argument : arguments) {
    std::error_code ignored;
    if (argument == "-") {
      sources.push_back({argument, "stdin"});
    } else if (fs::is_directory(argument, ignored)) {
      for (const fs::path& file : find_files(argument, extensions)) {
        sources.push_back({file.string(), file.lexically_relative(argument).replace_extension()});
      }
    } else {
      sources.push_back({argument, fs::path(argument).stem()});
    }
  }
  return sources;
}

vqvae::Bytes read_source(const Source& source) {
  return source.is_standard_input() ? read_standard_input() : vqvae::read_file(source.name, kMaxInputBytes);
}

bool is_array(const Source& source, const vqvae::Bytes& bytes) {
  constexpr std::array<std::uint8_t, 6> kMagic = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  if (!source.is_standard_input()) return fs::path(source.name).extension() == kArray;
  return bytes.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), bytes.begin());
}

Images read_images(const Source& source, std::int64_t channels) {
  const vqvae::Bytes bytes = read_source(source);
  if (!is_array(source, bytes)) {
    if (bytes.size() > kMaxImageBytes) {
      throw vqvae::InputError(source.title(),
                              "is larger than the limit of " + std::to_string(kMaxImageBytes) + " bytes");
    }
    return {vqvae::decode_image(bytes, static_cast<int>(channels), source.title()), false};
  }
  vqvae::Tensor images = vqvae::parse_npy(bytes, source.title());
  if (images.shape.size() == 3) images.shape.push_back(1);
  return {std::move(images), true};
}

std::vector<fs::path> output_paths(const fs::path& stem, std::int64_t count, bool numbered) {
  constexpr std::size_t kDigits = 5;
  if (!numbered) return {stem.string() + ".png"};
  std::vector<fs::path> paths;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string number = std::to_string(i);
    const std::string zeros(kDigits - std::min(kDigits, number.size()), '0');
    paths.emplace_back(stem.string() + "-" + zeros + number + ".png");
  }
  return paths;
}

Claims::Claims(const std::vector<Source>& sources) {
  for (const Source& source : sources) taken_.insert(fs::weakly_canonical(source.name));
}

void Claims::claim(const fs::path& path, const std::string& result, const std::string& source) {
  if (!taken_.insert(fs::weakly_canonical(path)).second) {
    throw vqvae::UsageError(path.string(),
                            "would be overwritten by the " + result + " of " + source + "; choose another place");
  }
}
