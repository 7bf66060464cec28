// The library of operators that MXNet loads: the operator that runs a part of a graph as one program, and what finds
// such parts (MXNet's lib_api.h: CustomPartitioner).
#include <mxnet/lib_api.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "adam.hpp"
#include "graph.hpp"
#include "processor.hpp"
#include "program.hpp"
#include "tape.hpp"

namespace {

using mxnet::ext::CustomStatefulOp;
using mxnet::ext::MXContext;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using vqvae::kernels::Data;
using vqvae::kernels::Graph;
using vqvae::kernels::Program;
using vqvae::kernels::Tape;
using Options = std::unordered_map<std::string, std::string>;

constexpr int kLeastVersion = 10900;

// Which instruction set the operators use: the best that processor and system have, or what the user names.
constexpr const char* kIsaVariable = "VQVAE_KERNELS_ISA";
constexpr const char* kAmx = "amx";
constexpr const char* kNone = "none";

const std::string& wanted_isa() {
  static const std::string wanted = [] {
    const char* given = std::getenv(kIsaVariable);
    return std::string(given == nullptr ? "" : given);
  }();
  return wanted;
}

// Why no part of a graph is computed by these operators; empty if parts are.
const std::string& why_not() {
  static const std::string why = [] {
    if (wanted_isa() == kNone) return std::string(kIsaVariable) + " is none";
    return std::string(vqvae::kernels::has_amx() ? "" : "this processor, or this system, has no AMX");
  }();
  return why;
}

std::unique_ptr<mxnet::ext::Graph> parse(const std::string& json) {
  return std::unique_ptr<mxnet::ext::Graph>(mxnet::ext::Graph::fromString(json));
}

std::vector<Data> data_of(const std::vector<MXTensor>& tensors) {
  std::vector<Data> result;
  result.reserve(tensors.size());
  for (const MXTensor& tensor : tensors) result.push_back({tensor.data_ptr, tensor.shape, tensor.dtype});
  return result;
}

class Fused : public CustomStatefulOp {
 public:
  explicit Fused(const std::string& json)
      : graph_(std::make_unique<Graph>(*parse(json))), constant_(vqvae::kernels::constants(*graph_)) {
    ignore_warn = true;
  }

  MXReturnValue Forward(std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs, const OpResource&) override {
    try {
      const std::vector<Data> data = data_of(*inputs);
      if (!program_ || program_->is_for_one_run() || is_training() || !is_for(*inputs)) {
        program_ = std::make_unique<Program>(*graph_, data, omp_get_max_threads());
        remember(*inputs);
      }
      program_->run(data, data_of(*outputs));
      return mxnet::ext::MX_SUCCESS;
    } catch (const std::exception& error) {
      MX_ERROR_MSG << "fused operators: " << error.what();
      return mxnet::ext::MX_FAIL;
    }
  }

 private:
  // Whether the parameters change from run to run, which MXNet does not tell of arrays that it makes itself.
  virtual bool is_training() const { return false; }

  struct Seen {
    const void* values;
    std::size_t version;
    vqvae::kernels::Shape shape;
  };

  // Whether the program is for these shapes, and for parameters that nobody has changed.
  bool is_for(const std::vector<MXTensor>& inputs) const {
    std::size_t number = 0;
    for (std::size_t i = 0; i < graph_->nodes.size(); ++i) {
      if (!graph_->nodes[i].is_variable()) continue;
      const Seen& seen = seen_[number];
      const MXTensor& input = inputs[number++];
      if (seen.shape != input.shape) return false;
      if (constant_[i] && (seen.values != input.data_ptr || seen.version != input.verID)) return false;
    }
    return true;
  }

  void remember(const std::vector<MXTensor>& inputs) {
    seen_.clear();
    for (const MXTensor& input : inputs) seen_.push_back({input.data_ptr, input.verID, input.shape});
  }

  std::unique_ptr<Graph> graph_;
  std::vector<bool> constant_;
  std::unique_ptr<Program> program_;
  std::vector<Seen> seen_;
};

// The same while its parameters are trained by others.
class Searching final : public Fused {
 public:
  using Fused::Fused;

 private:
  bool is_training() const override { return true; }
};

// A part whose parameters are trained.
class Trained final : public CustomStatefulOp {
 public:
  explicit Trained(const std::string& json) : graph_(std::make_unique<Graph>(*parse(json))) { ignore_warn = true; }

  MXReturnValue Forward(std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs, const OpResource&) override {
    try {
      if (!tape_ || !is_for(*inputs)) {
        tape_ = std::make_unique<Tape>(*graph_, data_of(*inputs), omp_get_max_threads());
        shapes_.clear();
        for (const MXTensor& input : *inputs) shapes_.push_back(input.shape);
      }
      tape_->forward(data_of(*inputs), data_of(*outputs));
      return mxnet::ext::MX_SUCCESS;
    } catch (const std::exception& error) {
      MX_ERROR_MSG << "fused operators in training: " << error.what();
      return mxnet::ext::MX_FAIL;
    }
  }

  // MXNet gives the gradients of the outputs, the inputs and the outputs.
  MXReturnValue Backward(std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs, const OpResource&) override {
    const std::vector<Data> data = data_of(*inputs);
    const auto heads = static_cast<std::ptrdiff_t>(graph_->outputs.size());
    tape_->backward({data.begin(), data.begin() + heads}, {data.begin() + heads, data.end() - heads},
                    data_of(*outputs));
    return mxnet::ext::MX_SUCCESS;
  }

 private:
  bool is_for(const std::vector<MXTensor>& inputs) const {
    return std::equal(inputs.begin(), inputs.end(), shapes_.begin(), shapes_.end(),
                      [](const MXTensor& input, const vqvae::kernels::Shape& shape) { return input.shape == shape; });
  }

  std::unique_ptr<Graph> graph_;
  std::unique_ptr<Tape> tape_;
  std::vector<vqvae::kernels::Shape> shapes_;
};

template <typename Operator>
MXReturnValue create(const Options& attributes, const MXContext&, const std::vector<std::vector<unsigned int>>&,
                     const std::vector<int>, CustomStatefulOp** op) {
  *op = CustomStatefulOp::create<Operator>(attributes.at(MX_STR_SUBGRAPH_SYM_JSON));
  return mxnet::ext::MX_SUCCESS;
}

template <std::vector<bool> (*taken)(const Graph&)>
MXReturnValue select(const mxnet::ext::Graph* graph, std::vector<int>* chosen, const Options&) {
  if (!why_not().empty()) return mxnet::ext::MX_SUCCESS;
  const std::vector<bool> supported = taken(Graph(*graph));
  constexpr int kAnyPart = -1;
  for (std::size_t i = 0; i < supported.size(); ++i) {
    if (supported[i]) (*chosen)[i] = kAnyPart;
  }
  return mxnet::ext::MX_SUCCESS;
}

// A part without a convolution is left to MXNet.
MXReturnValue review(const mxnet::ext::Graph* part, int, bool* accept, const Options&, Options*) {
  const Graph graph(*part);
  *accept =
      std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const auto& node) { return graph.is_convolution(node); });
  return mxnet::ext::MX_SUCCESS;
}

// One step of Adam, in place. The inputs are values, gradients, means and variances, each of all parameters; MXNet
// wants an output, which is nothing.
constexpr std::size_t kArrays = 4;

std::vector<double> numbers(const Options& attributes, const char* name) {
  vqvae::kernels::Node node;
  node.attributes[name] = attributes.at(name);
  return node.numbers(name);
}

MXReturnValue count_adam(const Options& attributes, int* inputs, int* outputs) {
  *inputs = static_cast<int>(kArrays * numbers(attributes, "rates").size());
  *outputs = 1;
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue infer_adam_types(const Options&, std::vector<int>* inputs, std::vector<int>* outputs) {
  const bool known = std::all_of(inputs->begin(), inputs->end(), [](int type) { return type == mxnet::ext::kFloat32; });
  (*outputs)[0] = mxnet::ext::kFloat32;
  if (!known) MX_ERROR_MSG << "Adam: all arrays must be float32";
  return known ? mxnet::ext::MX_SUCCESS : mxnet::ext::MX_FAIL;
}

MXReturnValue infer_adam_shapes(const Options&, std::vector<std::vector<unsigned>>* inputs,
                                std::vector<std::vector<unsigned>>* outputs) {
  (*outputs)[0] = {1};
  const std::size_t count = inputs->size() / kArrays;
  for (std::size_t i = 0; i < inputs->size(); ++i) {
    if ((*inputs)[i] == (*inputs)[i % count]) continue;
    MX_ERROR_MSG << "Adam: a parameter's arrays must be of one shape";
    return mxnet::ext::MX_FAIL;
  }
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue mutate_adam(const Options& attributes, std::vector<int>* changed) {
  const auto count = static_cast<int>(numbers(attributes, "rates").size());
  for (int i = 0; i < static_cast<int>(kArrays) * count; ++i) {
    if (i / count != 1) changed->push_back(i);
  }
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue forward_adam(const Options& attributes, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
                           const OpResource&) {
  const std::vector<double> rates = numbers(attributes, "rates");
  const auto number = [&](const char* name) { return static_cast<float>(numbers(attributes, name).at(0)); };
  const std::size_t count = rates.size();
  std::vector<vqvae::kernels::Parameter> parameters;
  for (std::size_t i = 0; i < count; ++i) {
    const auto array = [&](std::size_t k) { return static_cast<float*>((*inputs)[k * count + i].data_ptr); };
    parameters.push_back({array(0), array(1), array(2), array(3), static_cast<std::size_t>((*inputs)[i].size()),
                          static_cast<float>(rates[i])});
  }
  vqvae::kernels::step_adam(parameters, number("scale"), number("beta1"), number("beta2"), number("epsilon"),
                            omp_get_max_threads());
  *static_cast<float*>((*outputs)[0].data_ptr) = 0;
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* vqvae_kernels_why_not() { return why_not().c_str(); }

REGISTER_OP(_vqvae_fused).setIsSubgraphOp().setCreateOpState(create<Fused>, "cpu");
REGISTER_PARTITIONER(vqvae)
    .addStrategy("convolutions", "_vqvae_fused")
    .setSupportedOps("convolutions", select<vqvae::kernels::supported>)
    .setReviewSubgraph("convolutions", review);

REGISTER_OP(_vqvae_trained).setIsSubgraphOp().setCreateOpState(create<Trained>, "cpu");
REGISTER_OP(_vqvae_searching).setIsSubgraphOp().setCreateOpState(create<Searching>, "cpu");
REGISTER_PARTITIONER(vqvae_training)
    .addStrategy("convolutions", "_vqvae_trained")
    .setSupportedOps("convolutions", select<vqvae::kernels::trainable>)
    .setReviewSubgraph("convolutions", review)
    .addStrategy("codes", "_vqvae_searching")
    .setSupportedOps("codes", select<vqvae::kernels::searching>)
    .setReviewSubgraph("codes", review);

REGISTER_OP(_vqvae_adam)
    .setParseAttrs(count_adam)
    .setInferType(infer_adam_types)
    .setInferShape(infer_adam_shapes)
    .setMutateInputs(mutate_adam)
    .setForward(forward_adam, "cpu");

MXReturnValue initialize(int version) {
  if (version < kLeastVersion) {
    MX_ERROR_MSG << "the fused operators need MXNet 1.9";
    return mxnet::ext::MX_FAIL;
  }
  if (!wanted_isa().empty() && wanted_isa() != kNone && (wanted_isa() != kAmx || !why_not().empty())) {
    MX_ERROR_MSG << kIsaVariable << " is " << wanted_isa() << ", which "
                 << (wanted_isa() == kAmx ? "this processor, or this system, lacks" : "is unknown")
                 << "; unset it, or set it to none for MXNet's own operators";
    return mxnet::ext::MX_FAIL;
  }
  return mxnet::ext::MX_SUCCESS;
}
