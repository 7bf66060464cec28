// Files that are whole or absent, and their digests.
#ifndef VQVAE_FILES_HPP_
#define VQVAE_FILES_HPP_

#include <cstddef>
#include <filesystem>
#include <string>

#include "vqvae/tensor.hpp"

namespace vqvae {

// The bytes of a file. Throws InputError if it is missing or longer than the limit.
Bytes read_file(const std::filesystem::path& path, std::size_t limit);

// The file appears whole, once it is on the disk, or not at all. Where the file system can, it has no name until then,
// so that nothing is left of it even if the process is killed. Throws RuntimeFailure.
void write_file(const std::filesystem::path& path, const Bytes& bytes);

// The same of two pieces, without waiting for the disk: for files that another one makes valid.
void write_unsynced(const std::filesystem::path& path, const Bytes& head, const Bytes& rest);

// Make a directory and those above it. Throws RuntimeFailure.
void make_directory(const std::filesystem::path& path);

// Hexadecimal SHA-256.
std::string sha256(const Bytes& bytes);

}  // namespace vqvae

#endif  // VQVAE_FILES_HPP_
