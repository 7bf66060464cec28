// The symbol executor, as users of the Symbol API bind it: with MXNet's defaults, which fuse operators, or without
// that.
#include <map>
#include <string>
#include <vector>

#include "engine.hpp"

namespace vqvae {
namespace {

using mxnet::api;
using mxnet::check;

class Executor final : public Runner {
 public:
  Executor(SymbolHandle symbol, const Bound& bound, bool fuse) : symbol_(symbol), bound_(bound), fuse_(fuse) {}

  void run(const Feed& feed, const Sink& sink) override {
    if (Signature wanted = signature(feed); !executor_ || wanted != signature_) {
      bind(feed);
      signature_ = std::move(wanted);
    }
    mxnet::hand_over(compute(feed), bound_.file, sink);
  }

 private:
  std::vector<mxnet::Array> compute(const Feed& feed) {
    const mxnet::InUse use;
    for (const auto& [name, tensor] : feed) {
      check(api().MXNDArraySyncCopyFromCPU(arrays_.at(name).get(), tensor->data.data(), element_count(tensor->shape)),
            bound_.file);
    }
    constexpr int kInference = 0;
    check(api().MXExecutorForward(executor_.get(), kInference), bound_.file);
    std::uint32_t count = 0;
    NDArrayHandle* outputs = nullptr;
    check(api().MXExecutorOutputs(executor_.get(), &count, &outputs), bound_.file);
    return mxnet::take(outputs, count, bound_.file);
  }

  void bind(const Feed& feed) {
    const mxnet::Binding binding(fuse_);
    executor_.reset();
    arrays_.clear();
    mxnet::NamedShapes<int> shapes;
    std::vector<int> types;
    for (const auto& [name, tensor] : feed) {
      shapes.add(name, tensor->shape);
      types.push_back(static_cast<int>(tensor->dtype));
    }
    for (const auto& [name, parameter] : bound_.parameters) {
      shapes.add(name, parameter.shape);
      types.push_back(static_cast<int>(parameter.dtype));
    }
    const std::vector<std::string> arguments = mxnet::names(api().MXSymbolListArguments, symbol_, bound_.file);
    const std::vector<std::string> auxiliaries = mxnet::names(api().MXSymbolListAuxiliaryStates, symbol_, bound_.file);

    const char* no_gradients = "null";
    int no_shared_buffer = -1;
    const char** shared_names = nullptr;
    NDArrayHandle* shared_arrays = nullptr;
    std::uint32_t argument_count = 0;
    NDArrayHandle* argument_arrays = nullptr;
    NDArrayHandle* gradient_arrays = nullptr;
    std::uint32_t auxiliary_count = 0;
    NDArrayHandle* auxiliary_arrays = nullptr;
    ExecutorHandle handle = nullptr;
    check(api().MXExecutorSimpleBindEx(symbol_, mxnet::kCpu, 0, 0, nullptr, nullptr, nullptr, 0, nullptr, &no_gradients,
                                       shapes.size(), shapes.names.data(), shapes.extents.data(), shapes.begins.data(),
                                       shapes.size(), shapes.names.data(), types.data(), 0, nullptr, nullptr, 0,
                                       nullptr, &no_shared_buffer, nullptr, nullptr, &shared_names, &shared_arrays,
                                       &argument_count, &argument_arrays, &gradient_arrays, &auxiliary_count,
                                       &auxiliary_arrays, nullptr, &handle),
          bound_.file);
    mxnet::Executor executor(handle);
    for (std::uint32_t i = 0; i < argument_count; ++i) arrays_[arguments.at(i)].reset(argument_arrays[i]);
    for (std::uint32_t i = 0; i < auxiliary_count; ++i) arrays_[auxiliaries.at(i)].reset(auxiliary_arrays[i]);
    for (const auto& [name, parameter] : bound_.parameters) {
      constexpr int kValues = -1;
      const auto array = arrays_.find(name);
      if (array == arrays_.end()) continue;  // With every node as an output, the symbol may take less.
      check(api().MXNDArraySyncCopyFromNDArray(array->second.get(), parameter.array.get(), kValues), bound_.file);
    }
    executor_ = std::move(executor);
  }

  SymbolHandle symbol_;
  const Bound& bound_;
  bool fuse_;
  mxnet::Executor executor_;
  Signature signature_;                         // Of what is bound.
  std::map<std::string, mxnet::Array> arrays_;  // What is bound, by name: inputs, parameters, auxiliary states.
};

}  // namespace

std::unique_ptr<Runner> make_executor(SymbolHandle symbol, const Bound& bound, bool fuse) {
  return std::make_unique<Executor>(symbol, bound, fuse);
}

}  // namespace vqvae
