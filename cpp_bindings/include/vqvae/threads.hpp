// Threads: what may be shared, and how many MXNet computes with.
//
// - One thread at a time may use a Predictor, a Network or a TraceWriter; it need not be the one that made it. Others
//   may be made, used, moved and freed in other threads at once, whatever their engines. A result does not depend on
//   what other threads do.
// - Bundles, tensors and the other values are like those of the standard library: many may read one, or one writes it.
//   All other functions may be called from any thread.
// - Progress and sinks are called in the thread that asked for the work, while no lock is held: they may use other
//   predictors, but not the one that calls them.
// - MXNet runs the operators of all predictors one after the other, each with all of its threads. Several predictors
//   are for independent callers; they are not faster than one with larger batches.
// - The environment is of the whole process. This library changes it when it loads MXNet (OMP_NUM_THREADS and
//   MXNET_SUBGRAPH_VERBOSE, unless they are set) and, with the engines kExecutor and kPredict, for a moment when a
//   graph is bound that must not be fused (MXNET_SUBGRAPH_BACKEND, unless it is set); nobody of its own reads it then.
//   A host whose other threads call getenv or setenv meanwhile sets these three itself before it starts them.
// - A predictor that outlives main is left to the system. A child of fork does not use its parent's.
#ifndef VQVAE_THREADS_HPP_
#define VQVAE_THREADS_HPP_

namespace vqvae {

// MXNet's threads, for the whole process; without it OMP_NUM_THREADS, or else all processors. To be called before the
// first predictor, which loads MXNet. Throws UsageError if the number is not positive, or MXNet is loaded with another.
void use_threads(int count);

}  // namespace vqvae

#endif  // VQVAE_THREADS_HPP_
