// Lines on standard error that are no errors.
#ifndef VQVAE_TOOLS_NOTES_HPP_
#define VQVAE_TOOLS_NOTES_HPP_

#include <vector>

#include "options.hpp"
#include "vqvae/graph.hpp"

// Say so if MXNet's fusion would compute a graph wrongly.
void note_fusion(const Options& options, const std::vector<const vqvae::Graph*>& graphs);

#endif  // VQVAE_TOOLS_NOTES_HPP_
