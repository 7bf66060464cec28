// MXNet's C predict API. It is made for float32: SetInput and GetOutput take floats, but copy the elements of whatever
// type the array has. So the types are told when the predictor is made, and buffers are of the true type.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine.hpp"
#include "vqvae/error.hpp"

namespace vqvae {
namespace {

using mxnet::api;
using mxnet::check;

class Predict final : public Runner {
 public:
  Predict(std::string json, SymbolHandle symbol, const Bound& bound, bool fuse)
      : json_(std::move(json)),
        bound_(bound),
        fuse_(fuse),
        auxiliaries_(mxnet::names(api().MXSymbolListAuxiliaryStates, symbol, bound.file)) {
    check(api().MXSymbolGetNumOutputs(symbol, &outputs_), bound_.file);
    if (bound_.params.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
      throw InputError(bound_.file, "has more than 2 GiB of parameters, which the predict API does not take");
    }
  }

  void run(const Feed& feed, const Sink& sink) override {
    if (Signature wanted = signature(feed); !predictor_ || wanted != signature_) {
      create(feed);
      signature_ = std::move(wanted);
    }
    std::vector<Tensor> outputs = compute(feed);
    for (std::size_t i = 0; i < outputs.size(); ++i) sink(i, std::move(outputs[i]));
  }

 private:
  // All outputs: of those that are not copied nobody could tell when they are computed.
  std::vector<Tensor> compute(const Feed& feed) {
    const mxnet::InUse use;
    for (const auto& [name, tensor] : feed) {
      check(api().MXPredSetInput(predictor_.get(), name.c_str(), tensor->as<float>(),
                                 static_cast<std::uint32_t>(element_count(tensor->shape))),
            bound_.file);
    }
    check(api().MXPredForward(predictor_.get()), bound_.file);
    std::vector<Tensor> outputs;
    outputs.reserve(outputs_);
    for (std::uint32_t i = 0; i < outputs_; ++i) outputs.push_back(output(i));
    return outputs;
  }

  void create(const Feed& feed) {
    const mxnet::Binding binding(fuse_);
    predictor_.reset();
    mxnet::NamedShapes<std::uint32_t> shapes;
    std::vector<int> types;
    for (const auto& [name, tensor] : feed) {
      if (std::find(auxiliaries_.begin(), auxiliaries_.end(), name) != auxiliaries_.end()) {
        throw InputError(bound_.file, name + " is an auxiliary state, which the predict API cannot feed");
      }
      shapes.add(name, tensor->shape);
      types.push_back(static_cast<int>(tensor->dtype));
    }
    std::vector<const char*> typed = shapes.names;
    for (const auto& [name, parameter] : bound_.parameters) shapes.add(name, parameter.shape);
    mxnet::forget_range_errors();
    PredictorHandle handle = nullptr;
    check(api().MXPredCreateEx(json_.c_str(), bound_.params.data(), static_cast<int>(bound_.params.size()), mxnet::kCpu,
                               0, shapes.size(), shapes.names.data(), shapes.begins.data(), shapes.extents.data(),
                               static_cast<std::uint32_t>(typed.size()), typed.data(), types.data(), &handle),
          bound_.file);
    predictor_.reset(handle);
  }

  Tensor output(std::uint32_t index) {
    std::uint32_t* extents = nullptr;
    std::uint32_t dimensions = 0;
    check(api().MXPredGetOutputShape(predictor_.get(), index, &extents, &dimensions), bound_.file);
    // MXNet 1.9.1 writes the type of output k to element k of what it is given.
    std::vector<int> types(std::size_t{index} + 1);
    check(api().MXPredGetOutputType(predictor_.get(), index, types.data()), bound_.file);
    if (!is_dtype(types.back())) throw RuntimeFailure(bound_.file, "gave an array of unknown type");
    Tensor tensor(static_cast<DType>(types.back()), Shape(extents, extents + dimensions));
    check(api().MXPredGetOutput(predictor_.get(), index, tensor.as<float>(),
                                static_cast<std::uint32_t>(element_count(tensor.shape))),
          bound_.file);
    return tensor;
  }

  std::string json_;
  const Bound& bound_;
  bool fuse_;
  std::vector<std::string> auxiliaries_;
  std::uint32_t outputs_ = 0;
  mxnet::Predictor predictor_;
  Signature signature_;  // Of what the predictor was made for.
};

}  // namespace

std::unique_ptr<Runner> make_predict(std::string json, SymbolHandle symbol, const Bound& bound, bool fuse) {
  return std::make_unique<Predict>(std::move(json), symbol, bound, fuse);
}

}  // namespace vqvae
