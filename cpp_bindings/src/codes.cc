#include "vqvae/codes.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <string>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr std::array<std::uint8_t, 8> kMagic = {'V', 'Q', 'C', 'O', 'D', 'E', 'S', '1'};
constexpr std::size_t kDigestBytes = 32;
constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kChecksumBytes = 4;
constexpr std::uint64_t kMaxCodes = (std::uint64_t{1} << 31U) - 1;
constexpr std::uint64_t kMaxEmbeddings = std::uint64_t{1} << 24U;
constexpr std::uint64_t kMaxUint32 = (std::uint64_t{1} << 32U) - 1;
constexpr const char* kDigits = "0123456789abcdef";

// The numbers of a header, in its order.
struct Header {
  std::uint64_t images, height, width, rows, columns, num_embeddings;

  // What is wrong with them, or null.
  const char* flaw() const {
    for (const std::uint64_t number : {images, height, width, rows, columns, num_embeddings}) {
      if (number < 1 || number > kMaxUint32) return "a size of it is out of bounds";
    }
    if (rows > height || columns > width) return "its codes are more than its pixels";
    if (num_embeddings > kMaxEmbeddings) return "its codebook is too large";
    if (rows > kMaxCodes / columns || images > kMaxCodes / (rows * columns)) return "it holds too many codes";
    return nullptr;
  }
  unsigned bits() const {
    unsigned count = 1;
    while (count < 24 && (num_embeddings - 1) >> count != 0) ++count;
    return count;
  }
  std::size_t codes() const { return images * rows * columns; }
  std::size_t packed_bytes() const { return (codes() * bits() + 7) / 8; }
};

void put_uint32(Bytes* bytes, std::uint64_t value) {
  for (unsigned shift = 0; shift < 32; shift += 8) bytes->push_back(static_cast<std::uint8_t>(value >> shift));
}

std::uint64_t get_uint32(const Bytes& bytes, std::size_t at) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < 4; ++i) value |= std::uint64_t{bytes[at + i]} << (8 * i);
  return value;
}

std::uint64_t checksum(const Bytes& bytes, std::size_t size) { return crc32_z(0, bytes.data(), size); }

}  // namespace

Bytes codes_bytes(const Codes& codes) {
  const auto reject = [](const char* why) { return InputError("codes", std::string("fit no .vq file: ") + why); };
  const Shape& shape = codes.values.shape;
  if (codes.values.dtype != DType::kInt32 || shape.size() != 3) throw reject("they are not int32 (N, h, w)");
  const auto number = [](std::int64_t value) { return value < 0 ? 0 : static_cast<std::uint64_t>(value); };
  const Header header{number(shape[0]), number(codes.height), number(codes.width),
                      number(shape[1]), number(shape[2]),     number(codes.num_embeddings)};
  if (const char* flaw = header.flaw()) throw reject(flaw);
  if (codes.bundle.size() != 2 * kDigestBytes || codes.bundle.find_first_not_of(kDigits) != std::string::npos) {
    throw reject("their bundle's digest is not 64 hexadecimal digits");
  }

  Bytes bytes(kMagic.begin(), kMagic.end());
  bytes.reserve(kHeaderBytes + header.packed_bytes() + kChecksumBytes);
  for (std::size_t i = 0; i < kDigestBytes; ++i) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(codes.bundle.substr(2 * i, 2), nullptr, 16)));
  }
  for (const std::uint64_t value :
       {header.images, header.height, header.width, header.rows, header.columns, header.num_embeddings}) {
    put_uint32(&bytes, value);
  }
  const auto* values = codes.values.as<std::int32_t>();
  std::uint64_t waiting = 0;
  unsigned held = 0;
  for (std::size_t i = 0; i < header.codes(); ++i) {
    if (values[i] < 0 || values[i] >= codes.num_embeddings) throw reject("one is not in the codebook");
    waiting |= static_cast<std::uint64_t>(values[i]) << held;
    for (held += header.bits(); held >= 8; held -= 8, waiting >>= 8U) {
      bytes.push_back(static_cast<std::uint8_t>(waiting));
    }
  }
  if (held > 0) bytes.push_back(static_cast<std::uint8_t>(waiting));
  put_uint32(&bytes, checksum(bytes, bytes.size()));
  return bytes;
}

Codes parse_codes(const Bytes& bytes, const std::string& name) {
  const auto reject = [&name](const char* why) {
    return InputError(name, std::string("is not a .vq file that can be read: ") + why);
  };
  if (bytes.size() < kMagic.size() || !std::equal(kMagic.begin(), kMagic.end(), bytes.begin())) {
    throw reject("it does not begin with VQCODES1");
  }
  if (bytes.size() < kHeaderBytes) throw reject("its length does not fit its sizes");
  std::array<std::uint64_t, 6> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = get_uint32(bytes, kMagic.size() + kDigestBytes + 4 * i);
  }
  const Header header{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]};
  if (const char* flaw = header.flaw()) throw reject(flaw);
  const std::size_t end = kHeaderBytes + header.packed_bytes();
  if (bytes.size() != end + kChecksumBytes) throw reject("its length does not fit its sizes");
  if (get_uint32(bytes, end) != checksum(bytes, end)) throw reject("its checksum does not fit");

  Codes codes;
  codes.height = static_cast<std::int64_t>(header.height);
  codes.width = static_cast<std::int64_t>(header.width);
  codes.num_embeddings = static_cast<std::int64_t>(header.num_embeddings);
  for (std::size_t i = kMagic.size(); i < kMagic.size() + kDigestBytes; ++i) {
    codes.bundle += kDigits[bytes[i] >> 4U];
    codes.bundle += kDigits[bytes[i] & 15U];
  }
  codes.values =
      Tensor(DType::kInt32, {static_cast<std::int64_t>(header.images), static_cast<std::int64_t>(header.rows),
                             static_cast<std::int64_t>(header.columns)});
  auto* values = codes.values.as<std::int32_t>();
  const std::uint64_t mask = (std::uint64_t{1} << header.bits()) - 1;
  std::uint64_t waiting = 0;
  unsigned held = 0;
  std::size_t next = kHeaderBytes;
  for (std::size_t i = 0; i < header.codes(); ++i) {
    for (; held < header.bits(); held += 8) waiting |= std::uint64_t{bytes[next++]} << held;
    if ((waiting & mask) >= header.num_embeddings) throw reject("a code is not in its codebook");
    values[i] = static_cast<std::int32_t>(waiting & mask);
    waiting >>= header.bits();
    held -= header.bits();
  }
  if (waiting != 0) throw reject("bits are set behind its last code");
  return codes;
}

}  // namespace vqvae
