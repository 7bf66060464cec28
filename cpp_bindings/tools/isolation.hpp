// Work on files that may be anybody's, in a process of its own.
#ifndef VQVAE_TOOLS_ISOLATION_HPP_
#define VQVAE_TOOLS_ISOLATION_HPP_

#include <functional>
#include <string>

// Do the work in a child of this process, which must not have loaded MXNet yet, and give its exit code. MXNet believes
// what a graph says of its operators, and no check of ours knows all of them: if it crashes, that is told in one line,
// as a rejection of `what`. The child ends with its parent.
int isolated(const std::string& what, const std::function<int()>& work);

#endif  // VQVAE_TOOLS_ISOLATION_HPP_
