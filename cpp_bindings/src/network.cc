#include "vqvae/network.hpp"

#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine.hpp"
#include "limits.hpp"
#include "mxnet.hpp"
#include "refusal.hpp"
#include "vqvae/error.hpp"

namespace vqvae {
namespace {

using mxnet::api;
using mxnet::check;

// As many batches are tried, of those that Reshapes fix.
constexpr std::size_t kTriedBatches = 16;

// Of all nodes of a graph.
constexpr std::size_t kMaxOutputs = 100000;

// Of an element, for estimates: nearly all are float32.
constexpr std::size_t kElementBytes = 4;

// One output of a node.
struct Output {
  std::string node;
  std::size_t number = 0;
  mxnet::Symbol symbol;
};

// The outputs of all nodes, in graph order. Operators name their outputs as they like; the number is the count.
std::vector<Output> list_outputs(SymbolHandle symbol, const std::string& what) {
  SymbolHandle handle = nullptr;
  check(api().MXSymbolGetInternals(symbol, &handle), what);
  const mxnet::Symbol internals(handle);
  std::uint32_t size = 0;
  check(api().MXSymbolGetNumOutputs(internals.get(), &size), what);
  std::vector<Output> outputs;
  std::map<std::string, std::size_t> counts;
  for (std::uint32_t i = 0; i < size; ++i) {
    check(api().MXSymbolGetOutput(internals.get(), i, &handle), what);
    mxnet::Symbol output(handle);
    const char* name = nullptr;
    int named = 0;
    check(api().MXSymbolGetName(output.get(), &name, &named), what);
    if (named == 0) throw InputError(what, std::string("has a node without a name; ") + kSymbolFile);
    outputs.push_back({name, counts[name]++, std::move(output)});
  }
  return outputs;
}

bool has_mxnet_fusion(Engine engine) { return engine == Engine::kExecutor || engine == Engine::kPredict; }

using NamedShapeMap = std::map<std::string, Shape>;

// What MXNet knows of a symbol's shapes when it is told those of the inputs; unknown ones are empty.
struct Inferred {
  std::vector<Shape> arguments;
  std::vector<Shape> auxiliaries;
  std::vector<Shape> outputs;
};

bool is_reshape(const Node& node) {
  return node.op == "Reshape" || node.op == "reshape" || node.op == "_np_reshape" || node.op == "_npx_reshape";
}

std::string new_shape(const Node& node) { return node.attribute("shape", node.attribute("newshape", "")); }

// The batch that a Reshape takes, if its new shape begins with one: with a number, or with -4 and the two factors into
// which that splits the batch, of which one may be left open. Else 0.
std::int64_t fixed_batch(const Node& node) {
  constexpr std::int64_t kSplit = -4;
  constexpr std::int64_t kOne = 1;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  static const std::regex number(R"(-?\d{1,10})");
  const std::string shape = new_shape(node);
  std::vector<std::int64_t> numbers;
  for (std::sregex_iterator match(shape.begin(), shape.end(), number), end; match != end; ++match) {
    numbers.push_back(std::stoll(match->str()));
  }
  std::int64_t batch = numbers.size() > 1 ? numbers[0] : 0;
  if (numbers.size() > 2 && batch == kSplit) {
    batch = std::clamp(numbers[1], kOne, kMost) * std::clamp(numbers[2], kOne, kMost);
  }
  return batch < 0 || batch > kMost ? 0 : batch;
}

// What is to be said of a Reshape that does not fit what the graph is fed: what it does not take, or nothing if it
// takes its input, and what it makes of it does not fit.
std::string reshape_refusal(const Node& node, const std::string& refused) {
  const std::string why = "shapes do not fit: " + node.name + ": is a Reshape to " + new_shape(node) +
                          (refused.empty() ? "" : ", which does not take " + refused);
  const std::int64_t fixed = fixed_batch(node);
  if (fixed == 0) return why + "; " + kFeedShapes;
  const std::string batch = std::to_string(fixed);
  return why + ": it fixes the batch at " + batch + "; feed batches of " + batch +
         ", or write 0 or -1 in place of the " + batch + " in the network and export it";
}

// Why MXNet finds no shapes.
InputError no_shapes(const Graph& graph) {
  const std::string reason = mxnet::last_error();
  static const std::regex told("operator (\\S+?):");
  std::smatch match;
  if (std::regex_search(reason, match, told)) {
    for (const Node& node : graph.nodes) {
      if (node.name == match[1].str() && is_reshape(node)) return {graph.name, reshape_refusal(node, "its input")};
    }
  }
  return {graph.name, "shapes do not fit: " + shape_refusal(reason)};
}

// What of values by name a symbol takes; MXNet refuses others.
template <typename Map>
Map taken_of(const Map& values, const std::set<std::string>& variables) {
  Map taken;
  for (const auto& [name, value] : values) {
    if (variables.count(name) > 0) taken.emplace(name, value);
  }
  return taken;
}

Inferred infer(SymbolHandle symbol, const NamedShapeMap& inputs, const Graph& graph) {
  const mxnet::InUse use;
  mxnet::NamedShapes<int> shapes;
  for (const auto& [name, shape] : inputs) shapes.add(name, shape);
  struct Listing {
    std::uint32_t size = 0;
    const int* dimensions = nullptr;
    const int** shapes = nullptr;

    std::vector<Shape> known(bool numpy) const {
      const int lowest = numpy ? 0 : 1;
      std::vector<Shape> result(size);
      for (std::uint32_t i = 0; i < size; ++i) {
        if (dimensions[i] < 1) continue;
        const Shape shape(shapes[i], shapes[i] + dimensions[i]);
        if (std::all_of(shape.begin(), shape.end(), [&](auto extent) { return extent >= lowest; })) result[i] = shape;
      }
      return result;
    }
  } arguments, outputs, auxiliaries;
  int complete = 0;
  if (api().MXSymbolInferShapePartialEx(
          symbol, shapes.size(), shapes.names.data(), shapes.begins.data(), shapes.extents.data(), &arguments.size,
          &arguments.dimensions, &arguments.shapes, &outputs.size, &outputs.dimensions, &outputs.shapes,
          &auxiliaries.size, &auxiliaries.dimensions, &auxiliaries.shapes, &complete) != 0) {
    throw no_shapes(graph);
  }
  return {arguments.known(graph.numpy), auxiliaries.known(graph.numpy), outputs.known(graph.numpy)};
}

// How many outputs a node has, as MXNet itself makes one of it alone. MXNet follows a number of an output or a missing
// input of a file into memory that is not there.
std::size_t prove(const Node& node, const std::string& what) {
  mxnet::forget_range_errors();
  const auto refuse = [&](const std::string& why) {
    return InputError(what, "is refused by MXNet: " + graph_refusal(node.name + ": " + why));
  };
  OpHandle op = nullptr;
  if (api().NNGetOpHandle(node.op.c_str(), &op) != 0) throw refuse("there is no operator " + node.op);
  std::vector<const char*> keys;
  std::vector<const char*> values;
  for (const auto& [key, value] : node.attributes) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  SymbolHandle handle = nullptr;
  if (api().MXSymbolCreateAtomicSymbol(op, static_cast<std::uint32_t>(keys.size()), keys.data(), values.data(),
                                       &handle) != 0) {
    throw refuse(mxnet::last_error());
  }
  const mxnet::Symbol symbol(handle);
  std::uint32_t outputs = 0;
  check(api().MXSymbolGetNumOutputs(handle, &outputs), what);
  // Without inputs it is given a variable for each that it takes.
  if (api().MXSymbolCompose(handle, "node", 0, nullptr, nullptr) != 0) throw refuse(mxnet::last_error());
  std::uint32_t inputs = 0;
  const char** names = nullptr;
  constexpr int kAll = 0;
  check(api().NNSymbolListInputNames(handle, kAll, &inputs, &names), what);
  if (inputs != node.inputs.size()) {
    throw refuse(node.op + " takes " + std::to_string(inputs) + " inputs, not " + std::to_string(node.inputs.size()));
  }
  return outputs;
}

// The same of a node within which graphs lie, without which MXNet makes none.
std::size_t count_outputs(const Node& node) {
  constexpr std::size_t kQuantized = 3;  // The values, the least and the most of them.
  const auto is_set = [&node](const char* key) {
    const std::string value = node.attribute(key, "");
    return value == "True" || value == "true" || value == "1";
  };
  if (node.op.rfind("_sg_mkldnn_", 0) == 0) {
    return is_set("quantized") && !is_set("enable_float_output") ? kQuantized : 1;
  }
  constexpr int kDecimal = 10;
  return std::strtoul(node.attribute("num_outputs", "").c_str(), nullptr, kDecimal);
}

// Refuse references to outputs that their nodes do not have, in the graphs within nodes, too. `before` are the outputs
// of the graph that it lies in. Returns how many there are in all.
// NOLINTNEXTLINE(misc-no-recursion): documents are bounded in depth.
std::size_t prove(const Graph& graph, const std::string& what, std::size_t before = 0) {
  std::vector<std::size_t> counts;
  const auto check_outputs = [&](const std::vector<Reference>& references) {
    for (const auto& [node, number] : references) {
      if (number >= counts[node]) {
        throw InputError(what, "is refused by MXNet: " + graph.nodes[node].name + " has no output " +
                                   std::to_string(number) + "; " + kSymbolFile);
      }
    }
  };
  std::size_t total = before;
  for (const Node& node : graph.nodes) {
    check_outputs(node.inputs);
    if (node.op == "null") {
      counts.push_back(1);
    } else {
      counts.push_back(node.subgraphs.empty() ? prove(node, what) : count_outputs(node));
    }
    total += counts.back();
    if (total > kMaxOutputs) {
      throw InputError(what, "is refused by MXNet: " + node.name + ": the graph has more than " +
                                 std::to_string(kMaxOutputs) + " outputs of nodes; " + kSymbolFile);
    }
    for (const auto& subgraph : node.subgraphs) total = prove(*subgraph, what, total);
  }
  check_outputs(graph.outputs);
  return total;
}

}  // namespace

class Network::Impl {
 public:
  Impl(Export network, const std::vector<std::string>& inputs, Engine engine, Fusion fusion)
      : engine_(engine),
        fusion_(fusion),
        fuse_(fusion == Fusion::kMXNet || !has_mxnet_fusion(engine) || misfused(network.graph).empty()),
        params_file_(std::move(network.params_name)),
        json_(std::move(network.graph.json)) {
    plain_.fuse = fuse_;
    tapped_.fuse = fusion == Fusion::kMXNet;
    bound_.file = std::move(network.graph.name);
    if (engine == Engine::kFused) mxnet::load_kernels();
    const mxnet::Api& loaded = api();
    const BoundedMemory bounded;
    try {
      open(std::move(network), inputs, loaded);
    } catch (const std::bad_alloc&) {
      if (bounded.holds()) throw needs_memory();
      throw;
    }
  }

  void open(Export network, const std::vector<std::string>& inputs, const mxnet::Api& /*loaded*/) {
    const mxnet::ShapeRules rules(network.graph.numpy);
    const mxnet::InUse use;
    SymbolHandle handle = nullptr;
    mxnet::forget_range_errors();
    const BoundedTime time(network.graph.nodes.size());
    if (api().MXSymbolCreateFromJSON(json_.c_str(), &handle) != 0) {
      throw InputError(bound_.file, "is refused by MXNet: " + graph_refusal(mxnet::last_error()));
    }
    plain_.symbol.reset(handle);
    const char* text = "";
    check(api().MXSymbolSaveToJSON(handle, &text), bound_.file);
    graph_ = parse_graph(Bytes(text, text + std::strlen(text)), bound_.file);  // Old files are brought up to date.
    prove(graph_, bound_.file);
    arguments_ = mxnet::names(api().MXSymbolListArguments, handle, bound_.file);
    auxiliaries_ = mxnet::names(api().MXSymbolListAuxiliaryStates, handle, bound_.file);
    network.parameters = full_names(std::move(network.parameters), arguments_, auxiliaries_, params_file_);
    bind("arg:", arguments_, &network.parameters, inputs);
    bind("aux:", auxiliaries_, &network.parameters, inputs);
    for (const auto& [name, tensor] : network.parameters) {
      if (taken_.count(name) == 0) {
        throw misfit("parameter unknown", name, "the file holds it, the graph does not take it");
      }
    }
    if (engine_ == Engine::kPredict) bound_.params = parameters_bytes(std::move(network.parameters), graph_.numpy);
    name_outputs();
#ifdef __GLIBC__
    malloc_trim(0);  // The file's bytes are not held beside what MXNet makes of them.
#endif
  }

  bool takes(const std::string& name) const { return plain_.variables.count(name) > 0; }

  Estimate estimate(const NamedShapeMap& inputs) const {
    const BoundedTime time(graph_.nodes.size());
    return measure(inputs);
  }

  void run(const Inputs& inputs, const Sink& sink) {
    const mxnet::ShapeRules rules(graph_.numpy);
    const Feed feed = prepare(inputs);
    run(&plain_, feed, sink);
  }

  void taps(const Inputs& inputs, const Sink& sink) {
    const mxnet::ShapeRules rules(graph_.numpy);
    const Feed feed = prepare(inputs);
    if (tapped_.outputs.empty()) return;
    run(&tapped_, feed, sink);
  }

 private:
  // A graph and how its outputs are called: name and operator.
  struct Plan {
    mxnet::Symbol symbol;
    std::set<std::string> variables;  // What the symbol takes: of every node as an output it may be less.
    std::vector<std::pair<std::string, std::string>> outputs;
    bool fuse = true;
    bool proved = false;  // It has been run.
    std::unique_ptr<Runner> runner;
  };

  Estimate measure(const NamedShapeMap& inputs) const {
    const mxnet::ShapeRules rules(graph_.numpy);
    Estimate result;
    if (tapped_.outputs.empty()) return result;  // Nothing is computed.
    const std::size_t element_size = element_bytes();
    for (const Shape& shape : shapes_of(tapped_, inputs).outputs) {
      const std::size_t elements = shape.empty() ? 0 : element_count(shape);
      result.bytes += elements * element_size;
      result.largest = std::max(result.largest, elements);
    }
    result.outputs = shapes_of(plain_, inputs).outputs;
    return result;
  }

  Inferred shapes_of(const Plan& plan, const NamedShapeMap& known) const {
    return infer(plan.symbol.get(), taken_of(known, plan.variables), graph_);
  }

  InputError needs_memory() const {
    return {bound_.file, "needs more memory for a run than the limit of " + mebibytes(run_limit().value_or(0)) +
                             "; feed smaller batches, or raise it (--memory)"};
  }

  // Bytes of an element of the widest type that the graph may compute in.
  std::size_t element_bytes() const {
    const auto is_wide = [](const std::string& type) { return type == "float64" || type == "int64"; };
    for (const auto& [name, parameter] : bound_.parameters) {
      if (parameter.dtype == DType::kFloat64) return sizeof(double);
    }
    for (const Node& node : graph_.nodes) {
      if (is_wide(node.attribute("dtype", "")) || is_wide(node.attribute("out_type", ""))) return sizeof(double);
    }
    return kElementBytes;
  }

  InputError misfit(const std::string& cause, const std::string& parameter, const std::string& why) const {
    const std::map<std::string, std::string> remedies = {
        {"parameter missing",
         "deploy the parameter file that net.export(prefix) wrote with this graph; an input or a label is fed by name"},
        {"parameter unknown", "deploy the parameter file that net.export(prefix) wrote with this graph"},
        {"wrong prefix", "store arguments as arg: and auxiliary states as aux:, as net.export(prefix) does"},
        {"wrong shape",
         "deploy the parameter file that net.export(prefix) wrote with this graph, or feed inputs of the shapes that "
         "it "
         "was made for"}};
    return {params_file_, cause + ": " + parameter + ": " + why + "; " + remedies.at(cause)};
  }

  // Move the parameters that the graph wants under this prefix into MXNet; predict reads them as a file.
  void bind(const std::string& prefix, const std::vector<std::string>& wanted, Parameters* parameters,
            const std::vector<std::string>& inputs) {
    for (const std::string& name : wanted) {
      if (std::find(inputs.begin(), inputs.end(), name) != inputs.end()) continue;
      const auto found = parameters->find(prefix + name);
      if (found == parameters->end()) {
        const bool elsewhere = parameters->count((prefix == "arg:" ? "aux:" : "arg:") + name) > 0;
        throw misfit(elsewhere ? "wrong prefix" : "parameter missing", name,
                     elsewhere ? "the graph takes it as " + prefix : "the graph takes it, the file does not hold it");
      }
      taken_.insert(found->first);
      Tensor& tensor = found->second;
      mxnet::Array array = engine_ == Engine::kPredict ? nullptr : mxnet::to_array(tensor);
      bound_.parameters.emplace(name, Parameter{tensor.dtype, tensor.shape, std::move(array)});
      if (engine_ != Engine::kPredict) Bytes().swap(tensor.data);  // Nobody needs it any more.
    }
  }

  std::set<std::string> variables_of(SymbolHandle symbol) const {
    std::set<std::string> variables;
    for (const auto list : {api().MXSymbolListArguments, api().MXSymbolListAuxiliaryStates}) {
      for (std::string& name : mxnet::names(list, symbol, bound_.file)) variables.insert(std::move(name));
    }
    return variables;
  }

  // Name the outputs of the graph, and group those of all nodes into the graph that is tapped.
  void name_outputs() {
    plain_.variables = variables_of(plain_.symbol.get());
    const std::vector<Output> outputs = list_outputs(plain_.symbol.get(), bound_.file);
    std::map<std::string, std::size_t> counts;
    for (const Output& output : outputs) ++counts[output.node];
    std::map<std::string, std::string> operators;
    for (const Node& node : graph_.nodes) operators[node.name] = node.op;
    const auto call = [&](const std::string& node, std::size_t number) {
      const bool only = counts[node] == 1 && number == 0;
      return std::make_pair(only ? node : node + ":" + std::to_string(number), operators[node]);
    };
    for (const auto& [node, number] : graph_.outputs) plain_.outputs.push_back(call(graph_.nodes[node].name, number));

    std::vector<SymbolHandle> handles;
    for (const Output& output : outputs) {
      if (plain_.variables.count(output.node) > 0) continue;
      handles.push_back(output.symbol.get());
      tapped_.outputs.push_back(call(output.node, output.number));
    }
    if (handles.empty()) return;
    SymbolHandle handle = nullptr;
    check(api().MXSymbolCreateGroup(static_cast<std::uint32_t>(handles.size()), handles.data(), &handle), bound_.file);
    tapped_.symbol.reset(handle);
    tapped_.variables = variables_of(handle);
  }

  std::unique_ptr<Runner> make(const Plan& plan) const {
    const mxnet::InUse use;
    const char* json = json_.c_str();
    if (engine_ == Engine::kPredict && &plan == &tapped_) {
      check(api().MXSymbolSaveToJSON(plan.symbol.get(), &json), bound_.file);
    }
    // CachedOp makes nothing of a graph that takes nothing.
    switch (plan.variables.empty() ? Engine::kExecutor : engine_) {
      case Engine::kExecutor:
        return make_executor(plan.symbol.get(), bound_, plan.fuse);
      case Engine::kPredict:
        return make_predict(json, plan.symbol.get(), bound_, plan.fuse);
      case Engine::kFused:
        return make_fused(plan.symbol.get(), bound_);
      case Engine::kCachedOp:
        break;
    }
    return make_cachedop(plan.symbol.get(), bound_);
  }

  // What of the inputs the graph takes, once the parameters are shown to fit it.
  Feed prepare(const Inputs& inputs) {
    Feed feed;
    for (const auto* names : {&arguments_, &auxiliaries_}) {
      for (const std::string& name : *names) {
        if (bound_.parameters.count(name) > 0) continue;
        const auto input = inputs.find(name);
        if (input == inputs.end()) {
          throw InputError(bound_.file, "the input " + name + " is not fed, and is no parameter");
        }
        if (!graph_.numpy && (input->second.data.empty() || input->second.shape.empty())) {
          throw InputError(bound_.file, "the input " + name + " has the shape " + to_string(input->second.shape) +
                                            "; MXNet takes extents of at least 1, and at least one of them");
        }
        feed.emplace(name, &input->second);
      }
    }
    if (Signature fed = signature(feed); fed != checked_) {
      check_shapes(feed);
      checked_ = std::move(fed);
    }
    return feed;
  }

  // MXNet would broadcast or crash on a parameter of another shape; ask it first what the inputs make of each.
  void check_shapes(const Feed& feed) const {
    const BoundedTime time(graph_.nodes.size());
    NamedShapeMap fed;
    for (const auto& [name, tensor] : feed) fed.emplace(name, tensor->shape);
    const Estimate estimate = measure(fed);
    if (estimate.largest > kMaxElements) {
      throw InputError(bound_.file, "has a tensor of more than " + std::to_string(kMaxElements) +
                                        " elements, which MXNet does not take; feed smaller batches");
    }
    const std::optional<std::size_t> limit = run_limit();
    if (limit && estimate.bytes > *limit) {
      throw InputError(bound_.file, "takes " + mebibytes(estimate.bytes) +
                                        " for its tensors, and the memory limit is " + mebibytes(*limit) +
                                        "; feed smaller batches, or raise it (--memory)");
    }
    const std::optional<Misshapen> wrong = misshapen(fed);
    if (wrong) {
      if (const Node* node = fixes_the_batch(fed)) throw InputError(bound_.file, reshape_refusal(*node, ""));
      throw misfit("wrong shape", wrong->name,
                   "is " + to_string(wrong->stored) + ", the graph takes " + to_string(wrong->wanted));
    }
    check_reshapes(std::move(fed));
  }

  // A parameter of another shape than the graph takes.
  struct Misshapen {
    std::string name;
    Shape stored;
    Shape wanted;
  };

  // The first of them, for inputs of these shapes.
  std::optional<Misshapen> misshapen(const NamedShapeMap& fed) const {
    const Inferred inferred = shapes_of(plain_, fed);
    for (const auto& [shapes, names] :
         {std::tie(inferred.arguments, arguments_), std::tie(inferred.auxiliaries, auxiliaries_)}) {
      for (std::size_t i = 0; i < names.size(); ++i) {
        const auto parameter = bound_.parameters.find(names[i]);
        if (parameter == bound_.parameters.end() || shapes[i].empty()) continue;
        if (parameter->second.shape != shapes[i]) return Misshapen{names[i], parameter->second.shape, shapes[i]};
      }
    }
    return std::nullopt;
  }

  // The Reshape with whose batch all parameters would fit, or null.
  const Node* fixes_the_batch(const NamedShapeMap& fed) const {
    std::set<std::int64_t> tried;
    for (const Node& node : graph_.nodes) {
      const std::int64_t batch = is_reshape(node) ? fixed_batch(node) : 0;
      if (!tried.insert(batch).second || tried.size() > kTriedBatches) continue;
      NamedShapeMap fitting = fed;
      for (auto& [name, shape] : fitting) {
        if (batch > 0 && !shape.empty()) shape[0] = batch;
      }
      if (fitting == fed) continue;
      try {
        if (!misshapen(fitting)) return &node;
      } catch (const InputError&) {
        continue;  // Not with this one.
      }
    }
    return nullptr;
  }

  // Refuse a Reshape whose output has not as many elements as its input: MXNet would go on, and read memory that is not
  // there.
  void check_reshapes(NamedShapeMap known) const {
    if (tapped_.outputs.empty()) return;
    for (const std::string& name : arguments_) {
      const auto parameter = bound_.parameters.find(name);
      if (parameter != bound_.parameters.end()) known.emplace(name, parameter->second.shape);
    }
    const std::vector<Shape> outputs = shapes_of(tapped_, known).outputs;
    for (std::size_t i = 0; i < outputs.size(); ++i) known.emplace(tapped_.outputs[i].first, outputs[i]);
    for (const Node& node : graph_.nodes) {
      if (!is_reshape(node)) continue;
      const auto taken = known.find(graph_.nodes[node.inputs[0].first].name);
      if (taken == known.end() || taken->second.empty()) continue;
      const Shape& made = known[node.name];
      if ((made.empty() && !graph_.numpy) || element_count(made) != element_count(taken->second)) {
        throw InputError(bound_.file, reshape_refusal(node, to_string(taken->second)));
      }
    }
  }

  // The first run of a graph is a part of its proof: what MXNet refuses there is the file's fault.
  void run(Plan* plan, const Feed& feed, const Sink& sink) const {
    bool handed_over = false;
    const BoundedMemory bounded;
    try {
      if (!plan->runner) {
        const BoundedTime time(graph_.nodes.size());
        plan->runner = make(*plan);
      }
      plan->runner->run(taken_of(feed, plan->variables), [&](std::size_t number, Tensor value) {
        handed_over = true;
        const auto& [name, op] = plan->outputs.at(number);
        sink({name, op, std::move(value)});
      });
    } catch (const RuntimeFailure& failure) {
      std::set<std::string> types;
      for (const auto& [name, tensor] : feed) types.insert(dtype_name(tensor->dtype));
      std::map<std::string, std::string> stored;
      for (const auto& [name, parameter] : bound_.parameters) stored.emplace(name, dtype_name(parameter.dtype));
      const std::string why = "cannot be run: " + run_refusal(failure.why(), types, stored);
      // An engine that was asked to fuse fails for reasons of its own.
      const bool fuses = fusion_ == Fusion::kMXNet && has_mxnet_fusion(engine_);
      if (plan->proved || handed_over || fuses) throw RuntimeFailure(bound_.file, why);
      throw InputError(bound_.file, why);
    } catch (const std::bad_alloc&) {
      if (!bounded.holds()) throw;  // It is not what the file asks for, but what there is.
      throw needs_memory();
    }
    plan->proved = true;
  }

  Engine engine_;
  Fusion fusion_;
  bool fuse_;  // The graph, where no node is tapped.
  std::string params_file_;
  std::string json_;
  Graph graph_;
  Bound bound_;
  std::set<std::string> taken_;  // Full names of the parameters that are bound.
  std::vector<std::string> arguments_;
  std::vector<std::string> auxiliaries_;
  Signature checked_;  // What the shapes were checked for.
  Plan plain_;
  Plan tapped_;
};

Network::Network(Export network, const std::vector<std::string>& inputs, Engine engine, Fusion fusion)
    : impl_(std::make_unique<Impl>(std::move(network), inputs, engine, fusion)) {}
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;
Network::~Network() = default;

bool Network::takes(const std::string& name) const { return impl_->takes(name); }
Estimate Network::estimate(const std::map<std::string, Shape>& inputs) const { return impl_->estimate(inputs); }
void Network::run(const Inputs& inputs, const Sink& sink) { impl_->run(inputs, sink); }
std::vector<Tensor> Network::run(const Inputs& inputs) {
  std::vector<Tensor> outputs;
  run(inputs, [&outputs](Tap tap) { outputs.push_back(std::move(tap.value)); });
  return outputs;
}
void Network::taps(const Inputs& inputs, const Sink& sink) { impl_->taps(inputs, sink); }

}  // namespace vqvae
