#include "document.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr std::size_t kMaxDepth = 64;
// What a reader may use beside twice the file, and at most uses of it for each bracket, comma or colon.
constexpr std::size_t kSpareBytes = std::size_t{56} << 20;
constexpr std::size_t kEntryBytes = 96;

// How files of other kinds begin.
struct OtherFile {
  std::string_view begin;
  const char* kind;
};
constexpr std::array<OtherFile, 4> kOtherFiles = {
    {{std::string_view("\x12\x01\0\0\0\0\0\0", 8), "a .params file"},
     {"PK\x03\x04", "a zip archive, such as an .npz file"},
     {"\x93NUMPY", "an .npy file"},
     {"version https://git-lfs", "a pointer of Git LFS, which 'git lfs pull' replaces by the file"}}};

struct Structure {
  std::size_t entries = 0;
  std::size_t depth = 0;
};

Structure measure(const Bytes& bytes) {
  Structure found;
  std::size_t depth = 0;
  bool within_text = false;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::uint8_t c = bytes[i];
    if (c == '"') within_text = !within_text;
    if (within_text) {
      if (c == '\\') ++i;
      continue;
    }
    if (c == '[' || c == '{' || c == ',' || c == ':') ++found.entries;
    if (c == '[' || c == '{') found.depth = std::max(found.depth, ++depth);
    if ((c == ']' || c == '}') && depth > 0) --depth;
  }
  return found;
}

}  // namespace

const char* file_kind(const Bytes& bytes) {
  for (const auto& [begin, kind] : kOtherFiles) {
    if (bytes.size() >= begin.size() && std::memcmp(bytes.data(), begin.data(), begin.size()) == 0) return kind;
  }
  return nullptr;
}

nlohmann::json parse_document(const Bytes& bytes, const std::string& name, const std::string& remedy) {
  if (const char* kind = file_kind(bytes); kind != nullptr) {
    throw InputError(name, std::string("is no JSON: it is ") + kind + "; " + remedy);
  }
  const Structure structure = measure(bytes);
  const auto reject = [&name](const std::string& why) {
    return InputError(name, "is not JSON that can be read" + why + "; copy the file again and compare its digest");
  };
  if (structure.entries * kEntryBytes > 2 * bytes.size() + kSpareBytes) {
    throw reject(" (it holds too many small values)");
  }
  if (structure.depth > kMaxDepth) throw reject(" (it is nested too deep)");
  nlohmann::json document = nlohmann::json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (document.is_discarded()) throw reject("");
  return document;
}

}  // namespace vqvae
