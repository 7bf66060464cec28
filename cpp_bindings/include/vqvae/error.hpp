// Errors, and the exit codes that a tool ends with when it meets one. The Python side uses the same codes.
#ifndef VQVAE_ERROR_HPP_
#define VQVAE_ERROR_HPP_

#include <cstddef>
#include <stdexcept>
#include <string>

namespace vqvae {

enum class ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kRejected = 3 };

// A message without what would end its line or move a terminal's cursor: names of files may hold anything.
inline std::string one_line(std::string message) {
  for (std::size_t i = 0; i < message.size(); ++i) {
    const auto at = [&](std::size_t k) { return k < message.size() ? static_cast<unsigned char>(message[k]) : 0U; };
    std::size_t count = at(i) < 0x20 || at(i) == 0x7F ? 1 : 0;
    if (at(i) == 0xC2 && at(i + 1) >= 0x80 && at(i + 1) < 0xA0) count = 2;             // UTF-8's other controls,
    if (at(i) == 0xE2 && at(i + 1) == 0x80 && (at(i + 2) & 0xFEU) == 0xA8) count = 3;  // and its ends of lines.
    if (count > 0) message.replace(i, count, "?");
  }
  return message;
}

// An error to be told in one line: "<what>: <why>".
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& what, const std::string& why)
      : std::runtime_error(one_line(what + ": " + why)), code_(code), why_(one_line(why)) {}

  ExitCode code() const { return code_; }
  // The message without what it is about.
  const std::string& why() const { return why_; }

 private:
  ExitCode code_;
  std::string why_;
};

// A runtime or the system failed.
class RuntimeFailure : public Error {
 public:
  RuntimeFailure(const std::string& what, const std::string& why) : Error(ExitCode::kFailed, what, why) {}
};

// The caller's words do not fit together.
class UsageError : public Error {
 public:
  UsageError(const std::string& what, const std::string& why) : Error(ExitCode::kUsage, what, why) {}
};

// A bundle, image or other input was rejected.
class InputError : public Error {
 public:
  InputError(const std::string& what, const std::string& why) : Error(ExitCode::kRejected, what, why) {}
};

}  // namespace vqvae

#endif  // VQVAE_ERROR_HPP_
