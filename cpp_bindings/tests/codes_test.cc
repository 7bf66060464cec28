#include "vqvae/codes.hpp"

#include <doctest/doctest.h>
#include <zlib.h>

#include "support.hpp"
#include "vqvae/error.hpp"

namespace {

vqvae::Codes counting(std::int64_t num_embeddings) {
  vqvae::Codes codes;
  codes.values = vqvae::Tensor(vqvae::DType::kInt32, {2, 3, 5});
  for (int i = 0; i < 30; ++i) codes.values.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % num_embeddings);
  codes.values.as<std::int32_t>()[29] = static_cast<std::int32_t>(num_embeddings - 1);
  codes.height = 11;
  codes.width = 18;
  codes.num_embeddings = num_embeddings;
  codes.bundle = std::string(62, 'a') + "07";
  return codes;
}

// The checksum put right, so that what stands before it is judged.
vqvae::Bytes sealed(vqvae::Bytes bytes) {
  bytes.resize(bytes.size() < 4 ? 0 : bytes.size() - 4);
  const uLong sum = crc32_z(0, bytes.data(), bytes.size());
  for (unsigned i = 0; i < 4; ++i) bytes.push_back(static_cast<std::uint8_t>(sum >> (8 * i)));
  return bytes;
}

}  // namespace

TEST_CASE("codes come back as they were written, in as few bits as they need") {
  const std::pair<std::int64_t, std::size_t> bits[] = {{1, 1},  {2, 1},   {3, 2},        {64, 6},
                                                       {65, 7}, {512, 9}, {1 << 16, 16}, {1 << 24, 24}};
  for (const auto& [num_embeddings, count] : bits) {
    const vqvae::Codes written = counting(num_embeddings);
    const vqvae::Bytes bytes = vqvae::codes_bytes(written);
    CHECK(bytes.size() == 64 + (30 * count + 7) / 8 + 4);
    const vqvae::Codes read = vqvae::parse_codes(bytes, "x.vq");
    CHECK(read.values.shape == written.values.shape);
    CHECK(read.values.data == written.values.data);
    CHECK(read.height == 11);
    CHECK(read.width == 18);
    CHECK(read.num_embeddings == num_embeddings);
    CHECK(read.bundle == written.bundle);
  }
}

TEST_CASE("codes files that are cut off, longer or altered anywhere are rejected") {
  const vqvae::Bytes whole = vqvae::codes_bytes(counting(5));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const vqvae::Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK_THROWS_AS(vqvae::parse_codes(part, "x.vq"), vqvae::InputError);
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    vqvae::Bytes altered = whole;
    altered[at] ^= 1;
    CHECK_THROWS_AS(vqvae::parse_codes(altered, "x.vq"), vqvae::InputError);
  }
  vqvae::Bytes longer = whole;
  longer.push_back(0);
  CHECK_THROWS_AS(vqvae::parse_codes(longer, "x.vq"), vqvae::InputError);
}

TEST_CASE("codes files whose numbers do not fit together are rejected, whatever their checksum") {
  const vqvae::Bytes whole = vqvae::codes_bytes(counting(5));
  for (std::size_t number = 0; number < 6; ++number) {
    for (const std::uint8_t value : {0, 255}) {
      if (value == 255 && (number == 1 || number == 2)) continue;  // Images may be of any size.
      vqvae::Bytes altered = whole;
      for (std::size_t i = 0; i < 4; ++i) altered[40 + 4 * number + i] = value;
      CHECK_THROWS_AS(vqvae::parse_codes(sealed(altered), "x.vq"), vqvae::InputError);
    }
  }
  vqvae::Bytes outside = whole;
  outside[64] |= 7;  // Code 7 of a codebook of 5.
  CHECK_THROWS_WITH_AS(vqvae::parse_codes(sealed(outside), "x.vq"),
                       "x.vq: is not a .vq file that can be read: a code is not in its codebook", vqvae::InputError);
  vqvae::Bytes spare = whole;
  spare.at(whole.size() - 5) |= 0x80;
  CHECK_THROWS_WITH_AS(vqvae::parse_codes(sealed(spare), "x.vq"),
                       "x.vq: is not a .vq file that can be read: bits are set behind its last code",
                       vqvae::InputError);
}

TEST_CASE("codes that fit no file are not written") {
  for (const std::int32_t code : {-1, 5}) {
    vqvae::Codes codes = counting(5);
    codes.values.as<std::int32_t>()[7] = code;
    CHECK_THROWS_AS(vqvae::codes_bytes(codes), vqvae::InputError);
  }
  vqvae::Codes codes = counting(5);
  codes.bundle = "x";
  CHECK_THROWS_AS(vqvae::codes_bytes(codes), vqvae::InputError);
  codes = counting(5);
  codes.height = 2;
  CHECK_THROWS_AS(vqvae::codes_bytes(codes), vqvae::InputError);
}
