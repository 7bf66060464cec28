#include "limits.hpp"

#include <sys/time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

#include "vqvae/limits.hpp"

namespace vqvae {
namespace {

constexpr std::size_t kSpare = std::size_t{320} << 20;  // For what MXNet needs itself.
constexpr std::size_t kSeconds = 20;
constexpr std::size_t kNodesASecond = 1000;

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
std::atomic<std::size_t> bound{kNone};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

// The bytes that RLIMIT_DATA counts.
std::optional<std::size_t> data_size() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;) {
    std::size_t kilobytes = 0;
    if (word == "VmData:" && file >> kilobytes) return kilobytes << 10U;
  }
  return std::nullopt;
}

}  // namespace

void bound_runs(std::size_t bytes) { bound = bytes; }

std::string mebibytes(std::size_t bytes) {
  constexpr std::size_t kTenths = 10;
  const std::size_t tenths = (bytes / 1024 * kTenths + 1023) / 1024;
  return std::to_string(tenths / kTenths) + (tenths % kTenths > 0 ? "." + std::to_string(tenths % kTenths) : "") +
         " MiB";
}

std::optional<std::size_t> run_limit() {
  const std::size_t bytes = bound;
  return bytes == kNone ? std::nullopt : std::optional(bytes);
}

BoundedMemory::BoundedMemory() {
  const std::optional<std::size_t> bytes = run_limit();
  const std::optional<std::size_t> now = bytes ? data_size() : std::nullopt;
  if (!now || getrlimit(RLIMIT_DATA, &before_) != 0) return;
  const rlim_t wanted = *now + *bytes + kSpare;
  const bool is_lower = before_.rlim_cur == RLIM_INFINITY || wanted < before_.rlim_cur;
  const rlimit lowered = {wanted, before_.rlim_max};
  holds_ = is_lower && setrlimit(RLIMIT_DATA, &lowered) == 0;
}

BoundedMemory::~BoundedMemory() {
  if (holds_) setrlimit(RLIMIT_DATA, &before_);
}

BoundedTime::BoundedTime(std::size_t nodes) : holds_(bound != kNone) {
  const itimerval timer = {{}, {static_cast<time_t>(kSeconds + nodes / kNodesASecond), 0}};
  if (holds_) setitimer(ITIMER_PROF, &timer, nullptr);
}

BoundedTime::~BoundedTime() {
  const itimerval off = {};
  if (holds_) setitimer(ITIMER_PROF, &off, nullptr);
}

}  // namespace vqvae
