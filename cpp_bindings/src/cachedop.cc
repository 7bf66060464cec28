// CachedOp, the engine behind hybridized Gluon blocks, of a graph as it is or with this project's operators in it.
#include <string>
#include <vector>

#include "engine.hpp"

namespace vqvae {
namespace {

using mxnet::api;
using mxnet::check;

class CachedOp final : public Runner {
 public:
  CachedOp(SymbolHandle symbol, const Bound& bound) : bound_(bound) {
    const mxnet::InUse use;
    std::uint32_t size = 0;
    const char** strings = nullptr;
    constexpr int kAll = 0;
    check(api().NNSymbolListInputNames(symbol, kAll, &size, &strings), bound_.file);
    inputs_.assign(strings, strings + size);
    std::string data = "[";
    std::string params = "[";
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      std::string& list = bound_.parameters.count(inputs_[i]) > 0 ? params : data;
      list += (list.size() > 1 ? ", " : "") + std::to_string(i);
    }
    data += ']';
    params += ']';
    const char* keys[] = {"data_indices", "param_indices", "static_alloc", "static_shape"};
    const char* values[] = {data.c_str(), params.c_str(), "True", "True"};
    CachedOpHandle handle = nullptr;
    check(api().MXCreateCachedOpEx(symbol, 4, keys, values, &handle), bound_.file);
    op_.reset(handle);
  }

  void run(const Feed& feed, const Sink& sink) override { mxnet::hand_over(compute(feed), bound_.file, sink); }

 private:
  std::vector<mxnet::Array> compute(const Feed& feed) {
    const mxnet::InUse use;
    std::vector<mxnet::Array> fed;
    std::vector<NDArrayHandle> handles;
    for (const std::string& name : inputs_) {
      const auto parameter = bound_.parameters.find(name);
      if (parameter != bound_.parameters.end()) {
        handles.push_back(parameter->second.array.get());
      } else {
        fed.push_back(mxnet::to_array(*feed.at(name)));
        handles.push_back(fed.back().get());
      }
    }
    int count = 0;
    NDArrayHandle* outputs = nullptr;
    const int* storage_types = nullptr;
    check(api().MXInvokeCachedOpEx(op_.get(), static_cast<int>(handles.size()), handles.data(), &count, &outputs,
                                   &storage_types),
          bound_.file);
    return mxnet::take(outputs, static_cast<std::size_t>(count), bound_.file);
  }

  const Bound& bound_;
  mxnet::CachedOp op_;
  std::vector<std::string> inputs_;  // In the order in which the operator takes them.
};

}  // namespace

std::unique_ptr<Runner> make_cachedop(SymbolHandle symbol, const Bound& bound) {
  return std::make_unique<CachedOp>(symbol, bound);
}

std::unique_ptr<Runner> make_fused(SymbolHandle symbol, const Bound& bound) {
  const mxnet::Symbol fused = mxnet::fuse(symbol, bound.file);  // CachedOp makes a graph of its own of it.
  return std::make_unique<CachedOp>(fused.get(), bound);
}

}  // namespace vqvae
