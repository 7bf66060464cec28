"""The names of causes, and what to do about each. A cause has one name, wherever it was found."""

from vqvae_gluon.artifacts import binding

# Name of a cause, and the remedy in a few words.
REMEDIES = {
    # The files, before anything is run.
    **binding.REMEDIES,
    "file refused": "replace the file as its message says",
    "parameter differs": "deploy the reference's parameter file; this one was cast, or is of another epoch, or damaged",
    "graph differs": "deploy the reference's symbol file; this one is of another network or export",
    # What the network is fed.
    "channel order": "give the channels in the order R, G, B",
    "HWC read as CHW": "transpose the image from (H, W, C) to (C, H, W); a reshape does not do it",
    "transposed input": "read the image row by row; height comes before width",
    "column-major input": "fill the tensor in row-major (C) order, or transpose it",
    "flipped input": "read the rows from top to bottom and the columns from left to right",
    "scale": "feed the range that the graph takes; that of a bundle takes 0..255",
    "mean and standard deviation": "normalise once: a bundle's graph does it itself",
    "inverted": "feed the pixels as they are, not their negative",
    "pixel stride": "step by the bytes of one pixel and one row of the decoded image",
    "shifted by a pixel": "look for an offset by one in the loop or the crop",
    "resize filter": "resize with the filter of the training, or feed images of the right size",
    "alpha": "drop the alpha channel or blend it, as in training",
    "gamma": "do not convert between linear and sRGB values",
    "signed pixels": "read the bytes of the image as unsigned",
    "input not set": "copy the input into the tensor before the forward pass",
    # The parameters as the network has them.
    "argument unbound": "bind every argument by its name, without the prefix arg:",
    "auxiliary unbound": "hand the tensors with the prefix aux: over as auxiliary states, not as arguments",
    "prefix lost": "keep the prefixes arg: and aux: in the file, strip them when the tensors are bound",
    "parameters swapped": "bind the parameters by name, not by position",
    "parameters of another epoch": "deploy the parameter file of the epoch that was evaluated",
    "float16 storage": "store the parameters in float32, or accept the error that float16 brings",
    "bfloat16 storage": "store the parameters in float32, or accept the error that bfloat16 brings",
    "one corrupted value": "copy the parameter file again and compare its digest",
    "kernel transposed": "keep the order of the kernel's axes: (output, input, height, width)",
    "kernel flipped": "do not turn the kernel around: MXNet's convolution is a cross-correlation",
    "codebook unbound": "bind the codebook, in the encoder and in the decoder",
    "codebook rows permuted": "keep the order of the codebook's rows: codes are their numbers",
    # The graph as it is run.
    "graph fusion": "set MXNET_SUBGRAPH_BACKEND=NONE, or put an Activation between the stem and the stack",
    "training-mode BatchNorm": "run the forward pass for inference (is_train=False)",
    "training-mode Dropout": "run the forward pass for inference (is_train=False)",
    "eps": "take eps of BatchNorm from the graph",
    "fix_gamma": "take fix_gamma of BatchNorm from the graph",
    "padding or output shape": "take padding, stride and output shape from the graph",
    "operator attribute": "take the operator's attributes from the graph",
    "other operator": "run the operator that the graph names",
    # Codes and latents.
    "codes transposed": "keep the order of the codes: (N, h, w)",
    "codes off by one": "count the codes from 0",
    "latent sign": "look at the sign in the straight-through estimator: sg(e) + (z - sg(z))",
    "latent layout": "keep the latent's axes: (N, D, h, w); a reshape does not transpose",
    # How it is run.
    "batch dependence": "look for a batch size that is baked into a shape, or a sum over the batch",
    "nondeterministic": "wait for the result before it is read; look for what is not initialised",
    "reading past a buffer": "compare the size of the buffer with what is read from it",
    # What is shown.
    "renderer": "the tensor is right; look at the code that draws it",
}
