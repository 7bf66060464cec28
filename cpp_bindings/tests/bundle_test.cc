#include "vqvae/bundle.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "support.hpp"
#include "vqvae/error.hpp"

namespace {

constexpr const char* kFiles[] = {"manifest.json", "encoder-symbol.json", "encoder-0000.params", "decoder-symbol.json",
                                  "decoder-0000.params"};

void copy_pretrained(const TemporaryDirectory& directory) {
  for (const char* name : kFiles) {
    std::filesystem::copy_file(std::filesystem::path(VQVAE_PRETRAINED) / name, directory / name);
  }
}

}  // namespace

TEST_CASE("the pretrained bundle is read") {
  const vqvae::Bundle bundle = vqvae::read_bundle(VQVAE_PRETRAINED, true);
  CHECK(bundle.channels == 1);
  CHECK(bundle.stride == 4);
  CHECK(bundle.num_embeddings == 64);
}

TEST_CASE("a bundle that lacks a file is rejected") {
  for (const char* name : kFiles) {
    const TemporaryDirectory directory;
    copy_pretrained(directory);
    std::filesystem::remove(directory / name);
    CHECK_THROWS_AS(vqvae::read_bundle(directory / "", true), vqvae::InputError);
    if (name == std::string("manifest.json")) continue;
    CHECK_THROWS_AS(vqvae::read_bundle(directory / "", false), vqvae::InputError);
  }
}

TEST_CASE("without a manifest the graphs tell what it would say") {
  const TemporaryDirectory directory;
  copy_pretrained(directory);
  std::filesystem::remove(directory / "manifest.json");
  const vqvae::Bundle bundle = vqvae::read_bundle(directory / "", false);
  CHECK(bundle.channels == 1);
  CHECK(bundle.stride == 4);
  CHECK(bundle.num_embeddings == 64);
  CHECK(bundle.digest == vqvae::read_bundle(VQVAE_PRETRAINED, true).digest);
}

TEST_CASE("an altered file is rejected, unless digests are not to be verified") {
  const TemporaryDirectory directory;
  copy_pretrained(directory);
  vqvae::Bytes bytes = vqvae::read_file(directory / "decoder-0000.params", 1 << 24);
  bytes[100] ^= 1U;
  vqvae::write_file(directory / "decoder-0000.params", bytes);
  CHECK_THROWS_AS(vqvae::read_bundle(directory / "", true), vqvae::InputError);
  CHECK_NOTHROW(vqvae::read_bundle(directory / "", false));
}

TEST_CASE("a manifest that is not sound is rejected") {
  for (const auto& [from, to] : {std::pair<const char*, const char*>{"\"format\": 1", "\"format\": 2"},
                                 {"\"channels\": 1", "\"channels\": 2"},
                                 {"\"channels\": 1", "\"channels\": \"1\""},
                                 {"\"stride\": 4", "\"stride\": 0"},
                                 {"\"NCHW\"", "\"NHWC\""},
                                 {"\"float32\"", "\"float16\""},
                                 {"\"sha256\"", "\"sha512\""},
                                 {"\"num_embeddings\"", "\"rows\""},
                                 {"{", "["}}) {
    const TemporaryDirectory directory;
    copy_pretrained(directory);
    const vqvae::Bytes bytes = vqvae::read_file(directory / "manifest.json", 1 << 20);
    std::string text(bytes.begin(), bytes.end());
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from)) {
      text.replace(at, std::string(from).size(), to);
      if (*from == '{') break;
    }
    vqvae::write_file(directory / "manifest.json", to_bytes(text));
    CHECK_THROWS_AS(vqvae::read_bundle(directory / "", false), vqvae::InputError);
  }
}

TEST_CASE("a parameter that is not finite is rejected, though its digest fits") {
  const TemporaryDirectory directory;
  copy_pretrained(directory);
  vqvae::Bytes bytes = vqvae::read_file(directory / "encoder-0000.params", 1 << 24);
  const std::string digest = vqvae::sha256(bytes);
  // The first value of the first tensor: after its header of 24 + 12 bytes, 4 extents and 12 bytes.
  const float bad = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + 24 + 12 + 32 + 12, &bad, sizeof bad);
  vqvae::write_file(directory / "encoder-0000.params", bytes);
  const vqvae::Bytes manifest = vqvae::read_file(directory / "manifest.json", 1 << 20);
  std::string text(manifest.begin(), manifest.end());
  text.replace(text.find(digest), digest.size(), vqvae::sha256(bytes));
  vqvae::write_file(directory / "manifest.json", to_bytes(text));
  CHECK_THROWS_WITH_AS(vqvae::read_bundle(directory / "", true), doctest::Contains("holds NaN or infinity"),
                       vqvae::InputError);
}
