#include "vqvae/reach.hpp"

#include <doctest/doctest.h>

#include <string>

#include "support.hpp"

namespace {

vqvae::Graph graph_of(const std::string& nodes, int last) {
  const std::string text = R"({"nodes": [{"op": "null", "name": "data", "inputs": []}, {"op": "null", "name": "w",
    "inputs": []}, )" + nodes +
                           R"(], "arg_nodes": [0, 1], "heads": [[)" + std::to_string(last) + ", 0]]}";
  return vqvae::parse_graph(to_bytes(text), "x");
}

std::string node(const std::string& op, const std::string& name, const std::string& inputs,
                 const std::string& attributes = "") {
  return R"({"op": ")" + op + R"(", "name": ")" + name + R"(", "inputs": )" + inputs + R"(, "attrs": {)" + attributes +
         "}}";
}

// The reach of images; it must have one.
vqvae::Reach reach_of(const vqvae::Graph& graph, const char* input = "data", std::size_t first_side = 2) {
  const auto reach = vqvae::find_reach(graph, input, first_side);
  REQUIRE(reach.has_value());
  return reach.value_or(vqvae::Reach{});
}

vqvae::Reach pretrained(const char* stage, const char* input, std::size_t first_side) {
  const std::string path = std::string(VQVAE_PRETRAINED) + "/" + stage + "-symbol.json";
  return reach_of(vqvae::parse_graph(vqvae::read_file(path, 1 << 20), path), input, first_side);
}

}  // namespace

TEST_CASE("the reach of the pretrained graphs") {
  // Two 3x3 convolutions of stride 2: one row before, and one of the next finer grid.
  const vqvae::Reach encoder = pretrained("encoder", "data", 2);
  CHECK(encoder.down == 4);
  CHECK(encoder.up == 1);
  CHECK(encoder.before == 3);
  CHECK(encoder.after == 0);
  const vqvae::Reach decoder = pretrained("decoder", "codes", 1);
  CHECK(decoder.down == 1);
  CHECK(decoder.up == 4);
  CHECK(decoder.before >= 1);
  CHECK(decoder.before <= 2);
  CHECK(decoder.after >= 1);
  CHECK(decoder.after <= 2);
}

TEST_CASE("one convolution reaches as far as its kernel") {
  const vqvae::Reach reach = reach_of(graph_of(
      node("Convolution", "a", "[[0, 0], [1, 0]]", R"x("kernel": "(5, 3)", "pad": "(2, 1)", "dilate": "(2, 1)")x"), 2));
  CHECK(reach.before == 2);
  CHECK(reach.after == 6);
}

TEST_CASE("the widest of parallel ways counts") {
  const std::string nodes = node("Convolution", "a", "[[0, 0], [1, 0]]", R"x("kernel": "(3, 3)", "pad": "(1, 1)")x") +
                            ", " +
                            node("Convolution", "b", "[[2, 0], [1, 0]]", R"x("kernel": "(3, 3)", "pad": "(1, 1)")x") +
                            ", " + node("elemwise_add", "c", "[[3, 0], [0, 0]]");
  const vqvae::Reach reach = reach_of(graph_of(nodes, 4));
  CHECK(reach.before == 2);
  CHECK(reach.after == 2);
}

TEST_CASE("what looks at the whole image, or is not known, has no reach") {
  for (const auto& [op, attributes] : {std::pair<const char*, const char*>{"FullyConnected", ""},
                                       {"Pooling", R"x("kernel": "(2, 2)", "global_pool": "True")x"},
                                       {"softmax", ""},
                                       {"Reshape", R"x("shape": "(0, -1)")x"},
                                       {"Convolution", R"x("kernel": "(3, 3)", "layout": "NHWC")x"},
                                       {"argmin", R"x("axis": "2")x"},
                                       {"argmin", ""},
                                       {"BatchNorm", R"x("axis": "3")x"}}) {
    const vqvae::Graph graph = graph_of(node(op, "a", "[[0, 0], [1, 0]]", attributes), 2);
    INFO(graph.json);
    CHECK(!vqvae::find_reach(graph, "data", 2));
  }
}

TEST_CASE("strides that multiply without end have no reach") {
  std::string nodes;
  for (int i = 0; i < 64; ++i) {
    nodes += (i > 0 ? ", " : "") + node("Convolution", "n" + std::to_string(i),
                                        "[[" + std::to_string(i == 0 ? 0 : i + 1) + ", 0], [1, 0]]",
                                        R"x("kernel": "(1, 1)", "stride": "(4096, 4096)")x");
  }
  CHECK(!vqvae::find_reach(graph_of(nodes, 65), "data", 2));
}
