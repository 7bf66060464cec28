#include "document.hpp"

#include <algorithm>
#include <cstddef>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr std::size_t kMaxDepth = 64;
// What a reader may use beside twice the file, and at most uses of it for each bracket, comma or colon.
constexpr std::size_t kSpareBytes = std::size_t{56} << 20;
constexpr std::size_t kEntryBytes = 96;

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

nlohmann::json parse_document(const Bytes& bytes, const std::string& name) {
  const Structure structure = measure(bytes);
  const auto reject = [&name](const std::string& why) {
    return InputError(name, "is not JSON that can be read" + why + "; copy the file again and compare its digest");
  };
  if (structure.depth > kMaxDepth) throw reject(" (it is nested too deep)");
  if (structure.entries * kEntryBytes > 2 * bytes.size() + kSpareBytes) {
    throw reject(" (it holds too many small values)");
  }
  nlohmann::json document = nlohmann::json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (document.is_discarded()) throw reject("");
  return document;
}

}  // namespace vqvae
