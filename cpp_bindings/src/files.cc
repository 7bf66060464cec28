#include "vqvae/files.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <system_error>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr mode_t kMode = 0666;
constexpr const char* kUnfinished = ".vqvae.";
constexpr std::size_t kRandom = 32;  // hexadecimal digits that follow it

bool is_unfinished(const std::string& name) {
  const std::string prefix = kUnfinished;
  return name.size() == prefix.size() + kRandom && name.compare(0, prefix.size(), prefix) == 0 &&
         name.find_first_not_of("0123456789abcdef", prefix.size()) == std::string::npos;
}

// Remove what nobody holds any more: a file or a directory of this user.
void remove_unheld(const std::filesystem::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return;
  struct stat found{};
  std::error_code ignored;
  if (fstat(descriptor, &found) == 0 && found.st_uid == geteuid() && flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
    if (S_ISREG(found.st_mode)) std::filesystem::remove(path, ignored);
    if (S_ISDIR(found.st_mode)) std::filesystem::remove_all(path, ignored);
  }
  close(descriptor);
}

// Remove what killed processes left in a directory; once for each, as it looks at every name.
void remove_stale(const std::filesystem::path& directory) {
  static std::mutex mutex;
  static std::set<std::string> done;
  const std::scoped_lock turn(mutex);
  if (!done.insert(directory.string()).second) return;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    if (is_unfinished(at->path().filename().string())) remove_unheld(at->path());
  }
}

// An unfinished file. Where the file system can, it has no name, so that nothing is left of it whenever the process is
// ended; else a hidden one, which goes with this object unless it is published. While it is open it is locked: of those
// that nobody holds, the next process that writes there removes the user's own. Python (vqvae_gluon/temporary.py) does
// so, too.
class Unfinished {
 public:
  explicit Unfinished(const std::filesystem::path& path)
      : path_(path.string()), hidden_((path.parent_path() / (kUnfinished + std::string(kRandom, '0'))).string()) {
    struct stat found{};
    if (stat(path_.c_str(), &found) == 0 && !S_ISREG(found.st_mode)) fail(S_ISDIR(found.st_mode) ? EISDIR : EINVAL);
    const std::filesystem::path directory = path.has_parent_path() ? path.parent_path() : ".";
    remove_stale(directory);
    descriptor_ = open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, kMode);
    if (descriptor_ >= 0 && access(link().c_str(), F_OK) == 0) {
      flock(descriptor_, LOCK_SH);  // It will have a hidden name for a moment if it replaces another.
      return;
    }
    const bool unsupported = descriptor_ >= 0 || errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL;
    if (!unsupported) fail(errno);
    if (descriptor_ >= 0) close(descriptor_);
    while (!is_hidden_) {
      choose_hidden();
      descriptor_ = open(hidden_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, kMode);
      if (descriptor_ < 0 && errno == EEXIST) continue;
      if (descriptor_ < 0) fail(errno);
      flock(descriptor_, LOCK_SH);
      is_hidden_ = access(hidden_.c_str(), F_OK) == 0;  // Else another process removed it before it was locked.
      if (!is_hidden_) close(descriptor_);
    }
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  ~Unfinished() { discard(); }

  void write(const Bytes& bytes) const {
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t count = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      done += static_cast<std::size_t>(count);
    }
  }

  // Give it its name; `synced`, once it is on the disk.
  void publish(bool synced) {
    if (synced && fsync(descriptor_) != 0) fail(errno);
    if (!is_hidden_) {
      // A link takes no other file's place, a renaming does.
      if (linked_as(path_)) {
        finish();
        return;
      }
      if (errno != EEXIST) fail(errno);
      do {
        choose_hidden();
        is_hidden_ = linked_as(hidden_);
      } while (!is_hidden_ && errno == EEXIST);
      if (!is_hidden_) fail(errno);
    }
    if (std::rename(hidden_.c_str(), path_.c_str()) != 0) fail(errno);
    is_hidden_ = false;
    finish();
  }

 private:
  [[noreturn]] void fail(int error) const { throw RuntimeFailure(path_, std::strerror(error)); }
  std::string link() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  bool linked_as(const std::string& name) const {
    return linkat(AT_FDCWD, link().c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
  }

  void choose_hidden() {
    std::random_device random;
    std::generate(hidden_.end() - kRandom, hidden_.end(), [&random] { return "0123456789abcdef"[random() % 16]; });
  }

  void finish() {
    const int status = close(descriptor_);
    descriptor_ = -1;
    if (status != 0) fail(errno);
  }

  void discard() {
    if (descriptor_ >= 0) close(descriptor_);
    descriptor_ = -1;
    if (is_hidden_) unlink(hidden_.c_str());
  }

  std::string path_;
  std::string hidden_;
  bool is_hidden_ = false;  // Whether it has that name.
  int descriptor_ = -1;
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
  Unfinished file(path);
  file.write(bytes);
  file.publish(true);
}

void write_unsynced(const std::filesystem::path& path, const Bytes& head, const Bytes& rest) {
  Unfinished file(path);
  file.write(head);
  file.write(rest);
  file.publish(false);
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
