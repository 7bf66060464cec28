/* The predictor for other languages: a bundle, ready to encode and decode. C11; every function may be called from C++,
 * ctypes and the like.
 *
 * Arrays are dense, in C order, in the caller's memory. Images are uint8 (count, height, width, channels), of any size;
 * codes are int32 (count, code height, code width), each 0 <= code < num_embeddings. vqvae_info says how many channels,
 * vqvae_code_shape how many codes. Sizes of arrays are in bytes and must be exactly those of the shape: a buffer of
 * another size is refused, and not touched. What a function fills is filled when it returns VQVAE_DONE, and else as it
 * was.
 *
 * Errors: a function gives one of the codes below, and vqvae_last_error says why in one line. No C++ exception leaves
 * it. NULL where a pointer is needed, sizes that are not positive or beyond 2^31 - 1, and buffers of another size are
 * VQVAE_USAGE.
 *
 * Threads: every function may be called from any thread. Several predictors work in several threads at once; calls that
 * use one predictor wait for each other. vqvae_close is for the last of its users. The first vqvae_open loads libmxnet
 * and sets OMP_NUM_THREADS and MXNET_SUBGRAPH_VERBOSE, unless they are set; the engines VQVAE_EXECUTOR and
 * VQVAE_PREDICT may set MXNET_SUBGRAPH_BACKEND for a moment, unless it is set. Other threads of the host must not read
 * or write the environment then, as with any setenv. A child of fork must not use what its parent opened. */
#ifndef VQVAE_VQVAE_H_
#define VQVAE_VQVAE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What functions give; the exit codes of reconstruct are the same. */
enum {
  VQVAE_DONE = 0,
  VQVAE_FAILED = 1,  /* A runtime or the system failed: no libmxnet, no memory. */
  VQVAE_USAGE = 2,   /* The arguments do not fit together. */
  VQVAE_REJECTED = 3 /* The bundle or the codes were rejected. */
};

/* What runs the graphs. */
enum { VQVAE_CACHEDOP = 0, VQVAE_EXECUTOR = 1, VQVAE_PREDICT = 2, VQVAE_FUSED = 3 };

typedef struct vqvae_predictor vqvae_predictor;

/* How to open a bundle; what is 0 is the default. */
typedef struct vqvae_options {
  size_t size;           /* sizeof(vqvae_options), which later versions may enlarge. */
  int32_t engine;        /* VQVAE_CACHEDOP, VQVAE_EXECUTOR, VQVAE_PREDICT or VQVAE_FUSED. */
  int32_t no_verify;     /* 1: without digests and the search for NaN; every structural check is done. */
  uint64_t memory_limit; /* Bytes for the tensors of a run: large images run in tiles, with equal results. 0: none. */
  int32_t threads;       /* MXNet's threads, for the whole process: 0 is OMP_NUM_THREADS, or else all processors. Once
                            MXNet is loaded another number is VQVAE_USAGE. */
  int32_t reserved;      /* 0 */
} vqvae_options;

/* What a predictor takes and gives. */
typedef struct vqvae_properties {
  size_t size;            /* sizeof(vqvae_properties), set by the caller. */
  int64_t channels;       /* Of an image: 1 or 3. */
  int64_t stride;         /* Pixels of an image for each code and side. */
  int64_t num_embeddings; /* Rows of the codebook. */
  char digest[72];        /* Of the bundle: 64 hexadecimal digits, and zeros. */
} vqvae_properties;

/* Open a bundle, a directory that 'vqvae-gluon export' wrote. `options` may be NULL. The handle is the caller's, who
 * gives it to vqvae_close; it is NULL on failure. */
int vqvae_open(const char* bundle, const vqvae_options* options, vqvae_predictor** predictor);

/* Free a predictor; NULL is none. Those that are still open when main returns are left to the system. */
void vqvae_close(vqvae_predictor* predictor);

int vqvae_info(const vqvae_predictor* predictor, vqvae_properties* properties);

/* The shape of the codes of an image. Where the stride does not divide a side of the image, its last row or column is
 * repeated up to the next multiple. */
int vqvae_code_shape(const vqvae_predictor* predictor, int64_t height, int64_t width, int64_t* code_height,
                     int64_t* code_width);

/* Images to codes. */
int vqvae_encode(vqvae_predictor* predictor, const uint8_t* images, size_t images_size, int64_t count, int64_t height,
                 int64_t width, int32_t* codes, size_t codes_size);

/* Codes to images of `height` and `width`; the codes must be of that size. */
int vqvae_decode(vqvae_predictor* predictor, const int32_t* codes, size_t codes_size, int64_t count, int64_t height,
                 int64_t width, uint8_t* images, size_t images_size);

/* Images to images of the same shape, by way of their codes. The two buffers may be one. */
int vqvae_reconstruct(vqvae_predictor* predictor, const uint8_t* images, size_t images_size, int64_t count,
                      int64_t height, int64_t width, uint8_t* result, size_t result_size);

/* Why the last call of this thread that failed did: one line of UTF-8, "" if none has. Valid until the next call of
 * this thread. */
const char* vqvae_last_error(void);

/* "0.1.0" */
const char* vqvae_version(void);

#ifdef __cplusplus
}
#endif

#endif /* VQVAE_VQVAE_H_ */
