// Images to codes and reconstructions, and codes to images, through a bundle.
#ifndef VQVAE_TOOLS_RECONSTRUCTION_HPP_
#define VQVAE_TOOLS_RECONSTRUCTION_HPP_

#include "options.hpp"
#include "results.hpp"
#include "vqvae/predictor.hpp"

void reconstruct_images(const Options& options, vqvae::Predictor* predictor, Results* results);
void decode_files(const Options& options, vqvae::Predictor* predictor, Results* results);
// All images in one run, with a record of it.
void trace_images(const Options& options, vqvae::Predictor* predictor, Results* results);

#endif  // VQVAE_TOOLS_RECONSTRUCTION_HPP_
