// What the fuzz targets share. A target is one function that parses bytes and proves what came of them; main.cc calls
// it. An InputError is what hostile bytes deserve; any other exception, a sanitizer's word, a broken promise, or memory
// beyond the budget is a finding.
#ifndef VQVAE_FUZZ_TARGET_HPP_
#define VQVAE_FUZZ_TARGET_HPP_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "vqvae/tensor.hpp"

// Each target defines these.

// Parse one input and prove what came of it. May throw InputError.
void check(const vqvae::Bytes& bytes);
// Bytes that `check` may hold at once beyond its input.
std::size_t budget(const vqvae::Bytes& bytes);
// Make checksums of the mutated input fit again, without changing its size, so that what lies behind them is reached.
void mend(std::uint8_t* data, std::size_t size);

// What the parsers promise: at most three times the file and 64 MiB.
inline std::size_t parser_budget(const vqvae::Bytes& bytes) { return 3 * bytes.size() + (std::size_t{64} << 20U); }

inline void require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: broken promise: %s\n", promise);
  std::abort();
}

// Whether the values fit the shape, and every extent is at least 1.
inline bool is_whole(const vqvae::Tensor& tensor) {
  for (const std::int64_t extent : tensor.shape) {
    if (extent < 1) return false;
  }
  return vqvae::element_count(tensor.shape) * vqvae::item_size(tensor.dtype) == tensor.data.size();
}

inline bool equal(const vqvae::Tensor& a, const vqvae::Tensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.data == b.data;
}

// CRC-32 as zlib, PNG and .vq have it.
inline std::uint32_t crc32(const std::uint8_t* data, std::size_t size) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ (0xEDB88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

#endif  // VQVAE_FUZZ_TARGET_HPP_
