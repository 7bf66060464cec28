#include "vqvae/parameters.hpp"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr std::uint64_t kFileMagic = 0x112;
constexpr std::uint32_t kTensorMagic = 0xF993FAC9;
constexpr std::uint32_t kOldTensorMagic = 0xF993FAC8;  // Until MXNet 0.12; has no storage type.
constexpr std::int32_t kDense = 0;
constexpr std::int32_t kCpu = 1;  // The device.
constexpr std::int32_t kMaxDimensions = 32;
constexpr std::uint64_t kMaxNameBytes = 4096;
// The least that a tensor and a name take.
constexpr std::uint64_t kMinTensorBytes = 24;
constexpr std::uint64_t kMinNameBytes = 8;

// Takes values off the front of a buffer and never past its end.
class Reader {
 public:
  Reader(const Bytes& bytes, const std::string& name) : next_(bytes.data()), left_(bytes.size()), name_(name) {}

  InputError damaged(const std::string& why) const {
    return {name_, "is damaged: " + why + "; export the network again"};
  }

  std::size_t left() const { return left_; }

  const std::uint8_t* bytes(std::uint64_t size) {
    if (size > left_) {
      throw damaged("it ends early: " + std::to_string(size) + " bytes are wanted, " + std::to_string(left_) +
                    " are left");
    }
    const std::uint8_t* taken = next_;
    next_ += size;
    left_ -= static_cast<std::size_t>(size);
    return taken;
  }

  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, bytes(sizeof value), sizeof value);
    return value;
  }

  // A number of things of at least so many bytes each.
  std::uint64_t count(std::uint64_t minimum_bytes) {
    const auto number = take<std::uint64_t>();
    if (number > left_ / minimum_bytes) {
      throw damaged("it claims " + std::to_string(number) + " entries in " + std::to_string(left_) + " bytes");
    }
    return number;
  }

 private:
  const std::uint8_t* next_;
  std::size_t left_;
  const std::string& name_;
};

Tensor read_tensor(Reader* reader) {
  const auto magic = reader->take<std::uint32_t>();
  const bool dense = magic == kOldTensorMagic || (magic == kTensorMagic && reader->take<std::int32_t>() == kDense);
  const auto dimensions = reader->take<std::int32_t>();
  if (!dense) {
    throw reader->damaged("a tensor is not a dense one as MXNet 1.x writes it");
  }
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    throw reader->damaged("a tensor has " + std::to_string(dimensions) + " dimensions");
  }
  Tensor tensor;
  std::uint64_t elements = 1;
  for (std::int32_t i = 0; i < dimensions; ++i) {
    const auto extent = reader->take<std::int64_t>();
    if (extent < 1 || static_cast<std::uint64_t>(extent) > reader->left() / elements) {
      throw reader->damaged("a tensor has an extent of " + std::to_string(extent));
    }
    elements *= static_cast<std::uint64_t>(extent);
    tensor.shape.push_back(extent);
  }
  reader->bytes(2 * sizeof(std::int32_t));  // The device that it was saved from.
  const auto flag = reader->take<std::int32_t>();
  if (!is_dtype(flag) || flag == static_cast<int>(DType::kBool)) {
    throw reader->damaged("a tensor has the unknown type " + std::to_string(flag));
  }
  tensor.dtype = static_cast<DType>(flag);
  const std::uint64_t size = elements * item_size(tensor.dtype);
  const std::uint8_t* values = reader->bytes(size);
  tensor.data.assign(values, values + size);
  return tensor;
}

std::string read_name(Reader* reader) {
  const auto length = reader->take<std::uint64_t>();
  if (length > kMaxNameBytes) throw reader->damaged("a name is " + std::to_string(length) + " bytes long");
  const auto* text = reinterpret_cast<const char*>(reader->bytes(length));
  std::string name(text, text + length);
  const std::string prefix = name.substr(0, 4);
  if ((prefix != "arg:" && prefix != "aux:") || name.size() == 4) {
    throw reader->damaged("the name '" + name + "' does not begin with arg: or aux:");
  }
  return name;
}

}  // namespace

Parameters parse_parameters(const Bytes& bytes, const std::string& name) {
  Reader reader(bytes, name);
  if (bytes.size() < 16 || reader.take<std::uint64_t>() != kFileMagic || reader.take<std::uint64_t>() != 0) {
    throw reader.damaged("it does not begin as a .params file");
  }
  std::vector<Tensor> tensors;
  for (std::uint64_t left = reader.count(kMinTensorBytes); left > 0; --left) tensors.push_back(read_tensor(&reader));
  const std::uint64_t names = reader.count(kMinNameBytes);
  if (names != tensors.size()) {
    throw reader.damaged("it has " + std::to_string(tensors.size()) + " tensors and " + std::to_string(names) +
                         " names");
  }
  Parameters parameters;
  for (Tensor& tensor : tensors) {
    if (!parameters.emplace(read_name(&reader), std::move(tensor)).second) throw reader.damaged("a name occurs twice");
  }
  if (reader.left() > 0) throw reader.damaged(std::to_string(reader.left()) + " bytes follow its end");
  return parameters;
}

Bytes parameters_bytes(Parameters parameters) {
  std::size_t size = 4 * sizeof(std::uint64_t);
  for (const auto& [name, tensor] : parameters) {
    size +=
        kMinTensorBytes + tensor.shape.size() * sizeof(std::int64_t) + tensor.data.size() + kMinNameBytes + name.size();
  }
  Bytes bytes;
  bytes.reserve(size);
  const auto put = [&bytes](auto value) {
    const auto* first = reinterpret_cast<const std::uint8_t*>(&value);
    bytes.insert(bytes.end(), first, first + sizeof value);
  };
  put(kFileMagic);
  put(std::uint64_t{0});
  put(static_cast<std::uint64_t>(parameters.size()));
  for (auto& [name, tensor] : parameters) {
    put(kTensorMagic);
    put(kDense);
    put(static_cast<std::int32_t>(tensor.shape.size()));
    for (const std::int64_t extent : tensor.shape) put(extent);
    put(kCpu);
    put(std::int32_t{0});
    put(static_cast<std::int32_t>(tensor.dtype));
    bytes.insert(bytes.end(), tensor.data.begin(), tensor.data.end());
    Bytes().swap(tensor.data);
  }
  put(static_cast<std::uint64_t>(parameters.size()));
  for (const auto& [name, tensor] : parameters) {
    put(static_cast<std::uint64_t>(name.size()));
    bytes.insert(bytes.end(), name.begin(), name.end());
  }
  return bytes;
}

}  // namespace vqvae
