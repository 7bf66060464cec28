#include "notes.hpp"

#include <cstdlib>
#include <string>

#include "vqvae/error.hpp"
#include "vqvae/fusion.hpp"
#include "vqvae/network.hpp"

std::string fusion_note(const Options& options, const std::vector<const vqvae::Graph*>& graphs) {
  const char* set = std::getenv(vqvae::kFusionVariable);
  const std::string chosen = set == nullptr ? "" : set;
  if (options.quiet || options.fusion_kind() == vqvae::Fusion::kMXNet || chosen == "NONE") return "";
  if (options.engine_kind() == vqvae::Engine::kCachedOp) return "";
  if (options.engine_kind() == vqvae::Engine::kFused) {
    const std::string why = vqvae::why_not_fused();
    return why.empty() ? ""
                       : "reconstruct: note: fused is the same as cachedop here, for " + vqvae::one_line(why) + "\n";
  }
  std::string first;
  std::size_t more = 0;
  for (const vqvae::Graph* graph : graphs) {
    for (const std::string& node : vqvae::misfused(*graph)) {
      if (first.empty()) {
        first = node + " of " + graph->name;
      } else {
        ++more;
      }
    }
  }
  if (first.empty()) return "";
  if (more > 0) first += " and " + std::to_string(more) + " more";
  return "reconstruct: note: " +
         vqvae::one_line(chosen.empty() ? "fusion is off, for MXNet would compute " + first + " wrongly"
                                        : std::string(vqvae::kFusionVariable) + "=" + chosen + " may compute " + first +
                                              " wrongly; unset it") +
         "\n";
}
