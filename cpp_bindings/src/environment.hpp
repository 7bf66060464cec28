// The variables that MXNet and its OpenMP read, checked before they do: of what they cannot read, MXNet ends the process
// or takes another value.
#ifndef VQVAE_SRC_ENVIRONMENT_HPP_
#define VQVAE_SRC_ENVIRONMENT_HPP_

namespace vqvae {

constexpr const char* kThreadsVariable = "OMP_NUM_THREADS";

// A variable that is empty is unset, and of the threads of several levels, which is more than MXNet can read, the first
// number stays. To be called while nothing else uses the environment. Throws UsageError.
void check_environment();

}  // namespace vqvae

#endif  // VQVAE_SRC_ENVIRONMENT_HPP_
