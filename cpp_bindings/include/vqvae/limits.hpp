// What a network may take, for programs that run the files of strangers.
#ifndef VQVAE_LIMITS_HPP_
#define VQVAE_LIMITS_HPP_

#include <cstddef>

namespace vqvae {

// Bound every run of a network in this process from now on: its tensors may take so many bytes. A graph that asks for
// more is refused, InputError, before it is run; what its operators take beside them is bounded by the system's limit
// of the process's data (RLIMIT_DATA), which is lowered for the time of the run. While MXNet looks at a graph, the
// process may take some seconds of processor time, after which SIGPROF ends it. So this is for a process that another
// one watches.
void bound_runs(std::size_t bytes);

}  // namespace vqvae

#endif  // VQVAE_LIMITS_HPP_
