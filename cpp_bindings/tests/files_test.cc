#include "vqvae/files.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <iterator>

#include "support.hpp"
#include "vqvae/error.hpp"

namespace {

std::ptrdiff_t entries(const std::filesystem::path& directory) {
  return std::distance(std::filesystem::directory_iterator(directory), {});
}

}  // namespace

TEST_CASE("files are written whole, and take the place of others") {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory / std::string(255, 'x');  // As long as a name may be.
  for (const char* text : {"one", "another", ""}) {
    vqvae::write_file(path, to_bytes(text));
    CHECK(vqvae::read_file(path, 100) == to_bytes(text));
    CHECK(entries(directory / "") == 1);
  }
  const mode_t mask = umask(0);
  umask(mask);
  struct stat found{};
  REQUIRE(stat(path.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == (0666 & ~mask));
}

TEST_CASE("what is not a file is not written to, and nothing is left") {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "x");
  CHECK_THROWS_AS(vqvae::write_file(directory / "x", to_bytes("text")), vqvae::RuntimeFailure);
  CHECK_THROWS_AS(vqvae::write_file("/dev/null", to_bytes("text")), vqvae::RuntimeFailure);
  CHECK_THROWS_AS(vqvae::write_file(directory / "nowhere/y", to_bytes("text")), vqvae::RuntimeFailure);
  CHECK(entries(directory / "") == 1);
}

TEST_CASE("a message is one line, whatever the file is called") {
  try {
    vqvae::read_file("a\nb\x1b[2J\u009b\u2028\u00e9", 100);
    FAIL("it was read");
  } catch (const vqvae::InputError& error) {
    CHECK(std::string(error.what()) == "a\\x0ab\\x1b[2J\\x9b\\u2028\u00e9: does not exist or is no file");
  }
}
