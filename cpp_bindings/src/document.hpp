// JSON that is looked over before it is read: the rules of vqvae_gluon/artifacts/document.py.
#ifndef VQVAE_SRC_DOCUMENT_HPP_
#define VQVAE_SRC_DOCUMENT_HPP_

#include <nlohmann/json.hpp>
#include <string>

#include "vqvae/tensor.hpp"

namespace vqvae {

// What a file is that is no JSON, if its first bytes tell; else nullptr.
const char* file_kind(const Bytes& bytes);

// A JSON text that is no deeper than any of our files, and of which a reader does not make more than three times its
// size and 64 MiB. The name is for messages, the remedy for files of another kind. Throws InputError.
nlohmann::json parse_document(const Bytes& bytes, const std::string& name, const std::string& remedy);

}  // namespace vqvae

#endif  // VQVAE_SRC_DOCUMENT_HPP_
