// MXNet .params files, proved before they are believed: the rules of vqvae_gluon/artifacts/parameters.py.
#ifndef VQVAE_PARAMETERS_HPP_
#define VQVAE_PARAMETERS_HPP_

#include <map>
#include <string>

#include "vqvae/tensor.hpp"

namespace vqvae {

// Tensors by full name: "arg:<name>" for an argument, "aux:<name>" for an auxiliary state.
using Parameters = std::map<std::string, Tensor>;

// Parse a file's bytes. The name is for messages. Throws InputError.
Parameters parse_parameters(const Bytes& bytes, const std::string& name);

// A whole file. The tensors are let go of one by one, as they are written.
Bytes parameters_bytes(Parameters parameters);

}  // namespace vqvae

#endif  // VQVAE_PARAMETERS_HPP_
