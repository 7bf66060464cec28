// -symbol.json files: every output is a node that there is, and the JSON that is handed on is sound, too.
#include "vqvae/graph.hpp"

#include "target.hpp"
#include "vqvae/fusion.hpp"

void check(const vqvae::Bytes& bytes) {
  const vqvae::Graph graph = vqvae::parse_graph(bytes, "fuzz");
  require(!graph.outputs.empty(), "there is an output");
  for (const auto& [name, output] : graph.outputs) {
    require(graph.operators.count(name) == 1, "an output is a node of the graph");
  }
  const vqvae::Graph again = vqvae::parse_graph(vqvae::Bytes(graph.json.begin(), graph.json.end()), "fuzz");
  require(again.operators == graph.operators && again.outputs == graph.outputs, "the graph is read again as it was");
  for (const std::string& node : vqvae::misfused(graph)) {
    require(graph.operators.count(node) == 1, "a node that is fused wrongly is one of the graph");
  }
}

std::size_t budget(const vqvae::Bytes& bytes) { return parser_budget(bytes); }

void mend(std::uint8_t* /*data*/, std::size_t /*size*/) {}
