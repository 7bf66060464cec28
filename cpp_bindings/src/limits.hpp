// The bounds of limits.hpp, where they hold.
#ifndef VQVAE_SRC_LIMITS_HPP_
#define VQVAE_SRC_LIMITS_HPP_

#include <sys/resource.h>

#include <cstddef>
#include <optional>
#include <string>

namespace vqvae {

// A number of bytes, for people.
std::string mebibytes(std::size_t bytes);

// The bytes that the tensors of a run may take; none where runs are not bounded.
std::optional<std::size_t> run_limit();

// While it lives, the process's data may grow by what a run may take, and some for what MXNet needs itself.
class BoundedMemory {
 public:
  BoundedMemory();
  BoundedMemory(const BoundedMemory&) = delete;
  BoundedMemory& operator=(const BoundedMemory&) = delete;
  ~BoundedMemory();

  // Whether it is this bound that memory ends at, not one that the process was started with.
  bool holds() const { return holds_; }

 private:
  rlimit before_{};
  bool holds_ = false;
};

// While it lives, the process may take some seconds of processor time, and more for a large graph, if runs are bounded.
// Does not nest.
class BoundedTime {
 public:
  explicit BoundedTime(std::size_t nodes);
  BoundedTime(const BoundedTime&) = delete;
  BoundedTime& operator=(const BoundedTime&) = delete;
  ~BoundedTime();

 private:
  bool holds_ = false;
};

}  // namespace vqvae

#endif  // VQVAE_SRC_LIMITS_HPP_
