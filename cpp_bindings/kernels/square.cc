#include "square.hpp"

#include <immintrin.h>

namespace vqvae::kernels {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kTileBytes = kPlaneBytes / 2;

inline __m512 leading(__m512 x) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

// Of which the leading bits are the nearest bfloat16 number. What is left is smaller, and of either sign: the products
// that are left out, too.
inline __m512 rounded(__m512 x) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)));
}

inline __m512i load_row(const std::uint8_t* row) { return _mm512_load_si512(row); }

// 16 rows of 16 numbers of 32 bits, their rows and columns exchanged: first within 4 by 4 of them, then the fours.
inline void turn_rows(__m512i* rows) {
  __m512i pairs[kLanes];
  for (std::size_t i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (std::size_t i = 0; i < kLanes; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
    rows[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    rows[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    rows[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

inline void turn_tile(const std::uint8_t* from, std::uint8_t* to) {
  __m512i rows[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) rows[i] = load_row(from + i * kChunkBytes);
  turn_rows(rows);
  for (std::size_t i = 0; i < kLanes; ++i) _mm512_store_si512(to + i * kChunkBytes, rows[i]);
}

// Rows 2j and 2j + 1 side by side, number by number: two tiles of the right operand.
inline void pair_rows(const std::uint8_t* plane, std::uint8_t* to) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i step = _mm512_or_si512(lane, _mm512_slli_epi32(lane, 16));  // 0 0 1 1 2 2 ...
  const __m512i low = _mm512_add_epi16(step, _mm512_set1_epi32(32 << 16));  // 0 32 1 33 2 34 ...
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (std::size_t j = 0; j < kLanes; ++j) {
    const __m512i even = load_row(plane + 2 * j * kChunkBytes);
    const __m512i odd = load_row(plane + (2 * j + 1) * kChunkBytes);
    _mm512_store_si512(to + j * kChunkBytes, _mm512_permutex2var_epi16(even, low, odd));
    _mm512_store_si512(to + kTileBytes + j * kChunkBytes, _mm512_permutex2var_epi16(even, high, odd));
  }
}

// The same in another order: within each 16 bytes, which takes no crossing of lanes.
inline void mix_rows(const std::uint8_t* plane, std::uint8_t* to) {
  for (std::size_t j = 0; j < kLanes; ++j) {
    const __m512i even = load_row(plane + 2 * j * kChunkBytes);
    const __m512i odd = load_row(plane + (2 * j + 1) * kChunkBytes);
    _mm512_store_si512(to + j * kChunkBytes, _mm512_unpacklo_epi16(even, odd));
    _mm512_store_si512(to + kTileBytes + j * kChunkBytes, _mm512_unpackhi_epi16(even, odd));
  }
}

template <typename Change>
inline void change_each(float* block, const Change& change) {
  for (std::size_t i = 0; i < kSquare; i += kLanes) _mm512_store_ps(block + i, change(i, _mm512_load_ps(block + i)));
}

}  // namespace

void to_left(const float* block, std::uint8_t* operand) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i odd =
      _mm512_add_epi16(_mm512_or_si512(_mm512_slli_epi32(lane, 2), _mm512_slli_epi32(_mm512_slli_epi32(lane, 2), 16)),
                       _mm512_set1_epi32((3 << 16) + 1));  // 1 3 5 7 ...
  for (std::size_t row = 0; row < kBlock; ++row, operand += kChunkBytes) {
    __m512 low = _mm512_load_ps(block + row * kBlock);
    __m512 high = _mm512_load_ps(block + row * kBlock + kLanes);
    for (std::size_t plane = 0; plane < kSquareBytes; plane += kPlaneBytes) {
      const __m512 first = rounded(low);
      const __m512 second = rounded(high);
      _mm512_store_si512(operand + plane,
                         _mm512_permutex2var_epi16(_mm512_castps_si512(first), odd, _mm512_castps_si512(second)));
      low = _mm512_sub_ps(low, leading(first));
      high = _mm512_sub_ps(high, leading(second));
    }
  }
}

void to_right(const std::uint8_t* left, std::uint8_t* operand) {
  for (std::size_t at = 0; at < kSquareBytes; at += kPlaneBytes) pair_rows(left + at, operand + at);
}

void to_turned_right(const std::uint8_t* left, std::uint8_t* operand) {
  for (std::size_t at = 0; at < kSquareBytes; at += kTileBytes) turn_tile(left + at, operand + at);
}

void to_mixed_right(const std::uint8_t* left, std::uint8_t* operand) {
  for (std::size_t at = 0; at < kSquareBytes; at += kPlaneBytes) mix_rows(left + at, operand + at);
}

void to_mixed_left(const std::uint8_t* left, std::uint8_t* operand) {
  alignas(kAlignment) std::uint8_t paired[kPlaneBytes];
  for (std::size_t at = 0; at < kSquareBytes; at += kPlaneBytes) {
    mix_rows(left + at, paired);
    turn_tile(paired, operand + at);
    turn_tile(paired + kTileBytes, operand + at + kTileBytes);
  }
}

void clear(float* block) {
  for (std::size_t i = 0; i < kSquare; i += kLanes) _mm512_store_ps(block + i, _mm512_setzero_ps());
}

void copy(const float* block, float* to) {
  for (std::size_t i = 0; i < kSquare; i += kLanes) _mm512_store_ps(to + i, _mm512_load_ps(block + i));
}

void narrow(const float* block, std::size_t width, float* to) {
  if (width == kBlock) return copy(block, to);
  for (std::size_t row = 0; row < kBlock; ++row) {
    _mm256_store_ps(to + row * width, _mm256_load_ps(block + row * kBlock));
  }
}

void widen(const float* numbers, std::size_t width, float* block) {
  if (width == kBlock) return copy(numbers, block);
  for (std::size_t row = 0; row < kBlock; ++row) {
    _mm512_store_ps(block + row * kBlock, _mm512_zextps256_ps512(_mm256_load_ps(numbers + row * width)));
    _mm512_store_ps(block + row * kBlock + kLanes, _mm512_setzero_ps());
  }
}

void turn(const float* from, std::size_t from_step, std::size_t rows, std::size_t columns, float* to,
          std::size_t to_step) {
  const auto first = [](std::size_t count) { return static_cast<__mmask16>((1U << count) - 1); };
  __m512i numbers[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) {
    numbers[i] = i < rows ? _mm512_maskz_loadu_epi32(first(columns), from + i * from_step) : _mm512_setzero_si512();
  }
  turn_rows(numbers);
  for (std::size_t i = 0; i < columns; ++i) _mm512_mask_storeu_epi32(to + i * to_step, first(rows), numbers[i]);
}

void add(const float* block, float* to) {
  change_each(to, [&](std::size_t i, __m512 x) { return _mm512_add_ps(x, _mm512_load_ps(block + i)); });
}

void add_columns(const float* numbers, float* block) {
  change_each(block, [&](std::size_t i, __m512 x) { return _mm512_add_ps(x, _mm512_loadu_ps(numbers + i % kBlock)); });
}

void sum_columns(const float* block, float* numbers) {
  __m512 low = _mm512_setzero_ps();
  __m512 high = _mm512_setzero_ps();
  for (std::size_t row = 0; row < kBlock; ++row) {
    low = _mm512_add_ps(low, _mm512_load_ps(block + row * kBlock));
    high = _mm512_add_ps(high, _mm512_load_ps(block + row * kBlock + kLanes));
  }
  _mm512_storeu_ps(numbers, low);
  _mm512_storeu_ps(numbers + kLanes, high);
}

void derive(Function function, float a, const float* result, float* gradient) {
  const __m512 one = _mm512_set1_ps(1.0F);
  const __m512 scalar = _mm512_set1_ps(a);
  const auto value = [&](std::size_t i) { return _mm512_load_ps(result + i); };
  switch (function) {
    case Function::kTimes:
      return change_each(gradient, [&](std::size_t, __m512 x) { return _mm512_mul_ps(x, scalar); });
    case Function::kOver:
      return change_each(gradient, [&](std::size_t, __m512 x) { return _mm512_div_ps(x, scalar); });
    case Function::kRelu:
      return change_each(gradient, [&](std::size_t i, __m512 x) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(value(i), _mm512_setzero_ps(), _CMP_GT_OQ), x);
      });
    case Function::kTanh:
      return change_each(gradient, [&](std::size_t i, __m512 x) {
        return _mm512_mul_ps(x, _mm512_sub_ps(one, _mm512_mul_ps(value(i), value(i))));
      });
    case Function::kSigmoid:
      return change_each(gradient, [&](std::size_t i, __m512 x) {
        return _mm512_mul_ps(x, _mm512_mul_ps(value(i), _mm512_sub_ps(one, value(i))));
      });
    default:  // A sum's is 1.
      return;
  }
}

void derive_relu(const std::uint8_t* left, float* gradient) {
  for (std::size_t row = 0; row < kBlock; ++row, gradient += kBlock) {
    const __m512i leading_parts = load_row(left + row * kChunkBytes);
    const __mmask32 positive = _mm512_cmpneq_epi16_mask(leading_parts, _mm512_setzero_si512());
    const auto low = static_cast<__mmask16>(positive);
    const auto high = static_cast<__mmask16>(positive >> kLanes);
    _mm512_store_ps(gradient, _mm512_maskz_mov_ps(low, _mm512_load_ps(gradient)));
    _mm512_store_ps(gradient + kLanes, _mm512_maskz_mov_ps(high, _mm512_load_ps(gradient + kLanes)));
  }
}

}  // namespace vqvae::kernels
