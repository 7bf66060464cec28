#include "vqvae/graph.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxNodes = 1000000;

class Unsound : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A reference is [node, output, version], the version left out in old files.
void check_reference(const Json& reference, std::size_t limit) {
  const bool whole =
      reference.is_array() && (reference.size() == 2 || reference.size() == 3) &&
      std::all_of(reference.begin(), reference.end(), [](const Json& v) { return v.is_number_unsigned(); });
  if (!whole) throw Unsound("a reference is no [node, output, version]");
  if (reference[0].get<std::uint64_t>() >= limit) {
    throw Unsound("a reference to node " + reference[0].dump() + " where there are " + std::to_string(limit));
  }
}

// Gluon gives two calls of one block one name; the second is told apart as "<name>~2". Variables are bound by name, so
// theirs must be unique. Returns whether the node was renamed.
bool make_unique(Json* node, const std::map<std::string, std::string>& taken,
                 std::map<std::string, std::size_t>* calls) {
  const auto name = node->at("name").get<std::string>();
  if (taken.count(name) == 0) return false;
  if (node->at("op") == "null") throw Unsound("two nodes have the name of the variable " + name);
  std::size_t& number = calls->emplace(name, 1).first->second;
  do ++number;
  while (taken.count(name + "~" + std::to_string(number)) > 0);
  (*node)["name"] = name + "~" + std::to_string(number);
  return true;
}

// Returns whether nodes were renamed.
bool check_nodes(Json* document, Graph* graph) {
  bool renamed = false;
  std::map<std::string, std::size_t> calls;
  Json& nodes = document->at("nodes");
  if (!nodes.is_array() || nodes.empty() || nodes.size() > kMaxNodes) {
    throw Unsound("its list of nodes is empty or too long");
  }
  std::vector<std::size_t> variables;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!nodes[i].at("inputs").is_array()) throw Unsound("a node has no list of inputs");
    for (const Json& reference : nodes[i].at("inputs")) check_reference(reference, i);
    for (const char* key : {"attrs", "attr", "param"}) {  // The last two in files of old versions.
      if (nodes[i].contains(key) && !nodes[i].at(key).is_object()) {
        throw Unsound(std::string("a node's ") + key + " is no object");
      }
    }
    const auto op = nodes[i].at("op").get<std::string>();
    renamed = make_unique(&nodes[i], graph->operators, &calls) || renamed;
    const auto name = nodes[i].at("name").get<std::string>();
    if (op == "null") {
      if (!nodes[i].at("inputs").empty()) throw Unsound("the variable " + name + " has inputs");
      variables.push_back(i);
    }
    graph->operators.emplace(name, op);
  }
  auto arguments = document->at("arg_nodes").get<std::vector<std::size_t>>();
  std::sort(arguments.begin(), arguments.end());
  if (arguments != variables) throw Unsound("arg_nodes are not its variables");
  if (!document->at("heads").is_array() || document->at("heads").empty()) throw Unsound("it has no output");
  for (const Json& reference : document->at("heads")) {
    check_reference(reference, nodes.size());
    graph->outputs.emplace_back(nodes[reference[0].get<std::size_t>()].at("name").get<std::string>(),
                                reference[1].get<std::size_t>());
  }
  return renamed;
}

}  // namespace

Graph parse_graph(const Bytes& bytes, const std::string& name) {
  Graph graph{name, std::string(bytes.begin(), bytes.end()), {}, {}};
  try {
    Json document = Json::parse(graph.json);
    if (check_nodes(&document, &graph)) graph.json = document.dump();
  } catch (const Json::parse_error&) {
    throw InputError(name, "is not JSON; export the network again");
  } catch (const Json::exception& error) {
    throw InputError(name, std::string("is not a sound MXNet graph (") + error.what() + "); export the network again");
  } catch (const Unsound& error) {
    throw InputError(name, std::string("is not a sound MXNet graph (") + error.what() + "); export the network again");
  }
  return graph;
}

}  // namespace vqvae
