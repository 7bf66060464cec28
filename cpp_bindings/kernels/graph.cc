#include "graph.hpp"

#include <algorithm>
#include <cstdlib>
#include <set>

namespace vqvae::kernels {
namespace {

const std::set<std::string> kFunctions = {"_plus_scalar", "_minus_scalar", "_mul_scalar",
                                          "_div_scalar",  "clip",          "rint"};
const std::set<std::string> kConstant = {"_mul_scalar", "Reshape", "square", "sum", "Cast", "L2Normalization"};

bool is_plain_convolution(const Node& node) {
  if (node.numbers("kernel").size() != 2 || node.number("num_group", 1) != 1) return false;
  if (node.attributes.count("target_shape") > 0) {
    for (const double extent : node.numbers("target_shape")) {
      if (extent != 0) return false;
    }
  }
  const auto layout = node.attributes.find("layout");
  if (layout != node.attributes.end() && layout->second != "None" && layout->second != "NCHW") return false;
  for (const double step : node.numbers("dilate")) {
    if (step != 1) return false;
  }
  const auto [height, width] = node.pair("kernel", 1);
  const auto [down, across] = node.pair("stride", 1);
  if (down != across || down < 1) return false;
  return node.op == "Convolution" || (height >= down && width >= down);
}

bool is_function(const Node& node) {
  const std::string type = node.activation();
  return type == "relu" || type == "tanh" || type == "sigmoid" || kFunctions.count(node.op) > 0;
}

bool is_cast(const Node& node, const char* type) { return node.op == "Cast" && node.attributes.at("dtype") == type; }

// Channels first again, behind the rows of a codebook.
bool is_to_channels_first(const Node& node) {
  return node.op == "transpose" && node.numbers("axes") == std::vector<double>{0, 3, 1, 2};
}

// A parameter through which nothing goes back.
bool is_parameter_of_training(const Graph& graph, const Node& node) {
  return node.op == "BlockGrad" && graph.input(node, 0).is_variable();
}

constexpr double kSplitter = 65537;  // 2^16 + 1: what is left of 24 bits are 8

}  // namespace

bool Graph::is_quantized(const Node& node) const {
  if (!is_convolution(node) || input(node, 0).op != "clip" || node.inputs.size() != 2) return false;
  const Node& rounded = input(input(node, 0), 0);
  return (rounded.op == "rint" || rounded.is_variable()) && input(node, 1).op == "Cast";
}

// Veltkamp's split: s - (s - x) with s = x * (2^16 + 1).
bool Graph::is_rounding(const Node& node) const {
  if (node.op != "elemwise_sub" || input(node, 0).op != "_mul_scalar") return false;
  const Node& spread = input(node, 0);
  const Node& rest = input(node, 1);
  return spread.number("scalar", 0) == kSplitter && !spread.is_output && spread.readers.size() == 2 &&
         rest.op == "elemwise_sub" && !rest.is_output && rest.readers.size() == 1 && rest.inputs[0] == node.inputs[0] &&
         rest.inputs[1] == spread.inputs[0];
}

std::vector<std::size_t> Graph::rounding(const Node& node) const { return {node.inputs[0], node.inputs[1]}; }

std::string Node::activation() const {
  if (op == "Activation") return attributes.at("act_type");
  return op == "relu" || op == "tanh" || op == "sigmoid" ? op : "";
}

std::vector<double> Node::numbers(const std::string& attribute) const {
  std::vector<double> result;
  const auto found = attributes.find(attribute);
  if (found == attributes.end()) return result;
  const char* text = found->second.c_str();
  while (*text != '\0') {
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    if (end == text) {
      ++text;
    } else {
      result.push_back(value);
      text = end;
    }
  }
  return result;
}

double Node::number(const std::string& attribute, double otherwise) const {
  const std::vector<double> found = numbers(attribute);
  return found.empty() ? otherwise : found.front();
}

std::pair<int, int> Node::pair(const std::string& attribute, int otherwise) const {
  const std::vector<double> found = numbers(attribute);
  if (found.size() != 2) return {otherwise, otherwise};
  return {static_cast<int>(found[0]), static_cast<int>(found[1])};
}

bool Node::is(const std::string& attribute, bool otherwise) const {
  const auto found = attributes.find(attribute);
  if (found == attributes.end()) return otherwise;
  return found->second == "True" || found->second == "true" || found->second == "1";
}

Graph::Graph(const mxnet::ext::Graph& graph) {
  std::map<const mxnet::ext::Node*, std::size_t> numbers;
  nodes.resize(graph.size());
  for (std::size_t i = 0; i < graph.size(); ++i) {
    const mxnet::ext::Node& node = *graph.getNode(i);
    numbers[&node] = i;
    nodes[i].op = node.op;
    nodes[i].name = node.name;
    nodes[i].attributes.insert(node.attrs.begin(), node.attrs.end());
    for (const auto& [from, output] : node.inputs) {
      nodes[i].inputs.push_back(numbers.at(from));
      nodes[nodes[i].inputs.back()].readers.push_back(i);
    }
  }
  for (const auto& [node, output] : graph.outputs) {
    outputs.push_back(numbers.at(node));
    nodes[outputs.back()].is_output = true;
  }
}

std::vector<bool> constants(const Graph& graph) {
  std::vector<bool> read(graph.nodes.size(), false);
  std::vector<bool> result(graph.nodes.size(), false);
  // From the readers back to what they read ...
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    if (graph.is_convolution(node)) {
      for (std::size_t k = 1; k < node.inputs.size(); ++k) read[node.inputs[k]] = true;
    } else if ((node.op == "broadcast_mul" || node.op == "broadcast_add" || node.op == "Embedding") &&
               node.inputs.size() == 2) {
      read[node.inputs[1]] = true;
    } else if (read[i] && kConstant.count(node.op) > 0) {
      for (const std::size_t input : node.inputs) read[input] = true;
    }
  }
  // ... and forward again from the parameters.
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (!read[i]) continue;
    result[i] = node.is_variable() || is_parameter_of_training(graph, node) ||
                (kConstant.count(node.op) > 0 &&
                 std::all_of(node.inputs.begin(), node.inputs.end(), [&](std::size_t k) { return result[k]; }));
    if (node.op == "sum")
      result[i] = result[i] && node.numbers("axis") == std::vector<double>{1} && !node.is("keepdims", false) &&
                  !node.is("exclude", false);
    if (node.op == "Cast") result[i] = result[i] && is_cast(node, "float32");
    if (node.op == "L2Normalization") result[i] = result[i] && node.attributes.at("mode") == "instance";
  }
  return result;
}

std::vector<bool> supported(const Graph& graph) {
  const std::vector<bool> constant = constants(graph);
  std::vector<bool> result(graph.nodes.size(), false);
  const auto is_parameter = [&](const Node& node, std::size_t number) {
    return node.inputs.size() > number && constant[node.inputs[number]];
  };
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (node.is_variable()) continue;
    if (constant[i]) {
      result[i] = !is_parameter_of_training(graph, node);
    } else if (graph.is_convolution(node)) {
      result[i] =
          is_plain_convolution(node) && is_parameter(node, 1) && (node.inputs.size() < 3 || is_parameter(node, 2));
    } else if (is_function(node) || node.op == "elemwise_add") {
      result[i] = true;
    } else if (node.op == "broadcast_mul" || node.op == "broadcast_add") {
      // What they take for each channel is the scale and the bias of a convolution of whole numbers.
      const Node& before = graph.input(node, 0);
      result[i] = is_parameter(node, 1) && graph.input(node, 1).is_variable() && result[node.inputs[0]] &&
                  (node.op == "broadcast_mul" ? graph.is_quantized(before) : before.op == "broadcast_mul");
    } else if (node.op == "argmin") {
      result[i] =
          node.number("axis", -1) == 1 && !node.is("keepdims", false) && graph.is_convolution(graph.input(node, 0));
    } else if (is_cast(node, "int32")) {
      result[i] = graph.input(node, 0).op == "argmin" && result[node.inputs[0]];
    } else if (graph.is_rounding(node)) {
      result[i] = true;
      for (const std::size_t k : graph.rounding(node)) result[k] = true;
    } else if (node.op == "Embedding") {
      result[i] = is_parameter(node, 1) && graph.input(node, 0).is_variable() && !node.readers.empty() &&
                  std::all_of(node.readers.begin(), node.readers.end(),
                              [&](std::size_t k) { return is_to_channels_first(graph.nodes[k]); });
    } else if (is_to_channels_first(node)) {
      result[i] = graph.input(node, 0).op == "Embedding" && result[node.inputs[0]];
    }
  }
  return result;
}

std::vector<bool> trainable(const Graph& graph) {
  std::vector<bool> result(graph.nodes.size(), false);
  const auto is_parameter = [&](std::size_t i) {
    return graph.nodes[i].is_variable() && graph.nodes[i].readers.size() == 1;
  };
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const auto is_taken = [&](std::size_t k) { return static_cast<bool>(result[k]); };
    if (graph.is_convolution(node)) {
      result[i] = is_plain_convolution(node) && std::all_of(node.inputs.begin() + 1, node.inputs.end(), is_parameter);
    } else if (node.op == "elemwise_add") {
      result[i] = std::all_of(node.inputs.begin(), node.inputs.end(), is_taken);
    } else if (is_function(node) && node.op != "clip" && node.op != "rint") {
      result[i] = is_taken(node.inputs[0]);
    }
  }
  return result;
}

std::vector<bool> searching(const Graph& graph) {
  const std::vector<bool> constant = constants(graph);
  const std::vector<bool> known = supported(graph);
  std::vector<bool> result(graph.nodes.size(), false);
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    if (node.op == "argmin" || is_cast(node, "int32")) result[i] = known[i];
    if (!result[i]) continue;
    for (const std::size_t k : node.inputs) {
      const bool is_distance = node.op == "argmin" && graph.nodes[k].readers.size() == 1;
      result[k] = known[k] && (constant[k] || is_distance || graph.nodes[k].op == "argmin");
    }
  }
  return result;
}

}  // namespace vqvae::kernels
