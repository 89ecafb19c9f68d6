#!/usr/bin/env python3
"""Writes small models of old opsets, one for each form of an operator that later opsets changed.

    python tests/python/old_opset_models.py OUT_DIR

Each becomes OUT_DIR/<name>_<opset>/model.onnx. Names that start with `refused_` must not be raised; all others must.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F32, F16, I64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(7)
IR_VERSIONS = {opset: ir for _, ir, opset, *_ in helper.VERSION_TABLE}
MODELS = {}


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def add(name, opset, nodes, inputs, constants=None, outputs=("y",), listed=False, functions=(), values=(), domains=()):
    """inputs: name -> (element type, shape or None); outputs: names, or (name, element type) where not f32."""
    constants = constants or {}
    declared = [helper.make_tensor_value_info(key, *of) for key, of in inputs.items()]
    if listed:
        declared += [helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for key, value in constants.items()]
    results = [helper.make_tensor_value_info(*(output if isinstance(output, tuple) else (output, F32)), None) for output in outputs]
    graph = helper.make_graph(
        nodes, name, declared, results,
        [numpy_helper.from_array(value, key) for key, value in constants.items()], value_info=list(values),
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, functions=functions)
    model.ir_version = 8 if functions else IR_VERSIONS[opset]
    key = f"{name}_{opset}"
    assert key not in MODELS, key
    MODELS[key] = model


def one(name, opsets, op, shape, constants=None, element=F32, outputs=("y",), names=None, **attributes):
    """A model of one node whose first input is the graph's, the others constants."""
    for opset in opsets:
        constants = constants or {}
        produced = names or [output[0] if isinstance(output, tuple) else output for output in outputs]
        node = helper.make_node(op, ["x", *constants], produced, **attributes)
        add(name, opset, [node], {"x": (element, shape)}, constants, outputs, listed=opset < 9)


def axes_and_reductions():
    for opset in (7, 11, 12):
        one("squeeze", [opset], "Squeeze", (1, 3, 1, 4), axes=[0, 2])
        one("squeeze_all", [opset], "Squeeze", (1, 3, 1, 4))
        one("unsqueeze", [opset], "Unsqueeze", (3, 4), axes=[0, 3])
        for reduction in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
            one(f"reduce_{reduction}", [opset], f"Reduce{reduction}", (2, 3, 4), axes=[1, 2], keepdims=0)
            one(f"reduce_{reduction}_all", [opset], f"Reduce{reduction}", (2, 3, 4))
        one("reduce_negative", [opset] if opset >= 11 else [], "ReduceMean", (2, 3, 4), axes=[-1])
        one("split", [opset], "Split", (6, 4), outputs=("a", "b"), axis=0, split=[2, 4])
        one("split_equal", [opset], "Split", (6, 4), outputs=("a", "b", "c"), axis=0)
        one("split_default_axis", [opset], "Split", (6, 4), outputs=("a", "b"))
    one("split_input", (13, 17), "Split", (6, 4), {"sizes": ints(1, 5)}, outputs=("a", "b"))
    one("split_equal", (13, 17), "Split", (6, 4), outputs=("a", "b"))
    one("reduce_sum_input", (13,), "ReduceSum", (2, 3, 4), {"axes": ints(1)})
    for reduction in ("LogSum", "Mean", "Max", "L2"):
        one(f"reduce_{reduction}_last", (13, 17), f"Reduce{reduction}", (2, 3, 4), axes=[2])


def softmax():
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for opset in (7, 11, 12):
            one(f"{op}_rank2", [opset], op, (3, 5))
            one(f"{op}_rank4", [opset], op, (2, 3, 4, 5))
            one(f"{op}_last", [opset], op, (2, 3, 4, 5), axis=3)
            one(f"{op}_middle", [opset], op, (2, 3, 4, 5), axis=2)
            one(f"{op}_ones_behind", [opset], op, (2, 7, 1, 1))
            one(f"{op}_first", [opset], op, (2, 3, 4), axis=0)
            one(f"{op}_open_batch", [opset], op, ("batch", 3, 4), axis=1)
        one(f"{op}_minus1", (11, 12), op, (2, 3, 4), axis=-1)
        one(f"{op}_minus2", (11, 12), op, (2, 3, 4), axis=-2)
    add("softmax_rank_of_chain", 11, [
        helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3]), helper.make_node("Softmax", ["c"], ["y"], axis=3),
    ], {"x": (F32, (2, 4, 6))}, {"w": floats(6, 8), "shape": ints(0, 0, 2, 4)})  # fmt: skip
    add("softmax_rank_unknown", 11, [
        helper.make_node("Reshape", ["x", "flat"], ["a"]), helper.make_node("Compress", ["a", "keep"], ["b"]),
        helper.make_node("Split", ["b"], ["c"]), helper.make_node("GatherND", ["c", "i"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"], axis=1),
    ], {"x": (F32, (2, 4))}, {"flat": ints(-1), "keep": np.ones(8, bool), "i": ints(0, 1, 2, 3, 4, 5).reshape(2, 3, 1)})  # fmt: skip


def shapes_and_slices():
    for opset in (7, 9):
        one("slice", [opset], "Slice", (4, 5, 6), starts=[1, -3], ends=[3, 10000], axes=[0, 2])
        one("slice_no_axes", [opset], "Slice", (4, 5), starts=[1, 0], ends=[3, -1])
        one("top_k", [opset], "TopK", (3, 8), outputs=("values", ("indices", I64)), axis=1, k=3)
        one("top_k_default_axis", [opset], "TopK", (3, 8), outputs=("values", ("indices", I64)), k=2)
    one("top_k_input", (10,), "TopK", (3, 8), {"k": ints(3)}, outputs=("values", ("indices", I64)))
    one("slice_input", (10, 11), "Slice", (4, 5), {"starts": ints(1), "ends": ints(3), "axes": ints(1)})
    for opset in (7, 10):
        one("pad", [opset], "Pad", (2, 3), pads=[1, 0, 0, 2])
        one("pad_value", [opset], "Pad", (2, 3), pads=[1, 0, 0, 2], value=1.5)
        one("pad_value_f16", [opset], "Pad", (2, 3), element=F16, outputs=(("y", F16),), pads=[1, 0, 0, 2], value=1.5)
        one("pad_reflect", [opset], "Pad", (4, 5), pads=[1, 2, 1, 2], mode="reflect", value=3.0)
        one("pad_edge", [opset], "Pad", (4, 5), pads=[1, 2, 1, 2], mode="edge")
    one("pad_input", (11, 13, 17), "Pad", (2, 3), {"pads": ints(1, 0, 0, 2), "value": np.float32(2)})
    one("reshape", (7, 12), "Reshape", (2, 6), {"shape": ints(0, 2, -1)})
    one("flatten", (7, 9, 11), "Flatten", (2, 3, 4), axis=2)
    one("shape", (7, 14), "Shape", (2, 3), outputs=(("y", I64),))
    data = np.zeros((3, 3), np.float32)
    for opset in (9, 10, 11, 13):
        op = "Scatter" if opset < 11 else "ScatterElements"
        node = helper.make_node(op, ["d", "i", "x"], ["y"], axis=1)
        add("scatter", opset, [node], {"x": (F32, (2, 2))}, {"d": data, "i": np.array([[0, 2], [1, 0]], np.int64)})
    one("gather_nd", (11,), "GatherND", (3, 4), {"i": np.array([[0, 1], [2, 3]], np.int64)})
    one("depth_to_space", (7, 10, 11), "DepthToSpace", (1, 8, 2, 2), blocksize=2)


def activations():
    for opset in (7, 10):
        one("clip", [opset], "Clip", (3, 4), min=-0.5, max=0.5)
        one("clip_min", [opset], "Clip", (3, 4), min=0.0)
        one("clip_none", [opset], "Clip", (3, 4))
        one("clip_f16", [opset], "Clip", (3, 4), element=F16, outputs=(("y", F16),), min=0.0, max=6.0)
    one("clip_input", (11, 12), "Clip", (3, 4), {"low": np.float32(-1), "high": np.float32(0.2)})
    add("clip_mixed_types", 9, [
        helper.make_node("Cast", ["x"], ["h"], to=F16), helper.make_node("Transpose", ["h"], ["r"]),
        helper.make_node("Clip", ["r"], ["c"], min=0.25, max=1.0), helper.make_node("Cast", ["c"], ["f"], to=F32),
        helper.make_node("Clip", ["f"], ["y"], max=0.75),
    ], {"x": (F32, (3, 4))})  # fmt: skip
    for op in ("Relu", "Sigmoid", "Tanh", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "Softplus", "Softsign", "Exp", "Abs", "Floor", "Identity", "Sin"):
        one(op, (7, 12), op, (3, 4))
    one("prelu", (7, 9, 13), "PRelu", (2, 3, 4), {"slope": floats(3, 1)})
    one("erf", (9,), "Erf", (3, 4))
    one("celu", (12,), "Celu", (2, 3))
    one("cast", (7, 9, 13), "Cast", (2, 3), outputs=(("y", I64),), to=I64)
    one("mod", (10,), "Mod", (2, 3), {"m": floats(2, 3)}, fmod=1)
    one("cum_sum", (11,), "CumSum", (2, 3), {"axis": np.array(1, np.int32)})
    one("transpose", (7, 20), "Transpose", (2, 3), perm=[1, 0])


def normalization():
    parameters = {"scale": floats(3), "bias": floats(3), "mean": floats(3), "var": np.abs(floats(3)) + 0.5}
    one("batch_norm", (7, 9, 13, 14), "BatchNormalization", (2, 3, 4, 4), parameters, epsilon=1e-3)
    one("batch_norm_spatial", (7, 8), "BatchNormalization", (2, 3, 4, 4), parameters, spatial=1)
    wide = {"scale": floats(3, 4), "bias": floats(3, 4), "mean": floats(3, 4), "var": np.abs(floats(3, 4)) + 0.5}
    one("refused_batch_norm_not_spatial", (7,), "BatchNormalization", (2, 3, 4), wide, spatial=0)
    training = ("y", "m", "v", "sm", "sv")
    one("refused_batch_norm_training", (9,), "BatchNormalization", (2, 3, 4, 4), parameters, outputs=training)
    one("instance_norm", (7,), "InstanceNormalization", (2, 3, 4, 4), {"scale": floats(3), "bias": floats(3)})
    one("lrn", (7,), "LRN", (2, 5, 4, 4), size=3)
    one("lp_norm", (7,), "LpNormalization", (2, 3), axis=1, p=2)
    one("mvn", (9,), "MeanVarianceNormalization", (2, 3, 4, 4))
    for opset in (7, 9, 10, 11):
        one("dropout", [opset], "Dropout", (2, 3), ratio=0.3)
        one("dropout_mask_unread", [opset], "Dropout", (2, 3), names=["y", "mask"], ratio=0.3)
        if opset >= 10:
            one("refused_dropout_mask_read", [opset], "Dropout", (2, 3), outputs=("y", ("mask", BOOL)), ratio=0.3)
    one("refused_dropout_mask_read", (7,), "Dropout", (2, 3), outputs=("y", "mask"), ratio=0.3)
    one("group_norm", (18, 20), "GroupNormalization", (2, 6, 4), {"scale": floats(3), "bias": floats(3)}, num_groups=3)


def resizing():
    up, down, both = np.array([1, 1, 2, 3], np.float32), np.array([1, 1, 0.5, 0.6], np.float32), np.array([1, 1, 2, 0.5], np.float32)
    for mode in ("nearest", "linear"):
        for opset in (7, 8):
            one(f"upsample_{mode}", [opset], "Upsample", (1, 2, 3, 4), mode=mode, scales=[1.0, 1.0, 2.0, 2.5])
        one(f"upsample_{mode}", (9,), "Upsample", (1, 2, 3, 4), {"scales": up}, mode=mode)
        one(f"resize_{mode}_up", (10,), "Resize", (1, 2, 4, 6), {"scales": up}, mode=mode)
        one(f"resize_{mode}_down", (10,), "Resize", (1, 2, 6, 8), {"scales": down}, mode=mode)
        prefix = "refused_" if mode == "nearest" else ""
        one(f"{prefix}resize_{mode}_both", (10,), "Resize", (1, 2, 6, 8), {"scales": both}, mode=mode)
    for scale in (1.5, 2.0, 2.7, 3.0, 0.5, 0.7):
        scales = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, scale, scale * 1.1], np.float32)}
        for rounding in ("floor", "round_prefer_floor", "ceil"):
            prefix = "refused_" if rounding == "ceil" else ""
            one(f"{prefix}resize_tf_{rounding}_{scale}", (11,), "Resize", (1, 1, 9, 13), scales, mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode=rounding)
    empty, roi = np.zeros(0, np.float32), np.zeros(8, np.float32)
    modes = {"half_pixel": "linear", "asymmetric": "nearest", "align_corners": "linear", "pytorch_half_pixel": "cubic", "tf_half_pixel_for_nn": "nearest"}
    for opset in (11, 12, 13, 18):
        for transform, mode in modes.items():
            if opset < 13 or transform != "tf_half_pixel_for_nn":
                one(f"resize_{transform}", [opset], "Resize", (1, 2, 4, 6), {"roi": empty, "scales": up}, mode=mode, coordinate_transformation_mode=transform, nearest_mode="floor")
    sizes = {"roi": empty, "scales": empty, "sizes": ints(1, 2, 7, 9)}
    one("resize_sizes", (11, 12), "Resize", (1, 2, 4, 6), sizes, mode="linear")
    one("resize_roi", (11, 12), "Resize", (1, 2, 4, 6), {"roi": roi, "scales": up}, mode="linear")
    crop = np.array([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9], np.float32)
    one("resize_crop", (11, 13), "Resize", (1, 2, 4, 6), {"roi": crop, "scales": up}, mode="linear", coordinate_transformation_mode="tf_crop_and_resize")
    boxes = {"rois": np.array([[0, 0, 3, 3], [1, 1, 4, 5]], np.float32), "batch": ints(0, 0)}
    one("roi_align", (10, 15), "RoiAlign", (1, 2, 6, 6), boxes, output_height=2, output_width=3, sampling_ratio=2)
    grid = RNG.uniform(-1, 1, (1, 3, 3, 2)).astype(np.float32)
    for mode in ("bilinear", "nearest", "bicubic"):
        one(f"grid_sample_{mode}", (16, 19), "GridSample", (1, 2, 5, 5), {"grid": grid}, mode=mode)
    one("grid_sample_default", (16,), "GridSample", (1, 2, 5, 5), {"grid": grid})


def layers():
    one("conv", (7, 10, 11), "Conv", (1, 3, 6, 6), {"w": floats(4, 3, 3, 3)}, pads=[1, 1, 1, 1])
    one("conv_transpose", (7, 10), "ConvTranspose", (1, 3, 5, 5), {"w": floats(3, 2, 3, 3)}, strides=[2, 2])
    one("conv_transpose_same", (7, 10), "ConvTranspose", (1, 3, 5, 5), {"w": floats(3, 2, 3, 3)}, strides=[2, 2], auto_pad="SAME_UPPER")
    one("gemm", (7, 9, 11), "Gemm", (2, 3), {"w": floats(3, 4), "b": floats(4)}, alpha=0.5)
    one("mat_mul", (7, 9), "MatMul", (2, 3), {"w": floats(3, 4)})
    one("concat", (7, 11), "Concat", (2, 3), {"w": floats(2, 4)}, axis=1)
    for opset in (7, 8, 10, 11, 12, 19):
        for op in ("AveragePool", "MaxPool"):
            one(f"{op}", [opset], op, (1, 2, 7, 7), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
            one(f"{op}_same", [opset], op, (1, 2, 7, 7), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")
            if opset >= 10:
                one(f"{op}_ceil", [opset], op, (1, 2, 6, 6), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
                one(f"{op}_ceil_padded", [opset], op, (1, 2, 6, 6), kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)
        one("average_pool_counting", [opset], "AveragePool", (1, 2, 7, 7), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    one("max_pool_indices", (8, 11), "MaxPool", (1, 2, 6, 6), outputs=("y", ("i", I64)), kernel_shape=[2, 2])
    one("lp_pool", (7, 11), "LpPool", (1, 2, 6, 6), kernel_shape=[2, 2], p=2)
    one("global_pool", (7,), "GlobalAveragePool", (1, 2, 6, 6))
    hidden = 4
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        weights = {"w": floats(1, gates * hidden, 3), "r": floats(1, gates * hidden, hidden)}
        one(op.lower(), (7, 13), op, (5, 2, 3), weights, outputs=("y", "h"), hidden_size=hidden)
    one("quantize", (10, 13), "QuantizeLinear", (3, 4), {"s": np.float32(0.1), "z": np.uint8(7)}, outputs=(("y", TensorProto.UINT8),))
    add("qdq", 10, [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ], {"x": (F32, (3, 4))}, {"s": np.float32(0.1), "z": np.int8(3)})  # fmt: skip
    one("dft", (17, 19), "DFT", (1, 8, 1), axis=1)
    one("dft_default", (17,), "DFT", (2, 8, 3, 1))
    one("dft_length", (17,), "DFT", (2, 8, 1), {"n": np.array(4, np.int64)}, axis=1, onesided=1)
    one("layer_norm", (17,), "LayerNormalization", (2, 4), {"s": floats(4), "b": floats(4)})
    for op in ("Add", "Mul", "Sub", "Div", "Pow", "Max", "Min", "Mean", "Sum"):
        one(f"binary_{op}", (8, 12, 13), op, (2, 3, 4), {"other": np.abs(floats(4))})
    one("equal", (11,), "Equal", (2, 3), {"other": floats(3)}, outputs=(("y", BOOL),))
    one("less", (7, 9), "Less", (2, 3), {"other": floats(3)}, outputs=(("y", BOOL),))


def subgraphs():
    branches = {}
    for name, op in (("then_branch", "Softmax"), ("else_branch", "Hardmax")):
        nodes = [
            helper.make_node("Unsqueeze", ["r"], ["u"], axes=[0]), helper.make_node(op, ["u"], ["s"]),
            helper.make_node("Clip", ["s"], ["c"], max=0.5), helper.make_node("Squeeze", ["c"], ["out"], axes=[0]),
        ]  # fmt: skip
        branches[name] = helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("out", F32, None)])
    add("if_bodies", 9, [
        helper.make_node("Relu", ["x"], ["r"]), helper.make_node("If", ["condition"], ["z"], **branches),
        helper.make_node("ReduceMean", ["z"], ["y"], axes=[1]),
    ], {"x": (F32, (2, 3, 4)), "condition": (BOOL, ())})  # fmt: skip
    body = helper.make_graph([
        helper.make_node("Identity", ["go"], ["go_out"]), helper.make_node("Slice", ["state"], ["first"], starts=[0], ends=[1]),
        helper.make_node("Add", ["state", "first"], ["state_out"]), helper.make_node("ReduceSum", ["state"], ["sum"], axes=[1], keepdims=0),
    ], "body", [
        helper.make_tensor_value_info("i", I64, ()), helper.make_tensor_value_info("go", BOOL, ()), helper.make_tensor_value_info("state", F32, (2, 3)),
    ], [
        helper.make_tensor_value_info("go_out", BOOL, ()), helper.make_tensor_value_info("state_out", F32, (2, 3)), helper.make_tensor_value_info("sum", F32, (2,)),
    ])  # fmt: skip
    add("loop_body", 9, [helper.make_node("Loop", ["n", "go0", "x"], ["y", "sums"], body=body)],
        {"x": (F32, (2, 3))}, {"n": np.array(3, np.int64), "go0": np.array(True)}, outputs=("y", "sums"))  # fmt: skip
    scan = helper.make_graph([
        helper.make_node("Add", ["s", "e"], ["s_out"]), helper.make_node("Pad", ["s_out"], ["e_out"], pads=[1, 1], value=2.0),
    ], "scan", [helper.make_tensor_value_info("s", F32, (3,)), helper.make_tensor_value_info("e", F32, (3,))],
       [helper.make_tensor_value_info("s_out", F32, (3,)), helper.make_tensor_value_info("e_out", F32, (5,))])  # fmt: skip
    add("scan_body", 9, [helper.make_node("Scan", ["s0", "x"], ["y", "all"], body=scan, num_scan_inputs=1)],
        {"x": (F32, (4, 3))}, {"s0": floats(3)}, outputs=("y", "all"))  # fmt: skip
    function = helper.make_function("local", "Norm", ["a"], ["b"], [
        helper.make_node("ReduceMean", ["a"], ["m"], axes=[1]), helper.make_node("Sub", ["a", "m"], ["d"]),
        helper.make_node("Unsqueeze", ["d"], ["u"], axes=[0]), helper.make_node("Softmax", ["u"], ["b"], axis=2),
    ], [helper.make_opsetid("", 12)])  # fmt: skip
    add("local_function", 12, [helper.make_node("Norm", ["x"], ["y"], domain="local")], {"x": (F32, (2, 3))}, functions=[function], domains=["local"])


def broadcasting():
    """Opset 6: ONNX Runtime does not run it; the rewritten models are compared with `expected`."""
    x, rows, slopes = floats(2, 3, 4), floats(3), floats(3)
    cases = {
        "old_broadcast_axis": (helper.make_node("Add", ["x", "w"], ["y"], broadcast=1, axis=1), {"w": rows}, x + rows[:, None]),
        "old_broadcast_suffix": (helper.make_node("Mul", ["x", "w"], ["y"], broadcast=1), {"w": rows[:, None] + floats(3, 4)}, None),
        "old_prelu": (helper.make_node("PRelu", ["x", "w"], ["y"]), {"w": slopes}, np.where(x < 0, x * slopes[:, None], x)),
        "old_dropout": (helper.make_node("Dropout", ["x"], ["y"], is_test=1), {}, x),
        "old_clip": (helper.make_node("Clip", ["x"], ["y"], max=0.5, consumed_inputs=[0]), {}, np.minimum(x, 0.5)),
    }  # fmt: skip
    for name, (node, constants, expected) in cases.items():
        expected = x * constants["w"] if expected is None else expected
        opset = 5 if name == "old_clip" else 6
        add(name, opset, [node], {"x": (F32, x.shape)}, constants, listed=True)
        yield f"{name}_{opset}", x, expected.astype(np.float32)
    add("refused_training_dropout", 6, [helper.make_node("Dropout", ["x"], ["y"])], {"x": (F32, (2, 3))})


def write(out):
    for fill in (axes_and_reductions, softmax, shapes_and_slices, activations, normalization, resizing, layers, subgraphs):
        fill()
    recorded = list(broadcasting())
    for name, model in MODELS.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / "model.onnx")
    for name, x, y in recorded:
        data = out / name / "test_data_set_0"
        data.mkdir(exist_ok=True)
        (data / "input_0.pb").write_bytes(numpy_helper.from_array(x, "x").SerializeToString())
        (data / "output_0.pb").write_bytes(numpy_helper.from_array(y, "y").SerializeToString())
    print(f"{len(MODELS)} models")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(pathlib.Path(sys.argv[1]))
