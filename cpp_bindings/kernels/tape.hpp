// A graph of convolutions in training: it goes forward, keeps what the way back needs, and goes back to the gradients
// of its inputs and its parameters.
#ifndef VQVAE_KERNELS_TAPE_HPP_
#define VQVAE_KERNELS_TAPE_HPP_

#include <memory>
#include <vector>

#include "graph.hpp"
#include "program.hpp"

namespace vqvae::kernels {

class Tape {
 public:
  // Made for these shapes; `inputs` are the graph's variables, in their order. Throws std::invalid_argument, saying
  // which node cannot be computed and why.
  Tape(const Graph& graph, const std::vector<Data>& inputs, int threads);
  ~Tape();

  void forward(const std::vector<Data>& inputs, const std::vector<Data>& outputs);
  // Of the last way forward. `heads` are the gradients of the graph's outputs; `gradients` are where those of its
  // variables go, null where none is wanted.
  void backward(const std::vector<Data>& heads, const std::vector<Data>& inputs, const std::vector<Data>& gradients);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_TAPE_HPP_
