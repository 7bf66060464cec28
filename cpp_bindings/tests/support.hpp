// What the tests share.
#ifndef VQVAE_TESTS_SUPPORT_HPP_
#define VQVAE_TESTS_SUPPORT_HPP_

#include <stdlib.h>

#include <filesystem>
#include <stdexcept>
#include <string>

#include "vqvae/files.hpp"
#include "vqvae/tensor.hpp"

// A directory that is gone when the test is.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = std::filesystem::temp_directory_path() / "vqvae.XXXXXX";  // mkdtemp fills in the end.
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error(name + ": could not be made");
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline vqvae::Bytes to_bytes(const std::string& text) { return vqvae::Bytes(text.begin(), text.end()); }

#endif  // VQVAE_TESTS_SUPPORT_HPP_
