#include "vqvae/graph.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "document.hpp"
#include "operators.hpp"
#include "refusal.hpp"
#include "vqvae/error.hpp"

namespace vqvae {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxNodes = 1000000;

class Unsound : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class RefusedOperator : public std::runtime_error {
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
// theirs must be unique.
void make_unique(Json* row, const std::set<std::string>& taken, std::map<std::string, std::size_t>* calls) {
  const auto name = row->at("name").get<std::string>();
  if (taken.count(name) == 0) return;
  if (row->at("op") == "null") throw Unsound("two nodes have the name of the variable " + name);
  std::size_t& number = calls->emplace(name, 1).first->second;
  do ++number;
  while (taken.count(name + "~" + std::to_string(number)) > 0);
  (*row)["name"] = name + "~" + std::to_string(number);
}

// References to nodes before this place.
std::vector<Reference> references(const Json& list, std::size_t limit) {
  std::vector<Reference> result;
  for (const Json& reference : list) {
    check_reference(reference, limit);
    result.emplace_back(reference[0].get<std::size_t>(), reference[1].get<std::size_t>());
  }
  return result;
}

// MXNet takes the numbers of types and storages as they come.
void check_attribute(const std::string& name, const Node& node) {
  const std::string& value = node.attributes.at(name);
  const bool type = name == "__dtype__" && (value.size() != 1 || !is_dtype(value[0] - '0'));
  const bool storage = name == "__storage_type__" && value != "0";
  if (type || storage) throw Unsound(name + " of " + node.name + " is " + value);
}

Graph read_subgraph(const Json& document, Operators which);

// NOLINTBEGIN(misc-no-recursion): documents are bounded in depth.

// A node at a place of its graph.
Node read_node(const Json& row, std::size_t place, Operators which) {
  if (!row.at("inputs").is_array()) throw Unsound("a node has no list of inputs");
  Node node;
  node.name = row.at("name").get<std::string>();
  node.op = row.at("op").get<std::string>();
  node.inputs = references(row.at("inputs"), place);
  for (const char* key : {"param", "attr", "attrs"}) {  // The first two in files of old versions.
    if (!row.contains(key)) continue;
    if (!row.at(key).is_object()) throw Unsound(std::string("a node's ") + key + " is no object");
    for (const auto& [name, value] : row.at(key).items()) {
      if (!value.is_string()) throw Unsound("the attribute " + name + " of " + node.name + " is no text");
      const auto text = value.get<std::string>();
      if (node.attributes.emplace(name, text).first->second != text) {
        throw Unsound("the attribute " + name + " of " + node.name + " has two values");
      }
      check_attribute(name, node);
    }
  }
  if (node.op == "null" && !node.inputs.empty()) throw Unsound("the variable " + node.name + " has inputs");
  if (row.contains("subgraphs")) {
    for (const Json& subgraph : row.at("subgraphs")) {
      node.subgraphs.push_back(std::make_shared<const Graph>(read_subgraph(subgraph, which)));
    }
  }
  if (const std::string why = operator_objection(node.op, which); !why.empty()) {
    const std::string type = node.attribute("op_type", "");  // The name of an operator that is written in Python.
    throw RefusedOperator(node.name + (type.empty() ? "" : " (" + type + ")") + ": " + why);
  }
  const std::size_t subgraphs = node.subgraphs.size();
  if (subgraphs > 0 && !takes_subgraphs(node.op)) throw Unsound(node.name + ": " + node.op + " takes no subgraphs");
  if (const std::string why = attribute_objection(node.attributes, node.inputs.size(), subgraphs); !why.empty()) {
    throw Unsound(node.name + ": " + why);
  }
  return node;
}

const Json& rows_of(const Json& document) {
  const Json& rows = document.at("nodes");
  if (!rows.is_array() || rows.empty() || rows.size() > kMaxNodes) {
    throw Unsound("its list of nodes is empty or too long");
  }
  return rows;
}

// What a graph says beside its nodes. `variables` are their places. Returns its outputs.
std::vector<Reference> check_ends(const Json& document, const std::vector<std::size_t>& variables, std::size_t nodes) {
  std::vector<std::size_t> arguments;
  for (const Json& argument : document.at("arg_nodes")) {
    if (!argument.is_number_unsigned()) throw Unsound("arg_nodes are not its variables");
    arguments.push_back(argument.get<std::size_t>());
  }
  std::sort(arguments.begin(), arguments.end());
  if (arguments != variables) throw Unsound("arg_nodes are not its variables");
  if (!document.at("heads").is_array() || document.at("heads").empty()) throw Unsound("it has no output");
  return references(document.at("heads"), nodes);
}

// The graph within a node, whose variables are bound by their places.
Graph read_subgraph(const Json& document, Operators which) {
  const Json& rows = rows_of(document);
  Graph graph;
  std::vector<std::size_t> variables;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    graph.nodes.push_back(read_node(rows[i], i, which));
    if (graph.nodes.back().op == "null") variables.push_back(i);
  }
  graph.outputs = check_ends(document, variables, rows.size());
  return graph;
}

// NOLINTEND(misc-no-recursion)

void check_nodes(Json* document, Graph* graph, Operators which) {
  std::map<std::string, std::size_t> calls;
  std::set<std::string> taken;
  rows_of(*document);
  Json& rows = document->at("nodes");
  std::vector<std::size_t> variables;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    make_unique(&rows[i], taken, &calls);
    Node node = read_node(rows[i], i, which);
    if (node.op == "null") variables.push_back(i);
    taken.insert(node.name);
    graph->nodes.push_back(std::move(node));
  }
  graph->outputs = check_ends(*document, variables, rows.size());
}

bool is_numpy(const Json& document) {
  const auto attributes = document.find("attrs");
  if (attributes == document.end() || !attributes->is_object()) return false;
  const auto found = attributes->find("is_np_shape");
  // For a thread, or for all.
  return found != attributes->end() && found->is_array() && found->size() == 2 && found->at(1).is_number_integer() &&
         (found->at(1) == 1 || found->at(1) == 2);
}

}  // namespace

std::string Node::attribute(const std::string& key, const std::string& otherwise) const {
  const auto found = attributes.find(key);
  return found == attributes.end() ? otherwise : found->second;
}

Graph parse_graph(const Bytes& bytes, const std::string& name, Operators which) {
  Graph graph{name, std::string(bytes.begin(), bytes.end()), {}, {}, false};
  try {
    Json document = parse_document(bytes, name, "give the -symbol.json that net.export(prefix) writes");
    check_nodes(&document, &graph, which);
    graph.json = document.dump();  // Nothing in it is said twice, of which MXNet might believe the other.
    graph.numpy = is_numpy(document);
  } catch (const Json::exception& error) {
    throw InputError(name, std::string("is not a sound MXNet graph (") + error.what() + "); " + kSymbolFile);
  } catch (const Unsound& error) {
    throw InputError(name, std::string("is not a sound MXNet graph (") + error.what() + "); " + kSymbolFile);
  } catch (const RefusedOperator& error) {
    throw InputError(name, graph_refusal(error.what()));
  }
  return graph;
}

}  // namespace vqvae
