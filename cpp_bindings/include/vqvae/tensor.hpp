// Dense arrays in C order.
#ifndef VQVAE_TENSOR_HPP_
#define VQVAE_TENSOR_HPP_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vqvae {

using Bytes = std::vector<std::uint8_t>;
using Shape = std::vector<std::int64_t>;

// The element types of MXNet, with its own numbers for them.
enum class DType { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kUint8 = 3, kInt32 = 4, kInt8 = 5, kInt64 = 6, kBool = 7 };

// Whether MXNet's number stands for one of the types above.
bool is_dtype(int flag);
std::size_t item_size(DType dtype);
// NumPy's name of the type ("float32") and its code in an .npy header ("<f4").
const char* dtype_name(DType dtype);
const char* npy_descr(DType dtype);
// The type an .npy header names; false if there is none.
bool dtype_from_npy(const std::string& descr, DType* dtype);

// Number of elements. All extents are at least 0.
std::size_t element_count(const Shape& shape);
// As Python writes it: "(64, 1, 28, 28)".
std::string to_string(const Shape& shape);

struct Tensor {
  DType dtype = DType::kFloat32;
  Shape shape;
  Bytes data;

  Tensor() = default;
  // Zeros.
  Tensor(DType type, Shape extents);

  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data.data());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data.data());
  }
};

// How many of the values are NaN or infinite.
std::size_t count_nonfinite(const Tensor& tensor);

// The images of both, one after the other. The shapes agree but for the first extent.
void append(Tensor* tensor, const Tensor& more);
// Elements [begin, end) of the first axis.
Tensor slice(const Tensor& tensor, std::int64_t begin, std::int64_t end);

// A part of images (N, H, W, ...) or codes (N, h, w): some of them, and the same rows and columns of each.
struct Part {
  std::int64_t first = 0;
  std::int64_t row = 0;
  std::int64_t column = 0;
  std::int64_t count = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
};
Tensor cut(const Tensor& tensor, const Part& part);
// Copy a part of one tensor to where another has its place. The items are of one size.
void paste(const Tensor& from, const Part& part, Tensor* to, std::int64_t first, std::int64_t row, std::int64_t column);

}  // namespace vqvae

#endif  // VQVAE_TENSOR_HPP_
