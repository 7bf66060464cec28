#include "vqvae/fusion.hpp"

#include <algorithm>
#include <cstdlib>
#include <locale>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "mxnet.hpp"

namespace vqvae {
namespace {

using Indices = std::vector<std::size_t>;

struct Nodes {
  std::vector<Node> list;  // In the order of the file; indices are those of the file.
  std::vector<Reference> heads;
};

bool is_one_of(const std::string& text, const std::set<std::string>& names) { return names.count(text) > 0; }

std::string operator_name(const std::string& op) {
  if (is_one_of(op, {"_plus", "_Plus", "_add"})) return "elemwise_add";
  return op == "identity" ? "_copy" : op;
}

Nodes read_nodes(const Graph& graph) {
  Nodes nodes{graph.nodes, graph.outputs};
  for (Node& node : nodes.list) node.op = operator_name(node.op);
  return nodes;
}

// How many numbers a tuple holds, such as the kernel "(3, 3)".
std::size_t extents(const std::string& text) {
  std::size_t count = 0;
  bool within = false;
  for (const char c : text) {
    const bool part = std::string("()[], ").find(c) == std::string::npos;
    if (part && !within) ++count;
    within = part;
  }
  return count;
}

// Whatever the program's locale takes for a decimal point.
bool equals(const std::string& text, double number) {
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  double value = 0;
  return in >> value && in.peek() == std::istringstream::traits_type::eof() && value == number;
}

bool is_activation(const Node& node, const std::set<std::string>& leaky) {
  const std::string kind = node.attribute("act_type", "leaky");
  return (node.op == "Activation" && is_one_of(kind, {"relu", "sigmoid", "softrelu", "tanh"})) ||
         (node.op == "LeakyReLU" && is_one_of(kind, leaky)) ||
         (node.op == "clip" && equals(node.attribute("a_min", ""), 0));
}

bool fuses_with_convolution(const Node& last, const Node& node) {
  if (node.op == "BatchNorm") return last.op == "Convolution";
  if (node.op == "elemwise_add") return is_one_of(last.op, {"Convolution", "BatchNorm"});
  return is_one_of(last.op, {"Convolution", "BatchNorm", "elemwise_add"}) && is_activation(node, {"leaky", "gelu"});
}

bool fuses_with_dense(const Node& node) {
  return is_one_of(node.op, {"square", "sqrt", "exp", "abs"}) || is_activation(node, {"leaky", "elu", "gelu"});
}

// The nodes that the outputs need, depth first: MXNet's own order, whatever that of the file is.
Indices search_order(const Nodes& nodes) {
  Indices order;
  std::vector<bool> found(nodes.list.size());
  for (const Reference& head : nodes.heads) {
    std::vector<std::pair<std::size_t, std::size_t>> stack;  // A node, and which of its inputs is next.
    if (!found[head.first]) stack.emplace_back(head.first, 0);
    while (!stack.empty()) {
      const std::size_t node = stack.back().first;
      const std::vector<Reference>& inputs = nodes.list[node].inputs;
      std::size_t& next = stack.back().second;
      while (next < inputs.size() && found[inputs[next].first]) ++next;
      if (next < inputs.size()) {
        stack.emplace_back(inputs[next].first, 0);
      } else {
        found[node] = true;
        order.push_back(node);
        stack.pop_back();
      }
    }
  }
  return order;
}

// Take out Dropout and copies behind operators, as the executor does before it fuses. Gives those that it fails at.
std::set<std::size_t> remove_identities(Nodes* nodes) {
  std::set<std::size_t> merged;
  std::set<std::size_t> unbound;
  std::map<std::size_t, Reference> instead;
  const auto real = [&](Reference* output) {
    const auto found = instead.find(output->first);
    if (found != instead.end()) *output = found->second;
  };
  for (const std::size_t index : search_order(*nodes)) {
    Node& node = nodes->list[index];
    const std::vector<Reference> original = node.inputs;
    for (Reference& input : node.inputs) real(&input);
    const bool dropout = node.op == "Dropout" && node.attribute("mode", "training") == "training";
    if ((!dropout && node.op != "_copy") || original.empty()) continue;
    const std::size_t behind = original[0].first;
    if (nodes->list[behind].op == "null" || merged.count(behind) > 0) continue;
    merged.insert({behind, index});
    instead.emplace(index, node.inputs[0]);
    if (is_one_of(nodes->list[behind].op, {"Dropout", "_copy"})) unbound.insert(index);
  }
  for (Reference& head : nodes->heads) real(&head);
  return unbound;
}

// MXNet's search for chains.
class Search {
 public:
  explicit Search(const Nodes& nodes)
      : nodes_(nodes),
        order_(search_order(nodes)),
        place_(nodes.list.size()),
        takers_(nodes.list.size()),
        fused_(nodes.list.size()) {
    for (std::size_t place = 0; place < order_.size(); ++place) {
      place_[order_[place]] = place;
      for (const Reference& input : at(order_[place]).inputs) {
        Indices& takers = takers_[input.first];
        if (takers.empty() || takers.back() != order_[place]) takers.push_back(order_[place]);
      }
    }
  }

  // The nodes that are given another tensor than they take.
  std::set<std::size_t> run() {
    for (const std::size_t node : order_) {
      const std::size_t sides = extents(at(node).attribute("kernel", ""));
      if (at(node).op == "Convolution" && (sides == 2 || sides == 3)) fuse_convolution(node);
    }
    for (const std::size_t node : order_) {
      if (at(node).op == "FullyConnected") fuse_dense(node);
    }
    return wrong_;
  }

 private:
  const Node& at(std::size_t index) const { return nodes_.list[index]; }

  void fuse_convolution(std::size_t start) {
    std::set<std::size_t> crossed_off;
    Indices reached;
    Indices chain = grow(start, crossed_off, &reached);
    for (auto last = circle(reached); last; last = circle(reached)) {
      crossed_off.insert(*last);
      chain = grow(start, crossed_off, &reached);
    }
    for (const std::size_t node : chain) fused_[node] = true;
    judge(chain);
  }

  void fuse_dense(std::size_t start) {
    // From this number of takers on, the order in which MXNet looks at them depends on where they lie in memory.
    constexpr std::size_t kAnyOrder = 3;
    const Indices& takers = takers_[start];
    for (const std::size_t taker : takers) {
      const bool first = taker == takers.back() || takers.size() >= kAnyOrder;
      if (first && fuses_with_dense(at(taker))) judge({start, taker});
    }
  }

  // The chain behind a convolution, and all nodes that the search took for a part of it on the way.
  Indices grow(std::size_t start, const std::set<std::size_t>& crossed_off, Indices* reached) const {
    Indices chain = {start};
    *reached = chain;
    while (true) {
      Indices takers;
      for (const std::size_t taker : takers_[chain.back()]) {
        if (!fused_[taker] && crossed_off.count(taker) == 0) takers.push_back(taker);
      }
      // Of several takers the last one comes first.
      if (takers.empty() || !fuses_with_convolution(at(chain.back()), at(takers.back()))) return chain;
      reached->push_back(takers.back());
      if (takers.size() > 1) return chain;
      chain.push_back(takers.back());
    }
  }

  // The last node of a chain that closes a circle through nodes outside it.
  std::optional<std::size_t> circle(const Indices& reached) const {
    const std::set<std::size_t> within(reached.begin(), reached.end());
    const auto outside = [&](std::size_t node) { return !fused_[node] && within.count(node) == 0; };
    std::map<std::size_t, std::size_t> leaving;  // Who takes something of the chain: of whom.
    std::map<std::size_t, std::size_t> entering;
    std::size_t earliest = order_.size();
    for (const std::size_t node : reached) {
      for (const std::size_t taker : takers_[node]) {
        if (!outside(taker)) continue;
        leaving[taker] = node;
        earliest = std::min(earliest, place_[taker]);
      }
      for (const Reference& input : at(node).inputs) {
        if (outside(input.first)) entering[input.first] = node;
      }
    }
    std::optional<std::size_t> last;
    const auto keep = [&](std::size_t node) {
      if (!last || place_[node] > place_[*last]) last = node;
    };
    for (const auto& [name, end] : entering) {
      std::set<std::size_t> met = {name};
      Indices stack = {name};
      while (!stack.empty()) {
        const std::size_t current = stack.back();
        stack.pop_back();
        if (place_[current] < earliest) continue;
        if (const auto found = leaving.find(current); found != leaving.end()) {
          keep(end);
          keep(found->second);
        }
        for (const Reference& input : at(current).inputs) {
          if (within.count(input.first) == 0 && met.insert(input.first).second) stack.push_back(input.first);
        }
      }
    }
    return last;
  }

  // Note who takes what the fused operator does not give.
  void judge(const Indices& chain) {
    for (std::size_t i = 0; i + 1 < chain.size(); ++i) {
      const std::vector<Reference>& inputs = at(chain[i + 1]).inputs;
      const bool sum = at(chain[i + 1]).op == "elemwise_add";
      std::size_t links = 0;
      for (std::size_t place = 0; place < inputs.size(); ++place) {
        if (inputs[place].first != chain[i]) continue;
        links += inputs[place].second != 0 || (place != 0 && !sum) ? 2 : 1;
      }
      if (links != 1) wrong_.insert(chain[i + 1]);
      for (const std::size_t taker : takers_[chain[i]]) {
        if (std::find(chain.begin(), chain.end(), taker) == chain.end()) wrong_.insert(taker);
      }
      for (const Reference& head : nodes_.heads) {
        if (head.first == chain[i]) wrong_.insert(chain[i]);
      }
    }
    // Of the last one the first output alone is left.
    const auto hidden = [&](const Reference& output) { return output.first == chain.back() && output.second != 0; };
    if (std::any_of(nodes_.heads.begin(), nodes_.heads.end(), hidden)) wrong_.insert(chain.back());
    for (const std::size_t taker : takers_[chain.back()]) {
      const std::vector<Reference>& inputs = at(taker).inputs;
      if (std::any_of(inputs.begin(), inputs.end(), hidden)) wrong_.insert(taker);
    }
    // The statistics of a BatchNorm are merged into the kernel, whose first axis is that of the channels.
    const double from_behind = -1.0 - static_cast<double>(extents(at(chain[0]).attribute("kernel", "")));
    for (const std::size_t node : chain) {
      const std::string axis = at(node).attribute("axis", "1");
      if (at(node).op == "BatchNorm" && !equals(axis, 1) && !equals(axis, from_behind)) wrong_.insert(node);
    }
  }

  const Nodes& nodes_;
  Indices order_;
  Indices place_;
  std::vector<Indices> takers_;
  std::vector<bool> fused_;  // Nodes that belong to a chain.
  std::set<std::size_t> wrong_;
};

}  // namespace

bool fusion_is_chosen() {
  const mxnet::SteadyEnvironment environment;
  const char* value = std::getenv(kFusionVariable);
  return value != nullptr && *value != '\0';
}

std::vector<std::string> misfused(const Graph& graph) {
  Nodes nodes = read_nodes(graph);
  std::set<std::size_t> wrong = remove_identities(&nodes);
  wrong.merge(Search(nodes).run());
  std::vector<std::string> names;
  names.reserve(wrong.size());
  for (const std::size_t node : wrong) names.push_back(nodes.list[node].name);
  return names;
}

}  // namespace vqvae
