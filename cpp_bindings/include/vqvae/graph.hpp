// MXNet symbol files, proved sound before MXNet sees them: the rules of vqvae_gluon/artifacts/graph.py.
#ifndef VQVAE_GRAPH_HPP_
#define VQVAE_GRAPH_HPP_

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vqvae/tensor.hpp"

namespace vqvae {

// A node by its place in the file, and the number of one of its outputs.
using Reference = std::pair<std::size_t, std::size_t>;

struct Graph;

struct Node {
  std::string name;  // Unique in its graph.
  std::string op;    // MXNet's name of the operator; "null" for a variable.
  std::map<std::string, std::string> attributes;
  std::vector<Reference> inputs;
  // Of control flow, and of operators that oneDNN computes as one.
  std::vector<std::shared_ptr<const Graph>> subgraphs;

  // An attribute as the file has it, or what it is when it is left out.
  std::string attribute(const std::string& key, const std::string& otherwise) const;
};

struct Graph {
  std::string name;  // Of the file, for messages.
  std::string json;
  std::vector<Node> nodes;  // In the order of the file, which is a topological one.
  std::vector<Reference> outputs;
  bool numpy = false;  // Made under NumPy's rules for shapes, where there are scalars and extents of 0; run so, too.
};

// Which operators a graph may hold: all that compute tensors from tensors, or of them those that bundles have.
// Operators that call back, read files, run code or take pointers are in neither
// (vqvae_gluon/artifacts/operators.json).
enum class Operators { kAll, kOfBundles };

// Whether MXNet's registry has an operator of this name.
bool is_operator(const std::string& name);

// Let graphs hold this operator, too, in this process from now on.
void trust_operator(const std::string& name);

// Check a file's bytes: every reference points at an earlier node, no operator is refused, numbers in attributes are
// such that MXNet may be asked for them, and reading it takes no more memory than three times its size and 64 MiB. The
// name is for messages. Throws InputError.
Graph parse_graph(const Bytes& bytes, const std::string& name, Operators which = Operators::kAll);

}  // namespace vqvae

#endif  // VQVAE_GRAPH_HPP_
