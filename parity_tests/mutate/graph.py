"""Damaged symbol files: their JSON, attributes, references, heads and operators."""

import json
from random import Random

from mutate.document import damage_value, dump, paths_of
from mutate.raw import EXTREMES, Mutated, pick

_ATTRIBUTES = {
    "kernel": ["(0, 0)", "(-1, -1)", "(1,)", "(3, 3, 3)", "(2147483647, 2147483647)", "(4294967297, 1)", "()"],
    "stride": ["(0, 0)", "(-1, -1)", "(1,)", "(1000000, 1000000)", "(2147483648, 1)", "(1, 2, 3)"],
    "pad": ["(-1, -1)", "(1000000, 1000000)", "(2147483647, 0)", "(20000, 20000)", "()"],
    "dilate": ["(0, 0)", "(-1, -1)", "(1000000, 1000000)", "(1,)"],
    "adj": ["(-1, -1)", "(5, 5)", "(1000000, 0)"],
    "target_shape": ["(100000, 100000)", "(0, 0)", "(-1, -1)", "(1, 1)"],
    "num_filter": ["0", "-1", "4294967295", "2147483648", "1e9", "63"],
    "num_group": ["0", "-1", "2", "3", "4294967296", "64"],
    "no_bias": ["True", "2", "maybe"],
    "layout": ["NHWC", "NCW", "NCDHW", "x"],
    "workspace": ["0", "18446744073709551615"],
    "axis": ["99", "-99", "2147483648", "()", "(1, 1)", "None"],
    "axes": ["(0, 0, 0, 0)", "(3, 2)", "(-1, 0, 1, 2)", "(99, 3, 1, 2)", "()"],
    "shape": ["(0, 0, 0, 0)", "(-1, -1)", "(64, 16, 1, 2)", "(1099511627776, 1099511627776)", "(-4, -4)", "()"],
    "scalar": ["nan", "inf", "0", "1e400", "x"],
    "act_type": ["x", "softrelu", "", "softsign"],
    "dtype": ["float16", "int64", "uint8", "x", "99", "bool"],
    "input_dim": ["0", "-1", "65", "1000000000000", "1"],
    "output_dim": ["0", "-1", "17", "1000000000000"],
    "a_max": ["nan", "-1", "x"],
    "a_min": ["nan", "256"],
    "keepdims": ["1", "2"],
    "__shape__": ["(0,)", "(-1,)", "(1099511627776, 1099511627776)", "x", "(32, 1, 3)", "()"],
    "__dtype__": ["1", "99", "-1", "x"],
    "__storage_type__": ["1", "2", "99", "-1"],
    "__init__": ["x", "[]", '["nowhere", {}]'],
    "ctx_group": ["x"],
    "no_such_attribute": ["1"],
}
_OPERATORS = (
    "null Convolution Deconvolution FullyConnected Activation LeakyReLU BatchNorm Pooling Reshape Flatten Concat "
    "SliceChannel Embedding take argmin argmax Cast sum square transpose clip _mul_scalar _div_scalar elemwise_add dot "
    "batch_dot broadcast_add softmax SoftmaxOutput RNN ROIPooling UpSampling BilinearSampler GridGenerator Crop Pad "
    "slice slice_axis tile repeat reverse topk sort one_hot gather_nd scatter_nd pick where _zeros _ones _arange _full "
    "_random_uniform _foreach _while_loop _cond Custom _Native _NDArray _CachedOp _sg_mkldnn_conv CuDNNBatchNorm "
    "_contrib_box_nms _contrib_Proposal _contrib_fft _contrib_quantize _contrib_dgl_subgraph _copyto _cvimread "
    "_contrib_count_sketch linalg_potrf linalg_gemm _split_v2 IdentityAttachKLSparseReg sgd_update Correlation "
    "SpatialTransformer CTCLoss depth_to_space im2col col2im space_to_depth khatri_rao _npi_einsum no_such_operator"
)


def damage_graph(data: bytes, random: Random) -> Mutated:
    document = json.loads(data)
    nodes = document["nodes"]
    computing = [node for node in nodes if node["op"] != "null"]
    node = random.choice(computing)
    what = pick(random, "value, value, attribute, attribute, attribute, reference, head, operator")
    if what == "value":
        return "json: " + damage_value(document, random, paths_of(document)), dump(document)
    if what == "attribute":
        node = random.choice([one for one in nodes if one.get("attrs")])
        known = [name for name in _ATTRIBUTES if name in node["attrs"]]
        name = random.choice(known if known and random.random() < 0.7 else sorted(_ATTRIBUTES))
        node["attrs"][name] = random.choice(_ATTRIBUTES[name])
        what = f"attribute {name} of {node['name']} to {node['attrs'][name]}"
    elif what == "reference":
        reference = random.choice(node["inputs"])
        index = random.randrange(3)
        reference[index] = random.choice([*EXTREMES, random.randrange(len(nodes)), reference[index] + 1])
        what = f"reference of {node['name']} to {reference}"
    elif what == "head":
        head = random.choice([[random.randrange(len(nodes)), random.choice([0, 1, 2, 2**31, 2**32]), 0], [0, 0, 0]])
        document["heads"] = random.choice([[head], [*document["heads"], head], document["heads"] * 3])
        what = f"heads to {document['heads']}"
    else:
        node["op"] = random.choice([random.choice(_OPERATORS.split()), random.choice(computing)["op"]])
        what = f"operator of {node['name']} to {node['op']}"
    return f"json: {what}", dump(document)
