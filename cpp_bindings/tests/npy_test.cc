#include "vqvae/npy.hpp"

#include <doctest/doctest.h>

#include "support.hpp"
#include "vqvae/error.hpp"

namespace {

vqvae::Tensor counting() {
  vqvae::Tensor tensor(vqvae::DType::kFloat32, {2, 3});
  for (int i = 0; i < 6; ++i) tensor.as<float>()[i] = static_cast<float>(i);
  return tensor;
}

}  // namespace

TEST_CASE("arrays come back as they were written") {
  const TemporaryDirectory directory;
  for (const vqvae::Shape& shape : {vqvae::Shape{2, 3}, vqvae::Shape{5}, vqvae::Shape{}, vqvae::Shape{0, 4}}) {
    const vqvae::Tensor written(vqvae::DType::kInt32, shape);
    vqvae::write_file(directory / "x.npy", vqvae::npy_bytes(written));
    const vqvae::Tensor read = vqvae::read_npy(directory / "x.npy");
    CHECK(read.dtype == written.dtype);
    CHECK(read.shape == shape);
    CHECK(read.data == written.data);
  }
}

TEST_CASE("arrays in memory are read as those in files are") {
  const vqvae::Bytes bytes = vqvae::npy_bytes(counting());
  CHECK(vqvae::parse_npy(bytes, "x").data == counting().data);
  CHECK_THROWS_WITH_AS(vqvae::parse_npy({}, "standard input"),
                       "standard input: is not an .npy file that can be read: it does not begin as version 1.0 does",
                       vqvae::InputError);
}

TEST_CASE("values start on a boundary of 64 bytes") {
  const vqvae::Bytes bytes = vqvae::npy_bytes(counting());
  CHECK((bytes.size() - counting().data.size()) % 64 == 0);
}

TEST_CASE("arrays that are cut off, or altered, are rejected") {
  const TemporaryDirectory directory;
  const vqvae::Bytes whole = vqvae::npy_bytes(counting());
  const auto check_rejected = [&directory](const vqvae::Bytes& bytes) {
    vqvae::write_file(directory / "x.npy", bytes);
    CHECK_THROWS_AS(vqvae::read_npy(directory / "x.npy"), vqvae::InputError);
  };
  for (std::size_t size = 0; size < whole.size(); ++size) {
    check_rejected(vqvae::Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
  }
  const std::string text(whole.begin(), whole.end());
  for (const auto& [from, to] : {std::pair<const char*, const char*>{"(2, 3)", "(2, 4)"},
                                 {"(2, 3)", "(2,-3)"},
                                 {"False", "True "},
                                 {"<f4", ">f4"},
                                 {"<f4", "|O8"},
                                 {"NUMPY", "NUMPI"}}) {
    std::string altered = text;
    altered.replace(altered.find(from), std::string(from).size(), to);
    check_rejected(to_bytes(altered));
  }
}
