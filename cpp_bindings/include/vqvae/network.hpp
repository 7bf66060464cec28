// One exported network, ready to run: MXNet's CachedOp, the engine behind hybridized Gluon blocks.
#ifndef VQVAE_NETWORK_HPP_
#define VQVAE_NETWORK_HPP_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vqvae/bundle.hpp"
#include "vqvae/tensor.hpp"

namespace vqvae {

using Inputs = std::map<std::string, Tensor>;

// A node's output in a run.
struct Tap {
  std::string name;  // Of the node; output k of a node with several is "<node>:<k>".
  std::string op;    // MXNet's name of the operator.
  Tensor value;
};

// Move-only. One thread at a time may use a network.
class Network {
 public:
  // Binds every argument and auxiliary state of the graph exactly once. Throws InputError if one is missing, stored
  // with the wrong prefix, or unknown to the graph; `inputs` are the names that a caller will feed.
  Network(const Export& network, const std::vector<std::string>& inputs);
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  Network(Network&&) noexcept;
  Network& operator=(Network&&) noexcept;
  ~Network();

  // The graph's outputs. Throws InputError if a parameter does not have the shape that the inputs ask for.
  std::vector<Tensor> run(const Inputs& inputs);

  // Every node's output, in graph order.
  std::vector<Tap> taps(const Inputs& inputs);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqvae

#endif  // VQVAE_NETWORK_HPP_
