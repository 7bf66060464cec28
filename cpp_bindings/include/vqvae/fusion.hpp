// What MXNet 1.9.1's executor makes of a graph that it fuses wrongly: the rules of vqvae_gluon/artifacts/fusion.py,
// which says why.
#ifndef VQVAE_FUSION_HPP_
#define VQVAE_FUSION_HPP_

#include <string>
#include <vector>

#include "vqvae/graph.hpp"

namespace vqvae {

// What an engine that fuses operators does with graphs that MXNet fuses wrongly.
enum class Fusion {
  kSafe,   // Fuses nothing in them, nor where every node is tapped.
  kMXNet,  // Computes them wrongly, as MXNet does by default.
};

// The variable that chooses what fuses. MXNet reads it whenever it binds a graph; a value that the user has set stays.
constexpr const char* kFusionVariable = "MXNET_SUBGRAPH_BACKEND";
bool fusion_is_chosen();

// The nodes that MXNet's executors compute wrongly, or cannot bind, because they fuse operators; in graph order.
std::vector<std::string> misfused(const Graph& graph);

}  // namespace vqvae

#endif  // VQVAE_FUSION_HPP_
