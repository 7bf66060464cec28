// Lines on standard error that are no errors.
#ifndef VQVAE_TOOLS_NOTES_HPP_
#define VQVAE_TOOLS_NOTES_HPP_

#include <string>
#include <vector>

#include "options.hpp"
#include "vqvae/graph.hpp"

// A line if MXNet's fusion would compute a graph wrongly, else nothing.
std::string fusion_note(const Options& options, const std::vector<const vqvae::Graph*>& graphs);

#endif  // VQVAE_TOOLS_NOTES_HPP_
