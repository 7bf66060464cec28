// -symbol.json files: every reference points at a node that comes before, the JSON that is handed on is sound, too, and
// what is found out about a graph can be found out about any.
#include "vqvae/graph.hpp"

#include <set>
#include <string>

#include "target.hpp"
#include "vqvae/fusion.hpp"
#include "vqvae/reach.hpp"

namespace {

bool same(const vqvae::Node& a, const vqvae::Node& b) {
  return a.name == b.name && a.op == b.op && a.attributes == b.attributes && a.inputs == b.inputs;
}

}  // namespace

void check(const vqvae::Bytes& bytes) {
  const vqvae::Graph graph = vqvae::parse_graph(bytes, "fuzz");
  require(!graph.outputs.empty(), "there is an output");
  for (const auto& [node, output] : graph.outputs) {
    require(node < graph.nodes.size(), "an output is a node of the graph");
  }
  std::set<std::string> names;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    require(names.insert(graph.nodes[i].name).second, "names are unique");
    for (const auto& [node, output] : graph.nodes[i].inputs) require(node < i, "an input is an earlier node");
  }
  const vqvae::Graph again = vqvae::parse_graph(vqvae::Bytes(graph.json.begin(), graph.json.end()), "fuzz");
  require(again.nodes.size() == graph.nodes.size() && again.outputs == graph.outputs, "the graph is read again");
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    require(same(graph.nodes[i], again.nodes[i]), "a node is read again as it was");
  }
  for (const std::string& node : vqvae::misfused(graph)) {
    require(names.count(node) == 1, "a node that is fused wrongly is one of the graph");
  }
  for (const auto& [input, side] : {std::pair<const char*, std::size_t>{"data", 2}, {"codes", 1}}) {
    const auto reach = vqvae::find_reach(graph, input, side);
    require(!reach || (reach->up >= 1 && reach->down >= 1 && reach->before >= 0 && reach->after >= 0),
            "the reach is a reach");
  }
}

std::size_t budget(const vqvae::Bytes& bytes) { return parser_budget(bytes); }

void mend(std::uint8_t* /*data*/, std::size_t /*size*/) {}
