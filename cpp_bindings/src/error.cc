#include "vqvae/error.hpp"

#include <cstddef>
#include <string>

namespace vqvae {
namespace {

// The bytes of the character that begins there, if they are UTF-8, else 1; and its number, else the byte's.
struct Character {
  std::size_t size = 1;
  unsigned code = 0;
};

// How many bytes a character has that begins with this one.
std::size_t size_of(unsigned first) {
  if (first < 0xC2 || first >= 0xF5) return 1;
  if (first < 0xE0) return 2;
  return first < 0xF0 ? 3 : 4;
}

Character character(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const unsigned first = byte(at);
  const std::size_t size = size_of(first);
  constexpr unsigned kPayloads[] = {0x7F, 0x1F, 0x0F, 0x07};
  unsigned code = size == 1 ? first : first & kPayloads[size - 1];
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xC0U) != 0x80) return {1, first};
    code = code << 6U | (byte(at + i) & 0x3FU);
  }
  return {size, code};
}

// Controls, ends of lines, and what turns the direction of writing. A byte that is no text stays, unless it is a
// control of some terminals.
bool is_shown(unsigned code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0xFFFE || code == 0xFFFF;
}

}  // namespace

std::string one_line(const std::string& message) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string result;
  for (std::size_t at = 0; at < message.size();) {
    const Character found = character(message, at);
    if (is_shown(found.code)) {
      result += found.code < 0x100 ? "\\x" : "\\u";
      for (unsigned shift = found.code < 0x100 ? 8 : 16; shift > 0;) {
        shift -= 4;
        result += kDigits[found.code >> shift & 0xFU];
      }
    } else {
      result.append(message, at, found.size);
    }
    at += found.size;
  }
  return result;
}

}  // namespace vqvae
