// Which operators a graph may hold, and which numbers: parity_tests/test_operators.py has the same of Python.
#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "support.hpp"
#include "vqvae/error.hpp"
#include "vqvae/graph.hpp"

namespace {

using Json = nlohmann::json;

// A graph of one node of this operator.
vqvae::Bytes graph_of(const std::string& op, const Json& attributes = Json::object(), const Json& subgraphs = {}) {
  Json node = {{"op", op}, {"name", "node"}, {"attrs", attributes}, {"inputs", {{0, 0, 0}}}};
  if (!subgraphs.empty()) node["subgraphs"] = subgraphs;
  const Json variable = {{"op", "null"}, {"name", "data"}, {"inputs", Json::array()}};
  const Json graph = {{"nodes", {variable, node}}, {"arg_nodes", {0}}, {"heads", {{1, 0, 0}}}};
  return to_bytes(graph.dump());
}

std::string refusal(const vqvae::Bytes& bytes, vqvae::Operators which = vqvae::Operators::kAll) {
  try {
    vqvae::parse_graph(bytes, "x", which);
    return "";
  } catch (const vqvae::InputError& error) {
    return error.what();
  }
}

bool begins(const std::string& text, const std::string& begin) { return text.rfind(begin, 0) == 0; }

}  // namespace

TEST_CASE("no forbidden operator is read, and no other is refused") {
  std::ifstream file(VQVAE_OPERATORS);
  const Json table = Json::parse(file);
  for (const Json& row : table.at("refused")) {
    for (const Json& name : row.at("operators")) {
      const auto op = name.get<std::string>();
      for (const vqvae::Operators which : {vqvae::Operators::kAll, vqvae::Operators::kOfBundles}) {
        CHECK(begins(refusal(graph_of(op), which), "x: node: the operator " + op + " is refused: it "));
      }
    }
  }
  for (const Json& name : table.at("others")) {
    const auto op = name.get<std::string>();
    CHECK(refusal(graph_of(op)).empty());
    CHECK(begins(refusal(graph_of(op), vqvae::Operators::kOfBundles), "x: node: the operator " + op + " is refused: "));
  }
  for (const Json& name : table.at("bundles")) {
    CHECK(refusal(graph_of(name.get<std::string>()), vqvae::Operators::kOfBundles).empty());
  }
  CHECK(begins(refusal(graph_of("Confusion")), "x: node: there is no operator Confusion; "));
}

TEST_CASE("subgraphs are read, too") {
  Json inner = Json::parse(graph_of("_Native", {{"info", "1"}}));
  CHECK(refusal(graph_of("_foreach", Json::object(), Json::array({inner}))).find("_Native is refused") !=
        std::string::npos);
  inner["nodes"][1]["op"] = "tanh";
  CHECK(refusal(graph_of("_foreach", Json::object(), Json::array({inner}))).empty());
  inner["nodes"][1]["inputs"][0][0] = 7;
  CHECK(refusal(graph_of("_foreach", Json::object(), Json::array({inner}))).find("node 7") != std::string::npos);
}

TEST_CASE("an attribute has one value, and MXNet reads the one that was looked at") {
  const vqvae::Bytes bytes = graph_of("SliceChannel", {{"num_outputs", "1"}});
  const std::string text(bytes.begin(), bytes.end());
  const auto with = [&text](const std::string& more) {
    return std::string(text).replace(text.find("\"attrs\""), 0, more + ", ");
  };
  const std::string nine = R"({"num_outputs": "9"})";
  CHECK(refusal(to_bytes(with("\"attr\": " + nine))).find("num_outputs of node has two values") != std::string::npos);
  const vqvae::Graph graph = vqvae::parse_graph(to_bytes(with("\"attrs\": " + nine)), "x");
  CHECK(graph.json.find('9') == std::string::npos);
}

TEST_CASE("an operator that is trusted is read") {
  CHECK_FALSE(refusal(graph_of("_contrib_edge_id")).empty());
  vqvae::trust_operator("_contrib_edge_id");
  CHECK(refusal(graph_of("_contrib_edge_id"), vqvae::Operators::kOfBundles).empty());
}

TEST_CASE("numbers in attributes are bounded") {
  const auto is_read = [](const std::string& name, const std::string& text) {
    return refusal(graph_of("tanh", {{name, text}})).empty();
  };
  for (const char* text : {"1", "2L", "+3", "4.0", "1e3"}) CHECK(is_read("num_group", text));
  for (const char* text : {"0", "-1", "2147483648", "nan", "inf", "x", "1e10", "1e400", "0x10", "1_0", "-", "."}) {
    CHECK_FALSE(is_read("num_group", text));
  }
  for (const char* text : {"(3, 3)", "[3,3]", "()", "(3L, 3L)"}) CHECK(is_read("kernel", text));
  for (const char* text : {"(-1, 3)", "(65536, 65536)", "(3, x)"}) CHECK_FALSE(is_read("kernel", text));
  CHECK(is_read("num_args", "1"));
  CHECK_FALSE(is_read("num_args", "2"));
  CHECK(is_read("in_data_locs", "[0]"));
  CHECK_FALSE(is_read("in_data_locs", "[1]"));
  for (const char* text : {"None", "-1", "(0, 1)"}) CHECK(is_read("axis", text));
  for (const char* text : {"0", "(1, 0)", "1e-400"}) CHECK_FALSE(is_read("step", text));
  for (const char* text : {"(0, -1)", "(-4, 2, -2)"}) CHECK(is_read("shape", text));
  CHECK_FALSE(is_read("__shape__", "(65536, 65536)"));
  for (const char* text : {"inf", "-inf", "nan", "1e400"}) CHECK(is_read("scalar", text));
  CHECK_FALSE(is_read("pad", std::string(100, '9')));
}
