// Errors, and the exit codes that a tool ends with when it meets one. The Python side uses the same codes.
#ifndef VQVAE_ERROR_HPP_
#define VQVAE_ERROR_HPP_

#include <cstddef>
#include <stdexcept>
#include <string>

namespace vqvae {

enum class ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kRejected = 3 };

// A message in which is shown, as an escape, what would end its line, move a terminal's cursor or turn the order of
// what is seen: names may hold anything.
std::string one_line(const std::string& message);

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
