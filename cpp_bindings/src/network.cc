#include "vqvae/network.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "mxnet.hpp"
#include "vqvae/error.hpp"

namespace vqvae {
namespace {

using mxnet::api;
using mxnet::check;

// Node and output of a name in a symbol's list of outputs: "<node>_output", or "<node>_output<k>" where there are
// several; other names stand for themselves.
std::pair<std::string, std::string> split_output(const std::string& name) {
  const std::size_t at = name.rfind("_output");
  if (at == std::string::npos) return {name, ""};
  return {name.substr(0, at), name.substr(at + 7)};
}

}  // namespace

class Network::Impl {
 public:
  Impl(const Export& network, const std::vector<std::string>& inputs)
      : file_(network.graph.name), params_file_(network.params_name), operators_(network.graph.operators) {
    SymbolHandle handle = nullptr;
    if (api().MXSymbolCreateFromJSON(network.graph.json.c_str(), &handle) != 0) {
      throw InputError(file_, "is refused by MXNet (" + mxnet::last_error() + "); export the network again");
    }
    symbol_.reset(handle);
    arguments_ = mxnet::names(api().MXSymbolListArguments, handle, file_);
    auxiliaries_ = mxnet::names(api().MXSymbolListAuxiliaryStates, handle, file_);
    bind("arg:", arguments_, network.parameters, inputs);
    bind("aux:", auxiliaries_, network.parameters, inputs);
    for (const auto& [name, tensor] : network.parameters) {
      if (taken_.count(name) == 0) {
        throw misfit("parameter unknown", name, "the file holds it, the graph does not take it");
      }
    }
    plain_ = compile(handle);
  }

  std::vector<Tensor> run(const Inputs& inputs) {
    check_shapes(inputs);
    return invoke(plain_, inputs);
  }

  std::vector<Tap> taps(const Inputs& inputs) {
    check_shapes(inputs);
    if (!tapped_.op) tap();
    std::vector<Tensor> values = invoke(tapped_, inputs);
    std::vector<Tap> result;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto [node, number] = split_output(tap_names_[i]);
      const auto op = operators_.find(node);
      result.push_back({number.empty() ? node : node + (":" + number), op == operators_.end() ? "" : op->second,
                        std::move(values[i])});
    }
    return result;
  }

 private:
  struct Compiled {
    mxnet::CachedOp op;
    std::vector<std::string> inputs;  // In the order in which the operator takes them.
  };

  InputError misfit(const std::string& cause, const std::string& parameter, const std::string& why) const {
    return {params_file_, cause + ": " + parameter + ": " + why + "; export the network again"};
  }

  // Copy the parameters that the graph wants under this prefix into MXNet.
  void bind(const std::string& prefix, const std::vector<std::string>& wanted, const Parameters& parameters,
            const std::vector<std::string>& inputs) {
    for (const std::string& name : wanted) {
      if (std::find(inputs.begin(), inputs.end(), name) != inputs.end()) continue;
      const auto found = parameters.find(prefix + name);
      if (found == parameters.end()) {
        const bool elsewhere = parameters.count((prefix == "arg:" ? "aux:" : "arg:") + name) > 0;
        throw misfit(elsewhere ? "wrong prefix" : "parameter missing", name,
                     elsewhere ? "the graph takes it as " + prefix : "the graph takes it, the file does not hold it");
      }
      taken_.insert(found->first);
      bound_.emplace(name, mxnet::to_array(found->second));
      shapes_.emplace(name, found->second.shape);
    }
  }

  Compiled compile(SymbolHandle symbol) {
    std::uint32_t size = 0;
    const char** strings = nullptr;
    constexpr int kAll = 0;
    check(api().NNSymbolListInputNames(symbol, kAll, &size, &strings), file_);
    Compiled compiled;
    compiled.inputs.assign(strings, strings + size);
    std::string data = "[";
    std::string params = "[";
    for (std::size_t i = 0; i < compiled.inputs.size(); ++i) {
      std::string& list = bound_.count(compiled.inputs[i]) > 0 ? params : data;
      list += (list.size() > 1 ? ", " : "") + std::to_string(i);
    }
    data += ']';
    params += ']';
    const char* keys[] = {"data_indices", "param_indices", "static_alloc", "static_shape"};
    const char* values[] = {data.c_str(), params.c_str(), "True", "True"};
    CachedOpHandle handle = nullptr;
    check(api().MXCreateCachedOpEx(symbol, 4, keys, values, &handle), file_);
    compiled.op.reset(handle);
    return compiled;
  }

  // Compile the graph whose outputs are all nodes' outputs.
  void tap() {
    SymbolHandle handle = nullptr;
    check(api().MXSymbolGetInternals(symbol_.get(), &handle), file_);
    const mxnet::Symbol internals(handle);
    const std::vector<std::string> outputs = mxnet::names(api().MXSymbolListOutputs, internals.get(), file_);
    std::vector<mxnet::Symbol> nodes;
    std::vector<SymbolHandle> handles;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const auto found = operators_.find(outputs[i]);
      if (found != operators_.end() && found->second == "null") continue;
      check(api().MXSymbolGetOutput(internals.get(), static_cast<std::uint32_t>(i), &handle), file_);
      nodes.emplace_back(handle);
      handles.push_back(handle);
      tap_names_.push_back(outputs[i]);
    }
    check(api().MXSymbolCreateGroup(static_cast<std::uint32_t>(handles.size()), handles.data(), &handle), file_);
    const mxnet::Symbol group(handle);
    tapped_ = compile(group.get());
  }

  // MXNet would broadcast or crash on a parameter of another shape; ask it first what the inputs make of each.
  void check_shapes(const Inputs& inputs) {
    std::vector<const char*> keys;
    std::vector<std::uint32_t> ends = {0};
    std::vector<int> extents;
    for (const auto& [name, tensor] : inputs) {
      keys.push_back(name.c_str());
      extents.insert(extents.end(), tensor.shape.begin(), tensor.shape.end());
      ends.push_back(static_cast<std::uint32_t>(extents.size()));
    }
    if (extents == checked_extents_) return;
    struct Listing {
      std::uint32_t size = 0;
      const int* dimensions = nullptr;
      const int** shapes = nullptr;
    } arguments, outputs, auxiliaries;
    int complete = 0;
    if (api().MXSymbolInferShapePartialEx(
            symbol_.get(), static_cast<std::uint32_t>(keys.size()), keys.data(), ends.data(), extents.data(),
            &arguments.size, &arguments.dimensions, &arguments.shapes, &outputs.size, &outputs.dimensions,
            &outputs.shapes, &auxiliaries.size, &auxiliaries.dimensions, &auxiliaries.shapes, &complete) != 0) {
      throw InputError(file_, "shapes do not fit: " + mxnet::last_error());
    }
    const auto compare = [this](const Listing& listing, const std::vector<std::string>& names) {
      for (std::size_t i = 0; i < names.size(); ++i) {
        const auto bound = shapes_.find(names[i]);
        if (bound == shapes_.end() || listing.dimensions[i] < 1) continue;
        const Shape wanted(listing.shapes[i], listing.shapes[i] + listing.dimensions[i]);
        const bool known = std::find_if(wanted.begin(), wanted.end(), [](auto e) { return e < 1; }) == wanted.end();
        if (known && bound->second != wanted) {
          throw misfit("wrong shape", names[i],
                       "is " + to_string(bound->second) + ", the graph takes " + to_string(wanted));
        }
      }
    };
    compare(arguments, arguments_);
    compare(auxiliaries, auxiliaries_);
    checked_extents_ = std::move(extents);
  }

  std::vector<Tensor> invoke(const Compiled& compiled, const Inputs& inputs) {
    std::vector<mxnet::Array> fed;
    std::vector<NDArrayHandle> handles;
    for (const std::string& name : compiled.inputs) {
      const auto bound = bound_.find(name);
      if (bound != bound_.end()) {
        handles.push_back(bound->second.get());
        continue;
      }
      const auto input = inputs.find(name);
      if (input == inputs.end()) throw InputError(file_, "the input " + name + " is not fed, and is no parameter");
      fed.push_back(mxnet::to_array(input->second));
      handles.push_back(fed.back().get());
    }
    int count = 0;
    NDArrayHandle* outputs = nullptr;
    const int* storage_types = nullptr;
    check(api().MXInvokeCachedOpEx(compiled.op.get(), static_cast<int>(handles.size()), handles.data(), &count,
                                   &outputs, &storage_types),
          file_);
    std::vector<mxnet::Array> owned(outputs, outputs + count);
    std::vector<Tensor> tensors;
    tensors.reserve(owned.size());
    for (const mxnet::Array& array : owned) tensors.push_back(mxnet::to_tensor(array.get(), file_));
    return tensors;
  }

  std::string file_;
  std::string params_file_;
  std::map<std::string, std::string> operators_;
  mxnet::Symbol symbol_;
  std::set<std::string> taken_;                // Full names of the parameters that are bound.
  std::map<std::string, mxnet::Array> bound_;  // By the graph's names.
  std::map<std::string, Shape> shapes_;
  std::vector<std::string> arguments_;
  std::vector<std::string> auxiliaries_;
  std::vector<std::string> tap_names_;
  std::vector<int> checked_extents_;
  Compiled plain_;
  Compiled tapped_;
};

Network::Network(const Export& network, const std::vector<std::string>& inputs)
    : impl_(std::make_unique<Impl>(network, inputs)) {}
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;
Network::~Network() = default;

std::vector<Tensor> Network::run(const Inputs& inputs) { return impl_->run(inputs); }
std::vector<Tap> Network::taps(const Inputs& inputs) { return impl_->taps(inputs); }

}  // namespace vqvae
