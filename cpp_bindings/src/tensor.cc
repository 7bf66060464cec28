#include "vqvae/tensor.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace vqvae {
namespace {

struct Type {
  std::size_t size;
  const char* name;
  const char* descr;
};

// In the order of DType.
constexpr std::array<Type, 8> kTypes = {{{4, "float32", "<f4"},
                                         {8, "float64", "<f8"},
                                         {2, "float16", "<f2"},
                                         {1, "uint8", "|u1"},
                                         {4, "int32", "<i4"},
                                         {1, "int8", "|i1"},
                                         {8, "int64", "<i8"},
                                         {1, "bool", "|b1"}}};

bool is_finite(float value) { return std::isfinite(value); }
bool is_finite(double value) { return std::isfinite(value); }
// A half-precision number's bits: NaN and infinity have every bit of the exponent set.
bool is_finite(std::uint16_t bits) { return (bits & 0x7C00U) != 0x7C00U; }

template <typename T>
std::size_t count_nonfinite_as(const Tensor& tensor) {
  const T* values = tensor.as<T>();
  return static_cast<std::size_t>(
      std::count_if(values, values + element_count(tensor.shape), [](T value) { return !is_finite(value); }));
}

const Type& type_of(DType dtype) { return kTypes.at(static_cast<std::size_t>(dtype)); }

}  // namespace

bool is_dtype(int flag) { return flag >= 0 && flag < static_cast<int>(kTypes.size()); }
std::size_t item_size(DType dtype) { return type_of(dtype).size; }
const char* dtype_name(DType dtype) { return type_of(dtype).name; }
const char* npy_descr(DType dtype) { return type_of(dtype).descr; }

bool dtype_from_npy(const std::string& descr, DType* dtype) {
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    if (descr == kTypes[i].descr) {
      *dtype = static_cast<DType>(i);
      return true;
    }
  }
  return false;
}

std::size_t element_count(const Shape& shape) {
  std::size_t count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  return count;
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::size_t count_nonfinite(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kFloat16:
      return count_nonfinite_as<std::uint16_t>(tensor);
    case DType::kFloat32:
      return count_nonfinite_as<float>(tensor);
    case DType::kFloat64:
      return count_nonfinite_as<double>(tensor);
    default:
      return 0;
  }
}

Tensor::Tensor(DType type, Shape extents) : dtype(type), shape(std::move(extents)) {
  data.resize(element_count(shape) * item_size(dtype));
}

void append(Tensor* tensor, const Tensor& more) {
  tensor->data.insert(tensor->data.end(), more.data.begin(), more.data.end());
  tensor->shape[0] += more.shape[0];
}

Tensor slice(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
  const std::size_t row = tensor.data.size() / static_cast<std::size_t>(tensor.shape[0]);
  Tensor part;
  part.dtype = tensor.dtype;
  part.shape = tensor.shape;
  part.shape[0] = end - begin;
  part.data.assign(tensor.data.begin() + static_cast<std::ptrdiff_t>(row) * begin,
                   tensor.data.begin() + static_cast<std::ptrdiff_t>(row) * end);
  return part;
}

Tensor cut(const Tensor& tensor, const Part& part) {
  Shape shape = tensor.shape;
  shape[0] = part.count;
  shape[1] = part.height;
  shape[2] = part.width;
  Tensor result(tensor.dtype, shape);
  paste(tensor, part, &result, 0, 0, 0);
  return result;
}

void paste(const Tensor& from, const Part& part, Tensor* to, std::int64_t first, std::int64_t row,
           std::int64_t column) {
  const Shape inner(from.shape.begin() + 3, from.shape.end());
  const auto item = static_cast<std::ptrdiff_t>(element_count(inner) * item_size(from.dtype));
  const auto place = [item](const Tensor& tensor, std::int64_t n, std::int64_t y, std::int64_t x) {
    return ((n * tensor.shape[1] + y) * tensor.shape[2] + x) * item;
  };
  for (std::int64_t n = 0; n < part.count; ++n) {
    for (std::int64_t y = 0; y < part.height; ++y) {
      std::copy_n(from.data.begin() + place(from, part.first + n, part.row + y, part.column), part.width * item,
                  to->data.begin() + place(*to, first + n, row + y, column));
    }
  }
}

}  // namespace vqvae
