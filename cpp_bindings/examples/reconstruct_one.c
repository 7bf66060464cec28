/* One picture of bare pixels through a bundle: reconstruct_one_c BUNDLE HEIGHT WIDTH <in >out */
#include <stdio.h>
#include <stdlib.h>

#include "vqvae/vqvae.h"

int main(int argc, char** argv) {
  vqvae_options options = {.size = sizeof options, .memory_limit = (uint64_t)512 << 20};
  vqvae_properties properties = {.size = sizeof properties};
  vqvae_predictor* predictor = NULL;
  if (argc != 4) {
    fprintf(stderr, "usage: reconstruct_one_c BUNDLE HEIGHT WIDTH <in >out\n");
    return VQVAE_USAGE;
  }
  int64_t height = atoll(argv[2]);
  int64_t width = atoll(argv[3]);
  int64_t code_height = 0;
  int64_t code_width = 0;

  int status = vqvae_open(argv[1], &options, &predictor);
  if (status == VQVAE_DONE) status = vqvae_info(predictor, &properties);
  if (status == VQVAE_DONE) status = vqvae_code_shape(predictor, height, width, &code_height, &code_width);
  if (status == VQVAE_DONE) {
    size_t pixels_size = (size_t)height * (size_t)width * (size_t)properties.channels;
    size_t codes_size = (size_t)code_height * (size_t)code_width * sizeof(int32_t);
    uint8_t* pixels = malloc(pixels_size);
    int32_t* codes = malloc(codes_size);
    if (pixels == NULL || codes == NULL || fread(pixels, 1, pixels_size, stdin) != pixels_size) {
      fprintf(stderr, "reconstruct_one_c: error: standard input: has too few pixels\n");
      return VQVAE_FAILED;
    }
    status = vqvae_encode(predictor, pixels, pixels_size, 1, height, width, codes, codes_size);
    if (status == VQVAE_DONE) {
      status = vqvae_decode(predictor, codes, codes_size, 1, height, width, pixels, pixels_size);
    }
    if (status == VQVAE_DONE && fwrite(pixels, 1, pixels_size, stdout) != pixels_size) return VQVAE_FAILED;
    free(codes);
    free(pixels);
  }
  if (status != VQVAE_DONE) fprintf(stderr, "reconstruct_one_c: error: %s\n", vqvae_last_error());
  vqvae_close(predictor);
  return status;
}
