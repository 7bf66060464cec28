// Which part of its input an output depends on, told from the graph alone: what tiles must overlap by.
#ifndef VQVAE_REACH_HPP_
#define VQVAE_REACH_HPP_

#include <cstdint>
#include <optional>
#include <string>

#include "vqvae/graph.hpp"

namespace vqvae {

// Along either side of an image: outputs [up * a, up * b) depend on inputs [down * a - before, down * b + after).
struct Reach {
  std::int64_t down = 1;  // Input steps for `up` output steps; one of the two is 1 in an encoder and in a decoder.
  std::int64_t up = 1;
  std::int64_t before = 0;
  std::int64_t after = 0;
};

// The reach of a graph's only output. Of the input, `first_side` and the axis behind it are height and width: 2 of
// images (N, C, H, W), 1 of codes (N, h, w). None if an operator is not known to look at neighbours alone.
std::optional<Reach> find_reach(const Graph& graph, const std::string& input, std::size_t first_side);

}  // namespace vqvae

#endif  // VQVAE_REACH_HPP_
