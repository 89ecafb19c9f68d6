"""Runs a decoder of floats and one whose caches are int8 side by side, as those who serve it do.

    python tests/python/caches.py FLOAT QUANTIZED SAMPLE.npz...

The past of a sample becomes codes with the scales that the quantized model holds, and the codes that it returns become
floats again. Prints one JSON line: `sqnr_db`, the SQNR of the least exact output over all samples, and `past_tokens`, the
tokens of past that the samples hold together.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime


def scales_of(path):
    """The scales of every input and output that is a cache of int8, to be multiplied with [batch, heads, tokens, size]."""
    graph = onnx.load(path).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            for past, present, scale in ((3, 1, 12), (4, 2, 13)):
                found[node.input[past]] = found[node.output[present]] = constants[node.input[scale]][None]
    return found


def main():
    paths, samples = sys.argv[1:3], sys.argv[3:]
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths]
    scales = scales_of(paths[1])
    kinds = {port.name: port.type for port in sessions[1].get_inputs() + sessions[1].get_outputs()}
    for name in scales:
        assert kinds[name] == "tensor(int8)", f"{name} is {kinds[name]}"
    names = [output.name for output in sessions[0].get_outputs()]
    power, past_tokens = {name: np.zeros(2) for name in names}, 0
    for path in samples:
        sample = dict(np.load(path))
        codes = {
            name: np.clip(np.rint(sample[name] / scales[name]), -128, 127).astype(np.int8)
            for name in sample
            if name in scales
        }
        past_tokens += next(iter(codes.values())).shape[2]
        exact = sessions[0].run(names, sample)
        found = sessions[1].run(names, sample | codes)
        for name, a, b in zip(names, exact, found):
            b = b * scales[name] if name in scales else b
            power[name] += np.array([np.square(a.astype(np.float64)).sum(), np.square(a - b.astype(np.float64)).sum()])
    sqnr = min(10 * np.log10(signal / error) for signal, error in power.values())
    print(json.dumps({"sqnr_db": sqnr, "past_tokens": past_tokens}))


if __name__ == "__main__":
    main()
