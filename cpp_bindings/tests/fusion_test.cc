#include "vqvae/fusion.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support.hpp"

namespace {

using Names = std::vector<std::string>;

// The nodes that are misfused in a graph with the input "data" and these further nodes and outputs.
Names found(const std::string& nodes, const std::string& heads) {
  const std::string text = R"({"nodes": [{"op": "null", "name": "data", "inputs": []}, )" + nodes +
                           R"(], "arg_nodes": [0], "heads": )" + heads + "}";
  return vqvae::misfused(vqvae::parse_graph(to_bytes(text), "x"));
}

// One node of the text above; node 0 is the input.
std::string node(const std::string& op, const std::string& name, const std::string& inputs,
                 const std::string& attributes = "") {
  return R"({"op": ")" + op + R"(", "name": ")" + name + R"(", "inputs": )" + inputs + R"(, "attrs": {)" + attributes +
         "}}";
}

constexpr const char* kKernel = R"("kernel": "[3, 3]")";
constexpr const char* kRelu = R"("act_type": "relu")";
std::string stem() { return node("Convolution", "stem", "[[0, 0]]", kKernel) + ", "; }

}  // namespace

TEST_CASE("the sum of a residual block behind a convolution is misfused") {
  const std::string branch = node("Activation", "relu", "[[1, 0]]", kRelu) + ", ";
  CHECK(found(stem() + branch + node("elemwise_add", "sum", "[[1, 0], [2, 0]]"), "[[3, 0]]") == Names{"sum"});
  CHECK(found(stem() + branch + node("_Plus", "sum", "[[2, 0], [1, 0]]"), "[[3, 0]]") == Names{"sum"});
  CHECK(found(stem() + branch + node("broadcast_add", "sum", "[[1, 0], [2, 0]]"), "[[3, 0]]").empty());
  // One more who takes the stem ends the chain there.
  CHECK(found(stem() + branch + node("elemwise_add", "sum", "[[1, 0], [2, 0]]") + ", " +
                  node("tanh", "other", "[[1, 0]]"),
              "[[4, 0], [3, 0]]")
            .empty());
}

TEST_CASE("with an activation, one convolution axis or another operator before the block it is not") {
  const auto block = [](const std::string& source) {
    return node("Activation", "relu", "[[" + source + ", 0]]", kRelu) + ", " +
           node("elemwise_add", "sum", "[[" + source + ", 0], [" + std::to_string(std::stoi(source) + 1) + ", 0]]");
  };
  CHECK(found(stem() + node("Activation", "between", "[[1, 0]]", kRelu) + ", " + block("2"), "[[4, 0]]").empty());
  CHECK(found(node("Convolution", "stem", "[[0, 0]]", R"("kernel": "[3]")") + ", " + block("1"), "[[3, 0]]").empty());
  CHECK(found(node("Deconvolution", "stem", "[[0, 0]]", kKernel) + ", " + block("1"), "[[3, 0]]").empty());
  CHECK(found(stem() + node("Dropout", "between", "[[1, 0]]") + ", " + block("2"), "[[4, 0]]") == Names{"sum"});
  CHECK(found(stem() + node("Dropout", "between", "[[1, 0]]", R"("mode": "always")") + ", " + block("2"), "[[4, 0]]")
            .empty());
}

TEST_CASE("of activations those count that oneDNN has") {
  const auto with = [](const std::string& op, const std::string& attributes) {
    return found(
        stem() + node(op, "f", "[[1, 0]]", attributes) + ", " + node("elemwise_add", "sum", "[[1, 0], [2, 0]]"),
        "[[3, 0]]");
  };
  CHECK(with("Activation", R"("act_type": "softsign")").empty());
  CHECK(with("Activation", R"("act_type": "tanh")") == Names{"sum"});
  CHECK(with("LeakyReLU", "") == Names{"sum"});
  CHECK(with("LeakyReLU", R"("act_type": "elu")").empty());
  CHECK(with("clip", R"("a_min": "0.0", "a_max": "6")") == Names{"sum"});
  CHECK(with("clip", R"("a_min": "-1", "a_max": "6")").empty());
  CHECK(with("relu", "").empty());
}

TEST_CASE("an output within a chain is misfused") {
  const std::string relu = node("Activation", "relu", "[[1, 0]]", kRelu);
  CHECK(found(stem() + relu, "[[2, 0]]").empty());
  CHECK(found(stem() + relu, "[[1, 0], [2, 0]]") == Names{"stem"});
  CHECK(found(stem() + node("BatchNorm", "norm", "[[1, 0]]"), "[[2, 0], [2, 1]]") == Names{"norm"});
  CHECK(found(stem() + node("BatchNorm", "norm", "[[1, 0]]", R"("axis": "3")"), "[[2, 0]]") == Names{"norm"});
  CHECK(found(stem() + node("elemwise_add", "sum", "[[1, 0], [1, 0]]"), "[[2, 0]]") == Names{"sum"});
}

TEST_CASE("a fully connected layer fuses with the function that comes last") {
  const std::string dense = node("FullyConnected", "dense", "[[0, 0]]") + ", ";
  const std::string relu = node("Activation", "relu", "[[1, 0]]", kRelu);
  const std::string other = node("sin", "other", "[[1, 0]]");
  CHECK(found(dense + relu + ", " + other, "[[2, 0], [3, 0]]").empty());
  CHECK(found(dense + other + ", " + relu, "[[2, 0], [3, 0]]") == Names{"other"});
  // The outputs choose the order, not the file.
  CHECK(found(dense + relu + ", " + other, "[[3, 0], [2, 0]]") == Names{"other"});
  // Of three nobody knows which comes last.
  const std::string third = node("cos", "third", "[[1, 0]]");
  CHECK(found(dense + relu + ", " + other + ", " + third, "[[2, 0], [3, 0], [4, 0]]") == Names{"other", "third"});
}

TEST_CASE("copies behind what was copied already cannot be bound") {
  const std::string copies = node("_copy", "first", "[[0, 0]]") + ", " + node("identity", "second", "[[1, 0]]");
  CHECK(found(copies, "[[2, 0]]") == Names{"second"});
}

TEST_CASE("the pretrained network is not misfused") {
  for (const char* file : {"/encoder-symbol.json", "/decoder-symbol.json"}) {
    const std::string path = std::string(VQVAE_PRETRAINED) + file;
    CHECK(vqvae::misfused(vqvae::parse_graph(vqvae::read_file(path, 1 << 20), path)).empty());
  }
}
