#include "isolation.hpp"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "vqvae/error.hpp"

namespace {

// What libmxnet's own handler of crashes ends with.
constexpr int kMXNetCrashed = 255;

// Whether the process may not have enough of this.
bool is_short(decltype(RLIMIT_AS) kind) {
  constexpr rlim_t kRoomy = rlim_t{8} << 30U;
  rlimit limit{};
  return getrlimit(kind, &limit) == 0 && limit.rlim_cur < kRoomy;
}

bool is_crash(int signal) {
  constexpr std::array<int, 5> kCrashes = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGILL};
  return std::find(kCrashes.begin(), kCrashes.end(), signal) != kCrashes.end();
}

}  // namespace

int isolated(const std::string& what, const std::function<int()>& work) {
  static_cast<void>(std::signal(SIGCHLD, SIG_DFL));  // Where it is ignored, nobody can be waited for.
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) throw vqvae::RuntimeFailure("fork", std::strerror(errno));
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) std::_Exit(1);  // It ended before that.
    const rlimit none{};
    setrlimit(RLIMIT_CORE, &none);  // A crash is reported in one line; no core file is needed.
    std::_Exit(work());
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw vqvae::RuntimeFailure("waitpid", std::strerror(errno));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) != kMXNetCrashed) return WEXITSTATUS(status);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF) {
    std::cerr << "reconstruct: error: " << what << ": MXNet takes too long to look at its graphs; they are not run\n";
    return static_cast<int>(vqvae::ExitCode::kRejected);
  }
  if (WIFSIGNALED(status) && !is_crash(WTERMSIG(status))) {
    // As if it had met this process.
    static_cast<void>(std::signal(WTERMSIG(status), SIG_DFL));
    static_cast<void>(raise(WTERMSIG(status)));
  }
  if (is_short(RLIMIT_AS) || is_short(RLIMIT_DATA)) {
    std::cerr << "reconstruct: error: " << what
              << ": MXNet crashed, perhaps for want of memory; raise the limit that 'ulimit -v' sets\n";
    return static_cast<int>(vqvae::ExitCode::kFailed);
  }
  std::cerr << "reconstruct: error: " << what
            << ": makes MXNet crash; compare the digests of its files with those of the originals; if they are equal, "
               "MXNet cannot run this network\n";
  return static_cast<int>(vqvae::ExitCode::kRejected);
}
