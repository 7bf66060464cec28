// Which operators a graph may hold, and which numbers their attributes may: the rules of
// vqvae_gluon/artifacts/operators.py, by the same table, which is built in.
#ifndef VQVAE_SRC_OPERATORS_HPP_
#define VQVAE_SRC_OPERATORS_HPP_

#include <cstddef>
#include <map>
#include <string>

#include "vqvae/graph.hpp"

namespace vqvae {

// Why a graph may not hold an operator; empty if it may.
std::string operator_objection(const std::string& op, Operators which);

// Whether graphs may lie within nodes of this operator.
bool takes_subgraphs(const std::string& op);

// What is wrong with the numbers in the attributes of a node that has so many inputs, and subgraphs, which MXNet counts
// among its arguments; empty if nothing is.
std::string attribute_objection(const std::map<std::string, std::string>& attributes, std::size_t inputs,
                                std::size_t subgraphs);

}  // namespace vqvae

#endif  // VQVAE_SRC_OPERATORS_HPP_
