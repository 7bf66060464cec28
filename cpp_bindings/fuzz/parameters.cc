// .params files in every form: what is parsed, written again and parsed again is the same.
#include "vqvae/parameters.hpp"

#include <cstring>
#include <string>

#include "target.hpp"

namespace {

template <typename T>
void put(vqvae::Bytes* out, T value) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&value);
  out->insert(out->end(), bytes, bytes + sizeof value);
}

// As MXNet 1.9.1 writes it under NumPy's rules for shapes, which allow scalars and extents of 0.
vqvae::Bytes to_bytes(const vqvae::Parameters& parameters) {
  vqvae::Bytes out;
  put<std::uint64_t>(&out, 0x112);
  put<std::uint64_t>(&out, 0);
  put<std::uint64_t>(&out, parameters.size());
  for (const auto& [name, tensor] : parameters) {
    put<std::uint32_t>(&out, 0xF993FACA);
    put<std::int32_t>(&out, 0);
    put<std::int32_t>(&out, static_cast<std::int32_t>(tensor.shape.size()));
    for (const std::int64_t extent : tensor.shape) put(&out, extent);
    put<std::int32_t>(&out, 1);
    put<std::int32_t>(&out, 0);
    put<std::int32_t>(&out, static_cast<std::int32_t>(tensor.dtype));
    out.insert(out.end(), tensor.data.begin(), tensor.data.end());
  }
  put<std::uint64_t>(&out, parameters.size());
  for (const auto& [name, tensor] : parameters) {
    put<std::uint64_t>(&out, name.size());
    out.insert(out.end(), name.begin(), name.end());
  }
  return out;
}

}  // namespace

void check(const vqvae::Bytes& bytes) {
  const vqvae::Parameters parameters = vqvae::parse_parameters(bytes, "fuzz");
  const vqvae::Parameters again = vqvae::parse_parameters(to_bytes(parameters), "fuzz");
  require(again.size() == parameters.size(), "as many tensors are read again");
  for (const auto& [name, tensor] : parameters) {
    require(vqvae::element_count(tensor.shape) * vqvae::item_size(tensor.dtype) == tensor.data.size(),
            "the values fit the shape");
    require(equal(tensor, again.at(name)), "a tensor is read again as it was");
  }
}

// The round trip above holds the tensors three times, sparse ones in their dense form.
std::size_t budget(const vqvae::Bytes& bytes) {
  return 2 * parser_budget(bytes) + 3 * (16 * bytes.size() + (std::size_t{32} << 20U));
}

void mend(std::uint8_t* /*data*/, std::size_t /*size*/) {}
