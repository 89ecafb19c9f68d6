#!/usr/bin/env python3
"""Writes a decoder of random weights with external data, to see what a large model takes.

    make_decoder.py FOLDER [--blocks 22] [--width 2048] [--hidden 5632] [--samples 16] [--tokens 128]

Each block is attention (query, key, value, output) and a gated feed-forward part, both behind a LayerNormalization:
51 million parameters with the sizes above, 1.13 thousand million in 22 blocks. FOLDER gets `model.onnx`,
`model.onnx.data` and `calib/`, and the model is quantized by

    onnxquant FOLDER/model.onnx FOLDER/q.onnx --calib FOLDER/calib --scheme w4

Needs: numpy, onnx.
"""
import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

HEAD = 64


class Decoder:
    """A graph whose weights go into a file as they are made."""

    def __init__(self, data, seed=1):
        self.data, self.offset, self.parameters = data, 0, 0
        self.random = np.random.default_rng(seed)
        self.nodes, self.initializers = [], []

    def constant(self, name, array):
        self.initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    def weight(self, name, inputs, outputs):
        values = self.random.standard_normal((inputs, outputs), dtype=np.float32) / np.float32(np.sqrt(inputs))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": Path(self.data.name).name, "offset": self.offset, "length": values.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self.data.write(values.tobytes())
        self.offset += values.nbytes
        self.parameters += values.size
        self.initializers.append(tensor)
        return name

    def node(self, op_type, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def linear(self, name, x, inputs, outputs):
        return self.node("MatMul", [x, self.weight(f"{name}_weight", inputs, outputs)], name)

    def norm(self, name, x):
        return self.node("LayerNormalization", [x, "gain", "offset"], name, axis=-1)

    def heads(self, name, x, width, perm):
        split = self.node("Reshape", [self.linear(name, x, width, width), "split"], f"{name}_split")
        return self.node("Transpose", [split], f"{name}_heads", perm=perm)

    def block(self, name, x, width, hidden):
        y = self.norm(f"{name}_norm1", x)
        query, value = (self.heads(f"{name}_{what}", y, width, [0, 2, 1, 3]) for what in ("query", "value"))
        key = self.heads(f"{name}_key", y, width, [0, 2, 3, 1])
        scores = self.node("Mul", [self.node("MatMul", [query, key], f"{name}_products"), "root"], f"{name}_scores")
        mixed = self.node("MatMul", [self.node("Softmax", [scores], f"{name}_shares", axis=-1), value], f"{name}_mixed")
        mixed = self.node("Transpose", [mixed], f"{name}_rows", perm=[0, 2, 1, 3])
        mixed = self.node("Reshape", [mixed, "join"], f"{name}_joined")
        x = self.node("Add", [x, self.linear(f"{name}_output", mixed, width, width)], f"{name}_attended")
        y = self.norm(f"{name}_norm2", x)
        gate = self.linear(f"{name}_gate", y, width, hidden)
        gate = self.node("Mul", [gate, self.node("Sigmoid", [gate], f"{name}_sigmoid")], f"{name}_silu")
        inner = self.node("Mul", [gate, self.linear(f"{name}_up", y, width, hidden)], f"{name}_inner")
        return self.node("Add", [x, self.linear(f"{name}_down", inner, hidden, width)], f"{name}_result")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for option, default in {"blocks": 22, "width": 2048, "hidden": 5632, "samples": 16, "tokens": 128}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    args = parser.parse_args()
    (args.folder / "calib").mkdir(parents=True, exist_ok=True)
    with open(args.folder / "model.onnx.data", "wb") as data:
        decoder = Decoder(data)
        decoder.constant("gain", np.ones(args.width, np.float32))
        decoder.constant("offset", np.zeros(args.width, np.float32))
        decoder.constant("root", np.array(HEAD**-0.5, np.float32))
        decoder.constant("split", np.array([0, 0, args.width // HEAD, HEAD], np.int64))
        decoder.constant("join", np.array([0, 0, args.width], np.int64))
        x = "x"
        for block in range(args.blocks):
            x = decoder.block(f"block{block}", x, args.width, args.hidden)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", args.width]) for name in ("x", x)]
    graph = helper.make_graph(decoder.nodes, "decoder", ports[:1], ports[1:], decoder.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (args.folder / "model.onnx").write_bytes(model.SerializeToString())
    channels = decoder.random.standard_normal(args.width)
    for sample in range(args.samples):
        rows = decoder.random.standard_normal((1, args.tokens, args.width)) * channels
        np.savez(args.folder / f"calib/{sample:03d}.npz", x=rows.astype(np.float32))
    print(f"{decoder.parameters / 1e6:.0f} million parameters")


if __name__ == "__main__":
    main()
