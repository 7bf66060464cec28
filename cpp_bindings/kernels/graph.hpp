// What the fused operator makes of a graph of MXNet's: which nodes it takes, and how it reads their attributes.
#ifndef VQVAE_KERNELS_GRAPH_HPP_
#define VQVAE_KERNELS_GRAPH_HPP_

#include <mxnet/lib_api.h>

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace vqvae::kernels {

// One node; every operator that is taken has one output.
struct Node {
  std::string op;
  std::string name;
  std::map<std::string, std::string> attributes;
  std::vector<std::size_t> inputs;
  std::vector<std::size_t> readers;  // nodes that take its output, once for each time
  bool is_output = false;

  bool is_variable() const { return op == "null"; }
  // "relu", "tanh", "sigmoid" or another one, of either operator; else empty.
  std::string activation() const;
  // Numbers of a scalar or of a tuple, "2.0" or "(2, 2)"; empty if there are none.
  std::vector<double> numbers(const std::string& attribute) const;
  double number(const std::string& attribute, double otherwise) const;
  std::pair<int, int> pair(const std::string& attribute, int otherwise) const;
  bool is(const std::string& attribute, bool otherwise) const;
};

struct Graph {
  explicit Graph(const mxnet::ext::Graph& graph);

  std::vector<Node> nodes;  // each after those that it takes
  std::vector<std::size_t> outputs;

  const Node& input(const Node& node, std::size_t number) const { return nodes[node.inputs[number]]; }
  // Whether a node is the last of three that round to bfloat16 (artifacts/quantize.py), and which the others are.
  bool is_rounding(const Node& node) const;
  std::vector<std::size_t> rounding(const Node& node) const;
  // Whether a node is a convolution of whole numbers, which a scale and a bias follow (artifacts/quantize.py).
  bool is_quantized(const Node& node) const;
  bool is_convolution(const Node& node) const { return node.op == "Convolution" || node.op == "Deconvolution"; }
};

// For each node whether what it gives is made of parameters alone and read as a convolution's kernel or bias: it is
// computed once.
std::vector<bool> constants(const Graph& graph);

// For each node whether the fused operator can compute it.
std::vector<bool> supported(const Graph& graph);
// The same of what can be trained: convolutions, and what is done to each number behind them.
std::vector<bool> trainable(const Graph& graph);
// The same of a search for the nearest row of a codebook, which may be trained, too.
std::vector<bool> searching(const Graph& graph);

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_GRAPH_HPP_
