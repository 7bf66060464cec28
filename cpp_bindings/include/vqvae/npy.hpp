// NumPy's .npy format, version 1.0, C order.
#ifndef VQVAE_NPY_HPP_
#define VQVAE_NPY_HPP_

#include <filesystem>
#include <string>

#include "vqvae/tensor.hpp"

namespace vqvae {

// Throws InputError if the file is missing, damaged, or not a C-ordered array of one of our types.
Tensor read_npy(const std::filesystem::path& path);

// The same of a file's bytes. The name is for messages.
Tensor parse_npy(const Bytes& bytes, const std::string& name);

// What stands before the values in a file.
Bytes npy_header(const Tensor& tensor);

// A whole file.
Bytes npy_bytes(const Tensor& tensor);

}  // namespace vqvae

#endif  // VQVAE_NPY_HPP_
