// MXNet symbol files, proved sound before MXNet sees them: the rules of vqvae_gluon/artifacts/graph.py.
#ifndef VQVAE_GRAPH_HPP_
#define VQVAE_GRAPH_HPP_

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "vqvae/tensor.hpp"

namespace vqvae {

struct Graph {
  std::string name;  // Of the file, for messages.
  std::string json;
  std::map<std::string, std::string> operators;  // Of every node, by the node's name; "null" for a variable.
  std::vector<std::pair<std::string, std::size_t>> outputs;  // Of the graph: name of the node, number of its output.
};

// Check a file's bytes: every reference points at an earlier node. The name is for messages. Throws InputError.
Graph parse_graph(const Bytes& bytes, const std::string& name);

}  // namespace vqvae

#endif  // VQVAE_GRAPH_HPP_
