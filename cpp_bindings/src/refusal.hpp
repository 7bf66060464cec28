// What MXNet says where it refuses a graph or a run, and the remedy of each kind: the table of
// vqvae_gluon/artifacts/refusals.py.
#ifndef VQVAE_SRC_REFUSAL_HPP_
#define VQVAE_SRC_REFUSAL_HPP_

#include <map>
#include <set>
#include <string>

namespace vqvae {

// Of a graph that is refused, where MXNet's words do not tell a better remedy.
constexpr const char* kSymbolFile =
    "copy the file again, or give the -symbol.json that net.export(prefix) of MXNet 1.9.1 writes";
// Of inputs that do not fit.
constexpr const char* kFeedShapes = "feed inputs of the shapes that the graph was made for";
// Of a bundle that is not what its manifest says.
constexpr const char* kCopyBundle =
    "copy the whole bundle again; if it was changed where it was made, export it there again";

// MXNet's reason without the place in its source, and the remedy: of a graph that is refused,
std::string graph_refusal(const std::string& reason);
// of one that has no shapes for its inputs,
std::string shape_refusal(const std::string& reason);
// and of one that cannot be run. `fed` are the names of the types of the inputs, `parameters` those by parameter.
std::string run_refusal(const std::string& reason, const std::set<std::string>& fed,
                        const std::map<std::string, std::string>& parameters);

}  // namespace vqvae

#endif  // VQVAE_SRC_REFUSAL_HPP_
