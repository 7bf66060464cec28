#include "vqvae/files.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <system_error>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

// Removes an unfinished file unless it is kept.
class Temporary {
 public:
  explicit Temporary(const std::filesystem::path& path)
      : name_((path.parent_path() / ("." + path.filename().string() + ".XXXXXX")).string()) {
    descriptor_ = mkstemp(name_.data());
    if (descriptor_ < 0) throw RuntimeFailure(path.string(), std::strerror(errno));
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (descriptor_ >= 0) close(descriptor_);
    if (!kept_) unlink(name_.c_str());
  }

  bool write(const Bytes& bytes) const {
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t count = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return false;
      done += static_cast<std::size_t>(count);
    }
    return true;
  }

  bool keep_as(const std::filesystem::path& path) {
    const mode_t mask = umask(0);
    umask(mask);
    kept_ = fchmod(descriptor_, 0666 & ~mask) == 0 && fsync(descriptor_) == 0 &&
            std::rename(name_.c_str(), path.c_str()) == 0;
    return kept_;
  }

 private:
  std::string name_;
  int descriptor_ = -1;
  bool kept_ = false;
};

}  // namespace

Bytes read_file(const std::filesystem::path& path, std::size_t limit) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) throw InputError(path.string(), "does not exist or is no file");
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) throw InputError(path.string(), error.message());
  if (size > limit) throw InputError(path.string(), "is larger than the limit of " + std::to_string(limit) + " bytes");
  Bytes bytes(static_cast<std::size_t>(size));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw InputError(path.string(), "could not be read");
  return bytes;
}

void write_file(const std::filesystem::path& path, const Bytes& bytes) {
  Temporary file(path);
  if (!file.write(bytes) || !file.keep_as(path)) throw RuntimeFailure(path.string(), std::strerror(errno));
}

void make_directory(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw RuntimeFailure(path.string(), error.message());
}

std::string sha256(const Bytes& bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) {
    throw RuntimeFailure("SHA-256", "OpenSSL failed");
  }
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

}  // namespace vqvae
