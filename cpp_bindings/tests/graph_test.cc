#include "vqvae/graph.hpp"

#include <doctest/doctest.h>

#include "support.hpp"
#include "vqvae/error.hpp"

namespace {

constexpr const char* kGraph = R"({"nodes": [{"op": "null", "name": "data", "inputs": []},
  {"op": "tanh", "name": "out", "inputs": [[0, 0, 0]]}], "arg_nodes": [0], "heads": [[1, 0, 0]]})";

// The graph with one piece of its text replaced.
vqvae::Bytes with(const std::string& from, const std::string& to) {
  std::string text = kGraph;
  text.replace(text.find(from), from.size(), to);
  return to_bytes(text);
}

void check_rejected(const vqvae::Bytes& bytes) { CHECK_THROWS_AS(vqvae::parse_graph(bytes, "x"), vqvae::InputError); }

}  // namespace

TEST_CASE("a sound graph is read") {
  const vqvae::Graph graph = vqvae::parse_graph(to_bytes(kGraph), "x");
  REQUIRE(graph.nodes.size() == 2);
  CHECK(graph.nodes[0].op == "null");
  CHECK(graph.nodes[1].name == "out");
  CHECK(graph.nodes[1].inputs == std::vector<vqvae::Reference>{{0, 0}});
  CHECK(graph.outputs == std::vector<vqvae::Reference>{{1, 0}});
}

TEST_CASE("the pretrained graphs are sound") {
  for (const char* name : {VQVAE_PRETRAINED "/encoder-symbol.json", VQVAE_PRETRAINED "/decoder-symbol.json"}) {
    CHECK_NOTHROW(vqvae::parse_graph(vqvae::read_file(name, 1 << 24), name));
  }
}

TEST_CASE("references to nodes that are not there, or not yet, are rejected") {
  check_rejected(with("[[0, 0, 0]]", "[[1, 0, 0]]"));
  check_rejected(with("[[0, 0, 0]]", "[[50, 0, 0]]"));
  check_rejected(with("[[0, 0, 0]]", "[[-1, 0, 0]]"));
  check_rejected(with("[[0, 0, 0]]", "[[0.5, 0, 0]]"));
  check_rejected(with("[[0, 0, 0]]", "[[]]"));
  check_rejected(with("[[0, 0, 0]]", "7"));
  check_rejected(with("[[1, 0, 0]]", "[[50, 0, 0]]"));
  check_rejected(with("[[1, 0, 0]]", "[]"));
}

TEST_CASE("files of old versions have other words for attributes, and short references") {
  for (const std::string key : {"attrs", "attr", "param"}) {
    CHECK_NOTHROW(vqvae::parse_graph(with(R"("op": "tanh",)", R"("op": "tanh", ")" + key + R"(": {"a": "b"},)"), "x"));
    check_rejected(with(R"("op": "tanh",)", R"("op": "tanh", ")" + key + R"(": ["a"],)"));
  }
  CHECK_NOTHROW(vqvae::parse_graph(with("[[0, 0, 0]]", "[[0, 0]]"), "x"));
  CHECK_NOTHROW(vqvae::parse_graph(with("[[1, 0, 0]]", "[[1, 0]]"), "x"));
}

TEST_CASE("attributes are text") {
  const vqvae::Bytes bytes = with(R"("op": "tanh",)", R"("op": "tanh", "attrs": {"a": "b"},)");
  const vqvae::Node node = vqvae::parse_graph(bytes, "x").nodes[1];
  CHECK(node.attribute("a", "c") == "b");
  CHECK(node.attribute("b", "c") == "c");
  check_rejected(with(R"("op": "tanh",)", R"("op": "tanh", "attrs": {"a": 1},)"));
}

TEST_CASE("a file of which a reader would make much more than its size is rejected before it is read") {
  std::string text = "[";
  for (int i = 0; i < 1000000; ++i) text += "{},";
  CHECK_THROWS_WITH_AS(vqvae::parse_graph(to_bytes(text + "0]"), "x"), doctest::Contains("too many small values"),
                       vqvae::InputError);
}

TEST_CASE("variables must be told rightly, their names must be unique") {
  check_rejected(with(R"("arg_nodes": [0])", R"("arg_nodes": [])"));
  check_rejected(with("\"arg_nodes\": [0]", "\"arg_nodes\": [1]"));
  check_rejected(to_bytes(R"({"nodes": [{"op": "null", "name": "data", "inputs": []},
    {"op": "null", "name": "data", "inputs": []}, {"op": "_plus", "name": "out", "inputs": [[0, 0], [1, 0]]}],
    "arg_nodes": [0, 1], "heads": [[2, 0]]})"));
  check_rejected(with("\"tanh\"", "\"null\""));
}

TEST_CASE("the second call of one block is told apart") {
  const vqvae::Graph graph = vqvae::parse_graph(to_bytes(R"({"nodes": [{"op": "null", "name": "data", "inputs": []},
    {"op": "tanh", "name": "layer", "inputs": [[0, 0]]}, {"op": "tanh", "name": "layer", "inputs": [[1, 0]]}],
    "arg_nodes": [0], "heads": [[2, 0]]})"),
                                                "x");
  CHECK(graph.nodes[1].name == "layer");
  CHECK(graph.nodes[2].name == "layer~2");
  CHECK(graph.json.find("layer~2") != std::string::npos);
}

TEST_CASE("what is no graph is rejected") {
  check_rejected({});
  check_rejected(to_bytes("{}"));
  check_rejected(to_bytes("[1, 2"));
  check_rejected(to_bytes(R"({"nodes": [], "arg_nodes": [], "heads": []})"));
  check_rejected(with("\"name\": \"out\"", "\"name\": 3"));
}
