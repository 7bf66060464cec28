// One exported network, ready to run on one of MXNet's engines.
#ifndef VQVAE_NETWORK_HPP_
#define VQVAE_NETWORK_HPP_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vqvae/bundle.hpp"
#include "vqvae/fusion.hpp"
#include "vqvae/tensor.hpp"

namespace vqvae {

// What runs the graph. The first three have MXNet's defaults, among them that the executor and predict fuse operators.
enum class Engine {
  kCachedOp,  // The engine behind hybridized Gluon blocks.
  kExecutor,  // The executor that symbols are bound to.
  kPredict,   // The C predict API.
  kFused,     // CachedOp, with convolutions and what is around them computed by this project's operators.
};

// Why Engine::kFused computes as Engine::kCachedOp does on this machine; empty if it does not. Throws RuntimeFailure if
// the library of operators is not there.
std::string why_not_fused();

using Inputs = std::map<std::string, Tensor>;

// A node's output in a run.
struct Tap {
  std::string name;  // Of the node; "<node>:<k>" is output k of a node with several.
  std::string op;    // MXNet's name of the operator.
  Tensor value;
};

// Of one tensor: MXNet counts them in 31 bits.
constexpr std::size_t kMaxElements = 0x7fffffff;

// What a run would be like.
struct Estimate {
  std::vector<Shape> outputs;  // Of the graph; empty where it depends on more than the shapes of the inputs.
  std::size_t bytes = 0;       // Of all nodes' outputs: no run of the graph without taps needs more for its tensors.
  std::size_t largest = 0;     // Elements of the largest tensor; above kMaxElements it cannot be run.
};

// Takes the outputs of a run, one after the other.
using Sink = std::function<void(Tap)>;

// Move-only. One thread at a time may use a network; several threads may have one each (threads.hpp).
class Network {
 public:
  // Has MXNet prove every node by itself, and binds every argument and auxiliary state of the graph exactly once.
  // Throws InputError if one is missing, stored with the wrong prefix, or unknown to the graph; `inputs` are the names
  // that a caller will feed.
  Network(Export network, const std::vector<std::string>& inputs, Engine engine = Engine::kCachedOp,
          Fusion fusion = Fusion::kSafe);
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  Network(Network&&) noexcept;
  Network& operator=(Network&&) noexcept;
  ~Network();

  // Whether the graph's outputs depend on a variable of this name.
  bool takes(const std::string& name) const;

  // Of a run with inputs of these shapes. Throws InputError as a run does.
  Estimate estimate(const std::map<std::string, Shape>& inputs) const;

  // Hands over the graph's outputs. What the graph does not take is not fed. Throws InputError if an input is missing,
  // or a parameter does not have the shape that the inputs ask for.
  void run(const Inputs& inputs, const Sink& sink);

  // The same, all at once.
  std::vector<Tensor> run(const Inputs& inputs);

  // Hands over every node's output, in graph order. An engine that fuses runs another graph then than without taps:
  // with Fusion::kMXNet it gets it wrong where it fuses nodes whose outputs are all asked for, else it fuses nothing.
  void taps(const Inputs& inputs, const Sink& sink);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqvae

#endif  // VQVAE_NETWORK_HPP_
