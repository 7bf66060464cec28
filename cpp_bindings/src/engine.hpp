// The engines: each runs one graph whose parameters are proved.
#ifndef VQVAE_SRC_ENGINE_HPP_
#define VQVAE_SRC_ENGINE_HPP_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "mxnet.hpp"
#include "vqvae/tensor.hpp"

namespace vqvae {

struct Parameter {
  DType dtype = DType::kFloat32;
  Shape shape;
  mxnet::Array array;  // Null for predict, which reads the file itself.
};

// What the graphs of one network share.
struct Bound {
  std::string file;                             // Of the graph, for messages.
  std::map<std::string, Parameter> parameters;  // Arguments and auxiliary states, by the graph's names.
  Bytes params;                                 // A parameter file of them; for predict alone.
};

// What is fed, by name. All that the graph takes and that is no parameter is in it, and nothing else.
using Feed = std::map<std::string, const Tensor*>;

// The types and shapes that are fed. An engine that binds to them binds again when they change.
using Signature = std::map<std::string, std::pair<DType, Shape>>;
inline Signature signature(const Feed& feed) {
  Signature result;
  for (const auto& [name, tensor] : feed) result.emplace(name, std::make_pair(tensor->dtype, tensor->shape));
  return result;
}

class Runner {
 public:
  // Takes the number of an output and its value.
  using Sink = std::function<void(std::size_t, Tensor)>;

  Runner() = default;
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  virtual ~Runner() = default;

  // Run the graph and hand over its outputs in order. MXNet is not in use when the sink is called. Throws
  // RuntimeFailure if MXNet fails, InputError if the engine cannot do what is asked.
  virtual void run(const Feed& feed, const Sink& sink) = 0;
};

// The symbol and the parameters stay the caller's and must outlive the runner. Without `fuse` nothing is fused, unless
// the user has chosen what is.
std::unique_ptr<Runner> make_cachedop(SymbolHandle symbol, const Bound& bound);
std::unique_ptr<Runner> make_fused(SymbolHandle symbol, const Bound& bound);
std::unique_ptr<Runner> make_executor(SymbolHandle symbol, const Bound& bound, bool fuse);
// `json` is the graph; the symbol is the same, for questions.
std::unique_ptr<Runner> make_predict(std::string json, SymbolHandle symbol, const Bound& bound, bool fuse);

}  // namespace vqvae

#endif  // VQVAE_SRC_ENGINE_HPP_
