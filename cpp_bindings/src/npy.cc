#include "vqvae/npy.hpp"

#include <algorithm>
#include <array>
#include <regex>
#include <string>

#include "vqvae/error.hpp"
#include "vqvae/files.hpp"

namespace vqvae {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 33;
constexpr std::size_t kMaxHeaderBytes = 4096;
constexpr std::size_t kPreambleBytes = 10;
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kMaxRank = 32;  // NumPy's own.
constexpr std::array<std::uint8_t, 8> kMagic = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};

// The header is a Python literal; this is the only form NumPy writes for our types.
const std::regex& header_pattern() {
  static const std::regex pattern(
      R"re(\s*\{'descr': '([^']{2,8})', 'fortran_order': False, 'shape': \(([0-9, ]{0,400})\), \}\s*)re");
  return pattern;
}

// The extents of "2, 3, " if they and their product are in bounds.
bool parse_shape(const std::string& text, std::size_t max_elements, Shape* shape) {
  std::size_t elements = 1;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == ',' || text[at] == ' ') {
      ++at;
      continue;
    }
    const std::size_t end = std::min(text.find_first_of(", ", at), text.size());
    if (end - at > 12 || shape->size() == kMaxRank) return false;
    const std::int64_t extent = std::stoll(text.substr(at, end - at));
    if (extent > 0 && elements > max_elements / static_cast<std::size_t>(extent)) return false;
    elements *= static_cast<std::size_t>(extent);
    shape->push_back(extent);
    at = end;
  }
  return true;
}

}  // namespace

Tensor read_npy(const std::filesystem::path& path) { return parse_npy(read_file(path, kMaxFileBytes), path.string()); }

Tensor parse_npy(const Bytes& bytes, const std::string& name) {
  const auto reject = [&name](const char* why) -> InputError {
    return {name, std::string("is not an .npy file that can be read: ") + why};
  };
  if (bytes.size() < kPreambleBytes || !std::equal(kMagic.begin(), kMagic.end(), bytes.begin())) {
    throw reject("it does not begin as version 1.0 does");
  }
  const std::size_t header_size = bytes[8] + std::size_t{256} * bytes[9];
  if (header_size > kMaxHeaderBytes || header_size > bytes.size() - kPreambleBytes)
    throw reject("its header is cut off");
  const auto* begin = reinterpret_cast<const char*>(bytes.data()) + kPreambleBytes;
  const std::string header(begin, begin + header_size);

  std::smatch match;
  if (!std::regex_match(header, match, header_pattern())) throw reject("its header is not that of a C-ordered array");
  Tensor tensor;
  if (!dtype_from_npy(match[1], &tensor.dtype)) throw reject("its type is not supported");
  if (!parse_shape(match[2], bytes.size(), &tensor.shape)) throw reject("its shape does not fit its size");
  const std::size_t offset = kPreambleBytes + header_size;
  if (element_count(tensor.shape) * item_size(tensor.dtype) != bytes.size() - offset) {
    throw reject("its shape does not fit its size");
  }
  tensor.data.assign(bytes.begin() + static_cast<std::ptrdiff_t>(offset), bytes.end());
  return tensor;
}

Bytes npy_header(const Tensor& tensor) {
  std::string header = std::string("{'descr': '") + npy_descr(tensor.dtype) +
                       "', 'fortran_order': False, 'shape': " + to_string(tensor.shape) + ", }";
  header.append(kAlignment - 1 - (kPreambleBytes + header.size()) % kAlignment, ' ');
  header += '\n';
  Bytes bytes(kMagic.begin(), kMagic.end());
  bytes.push_back(static_cast<std::uint8_t>(header.size() & 255));
  bytes.push_back(static_cast<std::uint8_t>(header.size() >> 8));
  bytes.insert(bytes.end(), header.begin(), header.end());
  return bytes;
}

Bytes npy_bytes(const Tensor& tensor) {
  Bytes bytes = npy_header(tensor);
  bytes.insert(bytes.end(), tensor.data.begin(), tensor.data.end());
  return bytes;
}

}  // namespace vqvae
