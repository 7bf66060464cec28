// Plain Gluon exports: a graph and its parameters, run on arrays and recorded.
#ifndef VQVAE_TOOLS_PLAIN_HPP_
#define VQVAE_TOOLS_PLAIN_HPP_

#include "options.hpp"

void trace_export(const Options& options);

#endif  // VQVAE_TOOLS_PLAIN_HPP_
