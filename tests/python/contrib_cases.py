"""Nodes of ONNX Runtime's own domain, as its transformer optimizer and onnxruntime-genai's builder write them.

A case is a name, a node, what it is given by name, and an opset. What it expects is what ONNX Runtime computes.
"""

import numpy as np
from onnx import helper

DOMAIN = "com.microsoft"
HIDDEN, HEADS, KV_HEADS, HEAD = 64, 4, 2, 16


def numbers(*shape, seed=0):
    """Floats around 0."""
    return np.random.default_rng(100 + seed + sum(shape)).normal(size=shape).astype(np.float32)


def angles(width, length=16):
    """Tables of cosines and sines, `[length, width]`."""
    turns = np.arange(length)[:, None] / 10.0 ** (np.arange(width)[None] / width)
    return {"cos": np.cos(turns).astype(np.float32), "sin": np.sin(turns).astype(np.float32)}


def case(name, op_type, slots, inputs, outputs, **attributes):
    """A case whose node reads `slots`, some of which may be empty."""
    node = helper.make_node(op_type, slots, outputs, name="node", domain=DOMAIN, **attributes)
    return name, node, {slot: inputs[slot] for slot in dict.fromkeys(slots) if slot}, 17


def grouped(name, new=3, past=0, batch=1, packed=False, extra=None, **attributes):
    """Attention of groups of heads: `new` tokens behind `past` ones."""
    extra, width = extra or {}, attributes.pop("width", HEAD)
    slots = ["q", "k", "v"] if not packed else ["q", "", ""]
    heads = HEADS + 2 * KV_HEADS if packed else HEADS
    kv = (batch, new, KV_HEADS * width)
    caches = (batch, KV_HEADS, past, width)
    inputs = {"q": numbers(batch, new, heads * width), "k": numbers(*kv, seed=1), "v": numbers(*kv, seed=2),
              "past_k": numbers(*caches, seed=3), "past_v": numbers(*caches, seed=4),
              "lengths": np.full(batch, past + new - 1, np.int32), "total": np.array(past + new, np.int32)} | extra
    more = ["cos", "sin", "positions", "bias", "sink"]
    slots += ["past_k", "past_v", "lengths", "total"] + [slot if slot in extra else "" for slot in more]
    while not slots[-1]:
        slots.pop()
    return case("grouped_" + name, "GroupQueryAttention", slots, inputs, ["y", "present_k", "present_v"],
                num_heads=HEADS, kv_num_heads=KV_HEADS, **attributes)


def grouped_cases():
    """What decoders use of it."""
    rotary = {"extra": angles(HEAD // 2), "do_rotary": 1}
    yield grouped("prompt")
    yield grouped("decoding", new=1, past=5)
    yield grouped("behind_a_past", new=3, past=4)
    yield grouped("of_two", new=3, batch=2)
    yield grouped("packed", packed=True, **rotary)
    yield grouped("packed_behind_a_past", new=2, past=3, packed=True, **rotary)
    yield grouped("rotary", **rotary)
    yield grouped("rotary_in_pairs", new=2, past=2, rotary_interleaved=1, **rotary)
    yield grouped("rotary_in_part", new=2, past=2, width=32, extra=angles(8), do_rotary=1)
    yield grouped("rotary_at_positions", new=3, do_rotary=1,
                  extra=angles(HEAD // 2) | {"positions": np.array([[4, 5, 6]], np.int64)})
    yield grouped("window", new=6, local_window_size=2)
    yield grouped("window_behind_a_past", new=2, past=5, local_window_size=3)
    yield grouped("softcap", softcap=0.7, scale=2.0)
    yield grouped("bias", new=2, past=2, extra={"bias": numbers(1, 1, 2, 4)})
    yield grouped("sink", new=3, past=2, extra={"sink": numbers(HEADS)})
    yield grouped("smooth", smooth_softmax=1)


def multi_head(name, slots, inputs, outputs=("y",), **attributes):
    """Attention of heads that have keys of their own."""
    return case("multi_head_" + name, "MultiHeadAttention", slots, inputs, list(outputs), num_heads=HEADS, **attributes)


def multi_head_cases():
    """What fused encoders and decoders use of it."""
    keys = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    three = {name: numbers(2, 3, HIDDEN, seed=seed) for seed, name in enumerate("q")}
    five = {name: numbers(2, 5, HIDDEN, seed=seed) for seed, name in enumerate("kv", 1)}
    of_heads = {name: numbers(2, HEADS, 5, HEAD, seed=seed) for seed, name in enumerate(("kh", "vh"), 3)}
    past = {name: numbers(2, HEADS, 2, HEAD, seed=seed) for seed, name in enumerate(("past_k", "past_v"), 5)}
    more = {"b": numbers(3 * HIDDEN), "keys": keys, "lengths": np.array([3, 5], np.int32),
            "bias": numbers(1, HEADS, 3, 5, seed=7), "bias_of_all": numbers(1, 1, 3, 7, seed=8)}
    given = three | five | of_heads | past | more
    present = ["y", "present_k", "present_v"]
    yield multi_head("plain", ["q", "k", "v"], given)
    yield multi_head("with_bias", ["q", "k", "v", "b"], given, scale=0.3)
    yield multi_head("masked", ["q", "k", "v", "b", "keys"], given)
    yield multi_head("masked_by_lengths", ["q", "k", "v", "", "lengths"], given)
    yield multi_head("biased", ["q", "k", "v", "", "", "bias"], given)
    yield multi_head("behind_a_past", ["q", "k", "v", "", "", "bias_of_all", "past_k", "past_v"], given, present)
    yield multi_head("causal", ["q", "q", "q"], given, unidirectional=1)
    yield multi_head("causal_behind_a_past", ["q", "q", "q", "", "", "", "past_k", "past_v"], given, present,
                     unidirectional=1)
    yield multi_head("to_heads", ["q", "kh", "vh"], given)


def packed_attention(name, slots, outputs=("y",), **attributes):
    """Attention with the projection inside."""
    given = {"x": numbers(2, 4, HIDDEN), "w": numbers(HIDDEN, 3 * HIDDEN), "b": numbers(3 * HIDDEN),
             "narrow": numbers(HIDDEN, 2 * HIDDEN + 8), "narrow_b": numbers(2 * HIDDEN + 8),
             "keys": np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.int32), "lengths": np.array([2, 4], np.int32),
             "pairs": np.tril(np.ones((2, 4, 4), np.int32)), "bias": numbers(2, HEADS, 4, 4),
             "past": numbers(2, 2, HEADS, 3, HEAD)}
    return case("packed_attention_" + name, "Attention", slots, given, list(outputs), num_heads=HEADS, **attributes)


def packed_attention_cases():
    """What fused encoders and GPT-2 use of it."""
    yield packed_attention("plain", ["x", "w", "b"])
    yield packed_attention("masked", ["x", "w", "b", "keys"])
    yield packed_attention("masked_by_lengths", ["x", "w", "b", "lengths"])
    yield packed_attention("masked_by_pairs", ["x", "w", "b", "pairs"])
    yield packed_attention("causal", ["x", "w", "b", "keys"], unidirectional=1)
    yield packed_attention("biased", ["x", "w", "b", "", "", "bias"], scale=0.4)
    yield packed_attention("of_sizes", ["x", "narrow", "narrow_b"], qkv_hidden_sizes=[HIDDEN, HIDDEN, 8])
    yield packed_attention("behind_a_past", ["x", "w", "b", "", "past"], ["y", "present"], unidirectional=1)


def normalization_cases():
    """What is added and normalized in one."""
    given = {"x": numbers(2, 3, 8), "skip": numbers(2, 3, 8, seed=1), "wide": numbers(1, 3, 8, seed=2),
             "gamma": numbers(8), "beta": numbers(8, seed=1), "bias": numbers(8, seed=2)}
    sums = ["y", "", "", "sum"]
    yield case("skip_layer_norm", "SkipLayerNormalization", ["x", "skip", "gamma", "beta", "bias"], given, sums,
               epsilon=1e-3)
    yield case("skip_layer_norm_plain", "SkipLayerNormalization", ["x", "wide", "gamma"], given, ["y"])
    yield case("skip_rms_norm", "SkipSimplifiedLayerNormalization", ["x", "skip", "gamma", "bias"], given, sums,
               epsilon=1e-3)
    yield case("skip_rms_norm_plain", "SkipSimplifiedLayerNormalization", ["x", "skip", "gamma"], given, ["y"])
    words = {"ids": np.array([[1, 4, 2], [3, 0, 5]], np.int32), "segments": np.array([[0, 0, 1], [0, 1, 1]], np.int32),
             "word": numbers(6, 8), "position": numbers(5, 8, seed=1), "segment": numbers(2, 8, seed=2),
             "at": np.array([[2, 3, 4], [0, 1, 2]], np.int32),
             "gamma": given["gamma"], "beta": given["beta"]}
    tables = ["word", "position", "segment", "gamma", "beta"]
    yield case("embed_layer_norm", "EmbedLayerNormalization", ["ids", "segments", *tables], words,
               ["y", ""], epsilon=1e-3)
    yield case("embed_layer_norm_at", "EmbedLayerNormalization", ["ids", "segments", *tables, "", "at"], words,
               ["y", "", "sum"])
    yield case("embed_layer_norm_of_words", "EmbedLayerNormalization",
               ["ids", "", "word", "position", "", "gamma", "beta"], words, ["y", ""])


def rotary_cases():
    """Angles by position."""
    given = {"x": numbers(2, 3, HIDDEN), "heads": numbers(2, HEADS, 3, HEAD), "from": np.array([2], np.int64),
             "at": np.array([[0, 1, 2], [4, 5, 6]], np.int64)} | angles(HEAD // 2)
    part = given | angles(1)
    slots = ["at", "cos", "sin"]
    yield case("rotary", "RotaryEmbedding", ["x", *slots], given, ["y"])
    yield case("rotary_from", "RotaryEmbedding", ["x", "from", "cos", "sin"], given, ["y"], interleaved=1)
    yield case("rotary_of_heads", "RotaryEmbedding", ["heads", *slots], given, ["y"])
    yield case("rotary_in_part", "RotaryEmbedding", ["x", *slots], part, ["y"], num_heads=HEADS, rotary_embedding_dim=2)


def activation_cases():
    """Activations, and products with them."""
    given = {"x": numbers(2, 3, 8), "b": numbers(8, seed=1), "w": numbers(2, 8, 5), "turned": numbers(2, 5, 8)}
    yield case("bias_gelu", "BiasGelu", ["x", "b"], given, ["y"])
    yield case("fast_gelu", "FastGelu", ["x"], given, ["y"])
    yield case("fast_gelu_with_bias", "FastGelu", ["x", "b"], given, ["y"])
    yield case("quick_gelu", "QuickGelu", ["x"], given, ["y"], alpha=1.702)
    yield case("gelu", "Gelu", ["x"], given, ["y"])
    yield case("product", "FusedMatMul", ["x", "w"], given, ["y"], alpha=0.5)
    yield case("product_of_turned", "FusedMatMul", ["x", "turned"], given, ["y"], transB=1, alpha=2.0)


def contrib_nodes():
    """Name, node, inputs and opset of every case."""
    for cases in (grouped_cases, multi_head_cases, packed_attention_cases, normalization_cases, rotary_cases,
                  activation_cases):
        yield from cases()
