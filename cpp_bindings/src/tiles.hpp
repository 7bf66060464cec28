// How one side of an image is cut into tiles.
#ifndef VQVAE_SRC_TILES_HPP_
#define VQVAE_SRC_TILES_HPP_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace vqvae {

// Steps [start, start + size) are run; of what comes out, steps [begin, end) of the side are right and are kept.
struct Tile {
  std::int64_t start = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// Cover a side with tiles of one size, so that an engine binds to one shape; the last one is moved back from the edge.
// An output step depends on `before` and `after` steps beside it. The size is above the sum of the two, or the side.
inline std::vector<Tile> cover(std::int64_t side, std::int64_t size, std::int64_t before, std::int64_t after) {
  std::vector<Tile> tiles;
  for (std::int64_t begin = 0; begin < side;) {
    const std::int64_t start = std::max<std::int64_t>(0, std::min(begin - before, side - size));
    const std::int64_t end = start + size == side ? side : start + size - after;
    tiles.push_back({start, begin, end});
    begin = end;
  }
  return tiles;
}

}  // namespace vqvae

#endif  // VQVAE_SRC_TILES_HPP_
