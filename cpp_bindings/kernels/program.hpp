// A graph of convolutions as a program: steps that compute blocks of pixels, a few images at a time.
#ifndef VQVAE_KERNELS_PROGRAM_HPP_
#define VQVAE_KERNELS_PROGRAM_HPP_

#include <cstdint>
#include <memory>
#include <vector>

#include "graph.hpp"

namespace vqvae::kernels {

using Shape = std::vector<std::int64_t>;

// What is fed, or where a result goes.
struct Data {
  void* values = nullptr;
  Shape shape;
  mxnet::ext::MXDType dtype = mxnet::ext::kFloat32;
};

class Program {
 public:
  // Made for these shapes and parameters; `inputs` are the graph's variables, in their order. Throws
  // std::invalid_argument, saying which node cannot be computed and why.
  Program(const Graph& graph, const std::vector<Data>& inputs, int threads);
  ~Program();

  // Whether it must be made anew for other numbers.
  bool is_for_one_run() const;

  // Of `inputs` only those are read that are no parameters. Both lists are those of the graph.
  void run(const std::vector<Data>& inputs, const std::vector<Data>& outputs);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_PROGRAM_HPP_
