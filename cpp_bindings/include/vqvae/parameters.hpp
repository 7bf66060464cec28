// MXNet .params files, proved before they are believed: the rules of vqvae_gluon/artifacts/parameters.py.
#ifndef VQVAE_PARAMETERS_HPP_
#define VQVAE_PARAMETERS_HPP_

#include <map>
#include <string>
#include <vector>

#include "vqvae/tensor.hpp"

namespace vqvae {

// Dense tensors by name: "arg:<name>" for an argument, "aux:<name>" for an auxiliary state.
using Parameters = std::map<std::string, Tensor>;

// Parse a file's bytes; the names are as it has them. The name is for messages. Throws InputError.
Parameters parse_parameters(const Bytes& bytes, const std::string& name);

// Whether a parameter's name says what it is, an argument or an auxiliary state.
bool has_prefix(const std::string& name);

// The parameters with a prefix before every name. One without is what the graph takes by this name, as Gluon's own
// loaders have it; if the graph takes none, it is called an argument. `arguments` and `auxiliaries` are what the graph
// takes, the file's name is for messages. Throws InputError if the names are those of save_parameters(), or two are the
// same.
Parameters full_names(Parameters parameters, const std::vector<std::string>& arguments,
                      const std::vector<std::string>& auxiliaries, const std::string& file);

// A whole file, for a graph under NumPy's rules for shapes or MXNet's own. The tensors are let go of one by one, as
// they are written.
Bytes parameters_bytes(Parameters parameters, bool numpy);

}  // namespace vqvae

#endif  // VQVAE_PARAMETERS_HPP_
