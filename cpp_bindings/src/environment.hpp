// What the process is given, checked before MXNet is loaded: the variables that it and its OpenMP read, and memory. Of
// what they cannot read, MXNet ends the process or takes another value; where its threads find no memory, it crashes.
#ifndef VQVAE_SRC_ENVIRONMENT_HPP_
#define VQVAE_SRC_ENVIRONMENT_HPP_

namespace vqvae {

constexpr const char* kThreadsVariable = "OMP_NUM_THREADS";

// A variable that is empty is unset, and of the threads of several levels, which is more than MXNet can read, the first
// number stays. To be called while nothing else uses the environment. Throws UsageError.
void check_environment();

// Under a limit of addresses (ulimit -v): whether what MXNet takes at its start is to be had. Throws RuntimeFailure.
void require_room();

}  // namespace vqvae

#endif  // VQVAE_SRC_ENVIRONMENT_HPP_
