#include "vqvae/parameters.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support.hpp"
#include "vqvae/error.hpp"

namespace {

constexpr const char* kPretrained = VQVAE_PRETRAINED "/encoder-0000.params";

vqvae::Bytes pretrained() { return vqvae::read_file(kPretrained, 1 << 24); }

template <typename T>
vqvae::Bytes with(std::size_t offset, T value) {
  vqvae::Bytes bytes = pretrained();
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  return bytes;
}

// Of the first tensor: magic at 24, storage type at 28, number of dimensions at 32, extents from 36 on.
constexpr std::size_t kCount = 16;
constexpr std::size_t kMagic = 24;
constexpr std::size_t kStorage = 28;
constexpr std::size_t kDimensions = 32;
constexpr std::size_t kExtent = 36;

void check_rejected(const vqvae::Bytes& bytes) {
  CHECK_THROWS_AS(vqvae::parse_parameters(bytes, "x"), vqvae::InputError);
}

}  // namespace

TEST_CASE("a file that MXNet wrote is read") {
  const vqvae::Parameters parameters = vqvae::parse_parameters(pretrained(), kPretrained);
  CHECK(parameters.size() == 7);
  CHECK(parameters.at("arg:encoder_conv1_weight").shape == vqvae::Shape{64, 32, 3, 3});
  CHECK(parameters.at("arg:quantizer_codebook").data.size() == 64 * 16 * 4);
}

TEST_CASE("a file that is cut off anywhere is rejected") {
  const vqvae::Bytes whole = pretrained();
  for (std::size_t size = 0; size < whole.size(); size += size < 256 ? 1 : 997) {
    check_rejected(vqvae::Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
  }
}

TEST_CASE("bytes after the end are rejected") {
  vqvae::Bytes bytes = pretrained();
  bytes.push_back(0);
  check_rejected(bytes);
}

TEST_CASE("counts and extents that the file cannot hold are rejected") {
  check_rejected(with<std::uint64_t>(kCount, 6));
  check_rejected(with<std::uint64_t>(kCount, 8));
  check_rejected(with<std::uint64_t>(kCount, std::numeric_limits<std::uint64_t>::max()));
  for (const std::int32_t dimensions : {-1, 0, 33, std::numeric_limits<std::int32_t>::max()}) {
    check_rejected(with(kDimensions, dimensions));
  }
  for (const std::int64_t extent :
       {std::int64_t{-1}, std::int64_t{0}, std::int64_t{1} << 40, std::numeric_limits<std::int64_t>::max()}) {
    check_rejected(with(kExtent, extent));
  }
}

TEST_CASE("a tensor of another form than its magic number says is rejected") {
  check_rejected(with<std::uint32_t>(kMagic, 0xF993FAC8));
  check_rejected(with<std::uint32_t>(kMagic, 4));
  for (const std::int32_t storage : {-1, 1, 2, 3}) check_rejected(with(kStorage, storage));
}

TEST_CASE("a tensor as old versions wrote it, without a storage type, is read") {
  vqvae::Bytes bytes = with<std::uint32_t>(kMagic, 0xF993FAC8);
  bytes.erase(bytes.begin() + kStorage, bytes.begin() + kDimensions);
  const vqvae::Parameters parameters = vqvae::parse_parameters(bytes, "x");
  const vqvae::Parameters expected = vqvae::parse_parameters(pretrained(), "x");
  for (const auto& [name, tensor] : expected) {
    CHECK(parameters.at(name).shape == tensor.shape);
    CHECK(parameters.at(name).data == tensor.data);
  }
  const auto extent = std::numeric_limits<std::int64_t>::max();
  std::memcpy(bytes.data() + kStorage + sizeof(std::int32_t), &extent, sizeof extent);
  check_rejected(bytes);
}

TEST_CASE("a name without a prefix is what the graph takes by this name") {
  const std::vector<std::string> arguments = {"weight"};
  const std::vector<std::string> auxiliaries = {"mean"};
  const vqvae::Tensor one(vqvae::DType::kFloat32, {1});
  const auto names = [&](const std::vector<std::string>& stored) {
    vqvae::Parameters parameters;
    for (const std::string& name : stored) parameters.emplace(name, one);
    std::string found;
    for (const auto& [name, tensor] : vqvae::full_names(std::move(parameters), arguments, auxiliaries, "x")) {
      found += name + " ";
    }
    return found;
  };
  CHECK(names({"weight", "mean"}) == "arg:weight aux:mean ");
  CHECK(names({"arg:weight", "mean"}) == "arg:weight aux:mean ");
  CHECK(names({"aux:weight", "arg:stray"}) == "arg:stray aux:weight ");
  CHECK(names({"weight", "stray"}) == "arg:stray arg:weight ");
  CHECK_THROWS_AS(names({"weight", "arg:weight"}), vqvae::InputError);
  CHECK_THROWS_AS(names({"0.weight"}), vqvae::InputError);
  CHECK_THROWS_AS(names({"weight", "0.weight"}), vqvae::InputError);
  CHECK_THROWS_AS(names({"bias"}), vqvae::InputError);
}

TEST_CASE("names must be UTF-8") {
  const std::string whole(reinterpret_cast<const char*>(pretrained().data()), pretrained().size());
  const auto named = [&](const std::string& end) {
    std::string text = whole;
    text.replace(text.find("arg:encoder_conv0_bias") + 22 - end.size(), end.size(), end);
    return to_bytes(text);
  };
  for (const char* end : {"\x7F", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF"}) {
    CHECK(vqvae::parse_parameters(named(end), "x").size() == 7);
  }
  for (const char* end : {"\xFF", "\x80", "\xC3", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80"}) {
    check_rejected(named(end));
  }
}

TEST_CASE("names must be unique") {
  std::string text(reinterpret_cast<const char*>(pretrained().data()), pretrained().size());
  text.replace(text.find("arg:encoder_conv1_bias"), 22, "arg:encoder_conv0_bias");
  check_rejected(to_bytes(text));
}
