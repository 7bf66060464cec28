// One picture through a bundle: reconstruct_one BUNDLE IN.png OUT.png
#include <cstdint>
#include <cstdio>
#include <exception>
#include <utility>

#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/image.hpp"
#include "vqvae/predictor.hpp"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: reconstruct_one BUNDLE IN.png OUT.png\n");
    return 2;
  }
  try {
    vqvae::Predictor predictor(vqvae::read_bundle(argv[1], true));
    const vqvae::Bytes file = vqvae::read_file(argv[2], std::size_t{1} << 30);
    const vqvae::Tensor image = vqvae::decode_image(file, static_cast<int>(predictor.channels()), argv[2]);
    const std::int64_t height = image.shape[1];
    const std::int64_t width = image.shape[2];

    const vqvae::Tensor codes = predictor.encode(image);  // int32 (1, h, w)
    const vqvae::Tensor result = predictor.decode(codes, height, width);
    vqvae::write_file(argv[3], vqvae::encode_png(result, 0));
    std::printf("%s: %zu codes\n", argv[3], vqvae::element_count(codes.shape));
    return 0;
  } catch (const vqvae::Error& error) {
    std::fprintf(stderr, "reconstruct_one: error: %s\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reconstruct_one: error: %s\n", error.what());
    return 1;
  }
}
