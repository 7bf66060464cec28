#include "block.hpp"

#include <immintrin.h>

#include <limits>

namespace vqvae::kernels {
namespace {

constexpr std::size_t kLanes = 16;

// Hand each vector of the block to a function of its row, its first column and its lanes.
template <typename Visit>
inline void each(std::size_t rows, std::size_t columns, const Visit& visit) {
  for (std::size_t column = 0; column < columns; column += kLanes) {
    const std::size_t left = columns - column;
    const auto lanes = static_cast<__mmask16>(left >= kLanes ? 0xffff : (1U << left) - 1);
    for (std::size_t row = 0; row < rows; ++row) visit(row, column, lanes);
  }
}

// e^x: 2^n times a polynomial of the rest, whose coefficients are those of Cephes' expf; within 2 units in the last
// place.
__m512 exponential(__m512 x) {
  const auto set = [](float value) { return _mm512_set1_ps(value); };
  x = _mm512_min_ps(set(88.0F), _mm512_max_ps(set(-87.0F), x));  // In this order a NaN stays one.
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, set(1.44269504F)), _MM_FROUND_TO_NEAREST_INT);
  x = _mm512_fnmadd_ps(n, set(0.693359375F), x);
  x = _mm512_fnmadd_ps(n, set(-2.12194440e-4F), x);
  __m512 sum = set(1.9875691500e-4F);
  for (const float coefficient : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 0.5F}) {
    sum = _mm512_fmadd_ps(sum, x, set(coefficient));
  }
  sum = _mm512_add_ps(_mm512_fmadd_ps(sum, _mm512_mul_ps(x, x), x), set(1.0F));
  return _mm512_scalef_ps(sum, n);
}

__m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0F);
  return _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// Near 0, where 1 - 2 / (e^2x + 1) loses what matters, a polynomial with the coefficients of Cephes' tanhf.
__m512 tangent(__m512 x) {
  const auto set = [](float value) { return _mm512_set1_ps(value); };
  const __m512 square = _mm512_mul_ps(x, x);
  __m512 sum = set(-5.70498872745e-3F);
  for (const float coefficient : {2.06390887954e-2F, -5.37397155531e-2F, 1.33314422036e-1F, -3.33332819422e-1F}) {
    sum = _mm512_fmadd_ps(sum, square, set(coefficient));
  }
  const __m512 near = _mm512_fmadd_ps(_mm512_mul_ps(sum, square), x, x);
  const __m512 size = _mm512_abs_ps(x);
  const __m512 power = exponential(_mm512_add_ps(size, size));
  const __m512 far = _mm512_sub_ps(set(1.0F), _mm512_div_ps(set(2.0F), _mm512_add_ps(power, set(1.0F))));
  const __m512 sign = _mm512_and_ps(x, set(-0.0F));
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(size, set(0.625F), _CMP_LT_OQ), _mm512_or_ps(far, sign), near);
}

// To the nearest bfloat16, ties to even.
__m512 half(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

// The 8 leading bits of the significand, which are a bfloat16 number.
inline __m512 leading(__m512 x) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

// The leading 16 bits of 32 numbers, one behind the other.
inline __m512i upper_halves(__m512 low, __m512 high) {
  alignas(64) static const std::uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                     33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(_mm512_castps_si512(low), _mm512_load_si512(kOdd), _mm512_castps_si512(high));
}

}  // namespace

namespace {

// Hand a function of vectors to `change`, which applies it wherever it likes.
template <typename Change>
void choose(Function function, float a, float b, const Change& change) {
  const __m512 first = _mm512_set1_ps(a);
  const __m512 second = _mm512_set1_ps(b);
  switch (function) {
    case Function::kPlus:
      return change([&](__m512 x) { return _mm512_add_ps(x, first); });
    case Function::kTimes:
      return change([&](__m512 x) { return _mm512_mul_ps(x, first); });
    case Function::kOver:
      return change([&](__m512 x) { return _mm512_div_ps(x, first); });
    case Function::kClip:
      return change([&](__m512 x) { return _mm512_min_ps(second, _mm512_max_ps(first, x)); });
    case Function::kRelu:
      return change([&](__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); });
    case Function::kTanh:
      return change(tangent);
    case Function::kSigmoid:
      return change(sigmoid);
    case Function::kRint:  // Ties go down, as MXNet has it.
      return change([](__m512 x) {
        const __m512 floor = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF);
        const __m512 ceiling = _mm512_roundscale_ps(x, _MM_FROUND_TO_POS_INF);
        const __mmask16 up = _mm512_cmp_ps_mask(_mm512_sub_ps(x, floor), _mm512_sub_ps(ceiling, x), _CMP_GT_OQ);
        return _mm512_mask_blend_ps(up, floor, ceiling);
      });
    case Function::kHalf:
      return change(half);
  }
}

}  // namespace

void apply(Function function, float a, float b, Block* block) {
  // All lanes are computed, also those that nobody wants.
  choose(function, a, b, [&](const auto& of) {
    each(block->rows, block->columns, [&](std::size_t row, std::size_t column, __mmask16) {
      float* place = block->values + row * kBlock + column;
      _mm512_store_ps(place, of(_mm512_load_ps(place)));
    });
  });
}

void apply(Function function, float a, float b, float* numbers, std::size_t count) {
  choose(function, a, b, [&](const auto& of) {
    each(1, count, [&](std::size_t, std::size_t at, __mmask16 lanes) {
      _mm512_mask_storeu_ps(numbers + at, lanes, of(_mm512_maskz_loadu_ps(lanes, numbers + at)));
    });
  });
}

void add_channels(const float* numbers, Block* block) {
  each(block->rows, block->columns, [&](std::size_t row, std::size_t column, __mmask16 lanes) {
    float* place = block->values + row * kBlock + column;
    const __m512 channel = _mm512_maskz_loadu_ps(lanes, numbers + block->first + column);
    _mm512_store_ps(place, _mm512_add_ps(_mm512_load_ps(place), channel));
  });
}

void scale_channels(const float* numbers, Block* block) {
  each(block->rows, block->columns, [&](std::size_t row, std::size_t column, __mmask16 lanes) {
    float* place = block->values + row * kBlock + column;
    const __m512 channel = _mm512_maskz_loadu_ps(lanes, numbers + block->first + column);
    _mm512_store_ps(place, _mm512_mul_ps(_mm512_load_ps(place), channel));
  });
}

void load(const float* const* rows, Block* block) {
  each(block->rows, block->columns, [&](std::size_t row, std::size_t column, __mmask16 lanes) {
    _mm512_store_ps(block->values + row * kBlock + column, _mm512_maskz_loadu_ps(lanes, rows[row] + column));
  });
}

void add(const float* const* rows, Block* block) {
  each(block->rows, block->columns, [&](std::size_t row, std::size_t column, __mmask16 lanes) {
    float* place = block->values + row * kBlock + column;
    _mm512_store_ps(place, _mm512_add_ps(_mm512_load_ps(place), _mm512_maskz_loadu_ps(lanes, rows[row] + column)));
  });
}

void store(float* const* rows, const Block& block) {
  each(block.rows, block.columns, [&](std::size_t row, std::size_t column, __mmask16 lanes) {
    _mm512_mask_storeu_ps(rows[row] + column, lanes, _mm512_load_ps(block.values + row * kBlock + column));
  });
}

namespace {

// Up to 32 numbers.
inline void store_chunk(Format format, std::uint8_t* place, std::size_t plane_stride, __m512 low, __m512 high,
                        __mmask32 lanes) {
  if (element_bytes(format) == 1) {
    const __m128i first = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(low));
    const __m128i second = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(high));
    _mm256_mask_storeu_epi8(place, lanes, _mm256_set_m128i(second, first));
    return;
  }
  for (std::size_t plane = 0; plane < plane_count(format); ++plane, place += plane_stride) {
    const __m512i halves = upper_halves(low, high);
    if (lanes == 0xffffffffU) {  // What is stored whole is stored faster.
      _mm512_store_si512(place, halves);
    } else {
      _mm512_mask_storeu_epi16(place, lanes, halves);
    }
    low = _mm512_sub_ps(low, leading(low));
    high = _mm512_sub_ps(high, leading(high));
  }
}

}  // namespace

void store_operand(Format format, std::uint8_t* const* rows, std::size_t plane_stride, const Block& block) {
  const auto lanes = static_cast<__mmask32>(block.columns >= kBlock ? 0xffffffffU : (1U << block.columns) - 1);
  for (std::size_t row = 0; row < block.rows; ++row) {
    if (rows[row] == nullptr) continue;
    const float* numbers = block.values + row * kBlock;
    store_chunk(format, rows[row], plane_stride, _mm512_load_ps(numbers), _mm512_load_ps(numbers + kLanes), lanes);
  }
}

void store_numbers(Format format, std::uint8_t* place, std::size_t chunk_stride, std::size_t plane_stride,
                   const float* numbers, std::size_t count) {
  const std::size_t end = pixel_bytes(format, count) / element_bytes(format);
  const auto take = [&](std::size_t at) {
    const std::size_t left = at < count ? count - at : 0;
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(left >= kLanes ? 0xffff : (1U << left) - 1), numbers + at);
  };
  for (std::size_t at = 0; at < end; at += kBlock) {
    const std::size_t byte = at * element_bytes(format);
    store_chunk(format, place + byte / kChunkBytes * chunk_stride + byte % kChunkBytes, plane_stride, take(at),
                take(at + kLanes), 0xffffffffU);
  }
}

void Smallest::start() {
  for (std::size_t i = 0; i < kBlock * kLanes; ++i) {
    values_[i] = std::numeric_limits<float>::infinity();
    columns_[i] = 0;
  }
}

void Smallest::look(const Block& block) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  each(block.rows, block.columns, [&](std::size_t row, std::size_t column, __mmask16 lanes) {
    const __m512 value = _mm512_load_ps(block.values + row * kBlock + column);
    const __m512 smallest = _mm512_load_ps(values_ + row * kLanes);
    const __mmask16 smaller = _mm512_mask_cmp_ps_mask(lanes, value, smallest, _CMP_LT_OQ);
    const __m512i here = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(block.first + column)));
    _mm512_mask_store_ps(values_ + row * kLanes, smaller, value);
    _mm512_mask_store_epi32(columns_ + row * kLanes, smaller, here);
  });
}

void Smallest::give(Block* block) const {
  for (std::size_t row = 0; row < block->rows; ++row) {
    const __m512 values = _mm512_load_ps(values_ + row * kLanes);
    const __m512 smallest = _mm512_set1_ps(_mm512_reduce_min_ps(values));
    const __mmask16 equal = _mm512_cmp_ps_mask(values, smallest, _CMP_EQ_OQ);
    const __m512i columns = _mm512_load_si512(columns_ + row * kLanes);
    block->values[row * kBlock] = static_cast<float>(_mm512_mask_reduce_min_epi32(equal, columns));
  }
}

}  // namespace vqvae::kernels
