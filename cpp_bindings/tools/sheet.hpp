// Images beside their reconstructions, on one sheet.
#ifndef VQVAE_TOOLS_SHEET_HPP_
#define VQVAE_TOOLS_SHEET_HPP_

#include <cstdint>
#include <vector>

#include "vqvae/tensor.hpp"

class Sheet {
 public:
  // Take one image and its reconstruction, uint8 (1, H, W, C) each, while there is room.
  void add(vqvae::Tensor image, vqvae::Tensor reconstruction);
  bool is_full() const { return full_; }

  // uint8 (1, H, W, C): each image above its reconstruction, row by row, on white.
  vqvae::Tensor draw() const;

 private:
  struct Pair {
    vqvae::Tensor image;
    vqvae::Tensor reconstruction;
  };
  std::vector<Pair> pairs_;
  std::int64_t height_ = 0;  // Of the largest.
  std::int64_t width_ = 0;
  bool full_ = false;
};

#endif  // VQVAE_TOOLS_SHEET_HPP_
