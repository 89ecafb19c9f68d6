"""Loads and runs models in ONNX Runtime and says what it found.

    python tests/python/measure.py < jobs.json > results.json

Standard input holds a JSON list of jobs, standard output gets a list of results in the same
order. One process serves many models, because importing the packages takes longer than
running a small model.

A job names a `model` and what is wanted:

| key | wanted | result |
|---|---|---|
| `check` | true | the ONNX checker with shape inference: `problems` |
| `load` | true | loading at every optimization level: `problems` |
| `nodes` | true | `nodes`: operators of the fully optimized graph, with counts |
| `exact_products` | true | no products that saturate, on any processor: weights become unsigned |
| `reference`, `samples` | a model and .npz files | `sqnr_db`, `default_sqnr_db`, `default_by_output_db`, `agreement_db`, `differences` |
| `labels` | .npz with inputs and labels `y` | `accuracy` of the first output |
| `captures` | pairs of .npz: sample, captured values | `capture_error`: largest relative difference |

`sqnr_db` is measured without the optimizations that change numbers, `default_sqnr_db` as users
run the model, `agreement_db` compares these two runs of the model with each other; each is that of
the output where it is least, null where nothing differs. `differences` lists what a ratio cannot express: other types, other shapes, other
integers, NaN on one side only.
"""

import json
import math
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnxruntime import GraphOptimizationLevel as Level

LEVELS = {
    "none": Level.ORT_DISABLE_ALL,
    "basic": Level.ORT_ENABLE_BASIC,
    "extended": Level.ORT_ENABLE_EXTENDED,
    "all": Level.ORT_ENABLE_ALL,
}
EXACT = {"session.qdq_matmulnbits_accuracy_level": "1"}
EXACT_PRODUCTS = {"session.x64quantprecision": "1"}
SMALLEST_INTERESTING = 1e-30


def session(model, level="all", config=None, save_as=None):
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    if save_as:
        options.optimized_model_filepath = str(save_as)
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def exact_session(model):
    """Without the optimizations that change numbers, and without rounding of activations inside `MatMulNBits`."""
    loaded = onnx.load(model, load_external_data=False)
    levels = [a for node in loaded.graph.node for a in node.attribute if a.name == "accuracy_level"]
    if not levels:
        return session(model, "basic", EXACT)
    for level in levels:
        level.i = 1
    with tempfile.NamedTemporaryFile(dir=Path(model).parent, suffix=".onnx") as file:
        file.write(loaded.SerializeToString())
        file.flush()
        return session(file.name, "basic", EXACT)


def problem(what, action):
    """What `action` raised, in one line, or nothing."""
    try:
        action()
    except Exception as error:
        return [f"{what}: {type(error).__name__}: {' '.join(str(error).split())}"]
    return []


def check(model):
    def run():
        onnx.checker.check_model(str(model), full_check=True)
        with tempfile.TemporaryDirectory(dir=Path(model).parent) as folder:
            inferred = Path(folder) / "inferred.onnx"
            onnx.shape_inference.infer_shapes_path(str(model), str(inferred), check_type=True, strict_mode=True)

    return problem("checker", run)


def load(model):
    return [p for level in LEVELS for p in problem(f"level {level}", lambda level=level: session(model, level))]


def optimized_nodes(model):
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "optimized.onnx"
        session(model, "all", save_as=saved)
        nodes = onnx.load(saved, load_external_data=False).graph.node
    return dict(sorted(Counter(operator(node) for node in nodes).items()))


def operator(node):
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def read_sample(path, used):
    """The arrays of an .npz file that the session takes as inputs; f32 becomes f16 where that is wanted."""
    kinds = {i.name: i.type for i in used.get_inputs()}
    with numpy.load(path) as file:
        arrays = {name: file[name] for name in file.files if name in kinds}
    halves = {name for name, kind in kinds.items() if kind == "tensor(float16)"}
    arrays = {name: a.astype(numpy.float16) if name in halves else a for name, a in arrays.items()}
    return {name: a.astype(object) if a.dtype.kind == "U" else a for name, a in arrays.items()}


def run(used, path):
    names = [output.name for output in used.get_outputs()]
    values = used.run(None, read_sample(path, used))
    return dict(zip(names, values))


def leaves(name, value):
    """Tensors of a value: itself, or the elements of a sequence."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from leaves(f"{name}[{index}]", element)
    else:
        yield name, numpy.asarray(value)


class Comparison:
    """Sums over samples, by output."""

    def __init__(self):
        self.signal, self.error = Counter(), Counter()
        self.differences = []

    def add(self, reference, found):
        if list(reference) != list(found):
            self.differences.append(f"outputs {list(found)} instead of {list(reference)}")
        for name in reference.keys() & found.keys():
            a, b = dict(leaves(name, reference[name])), dict(leaves(name, found[name]))
            if a.keys() != b.keys():
                self.differences.append(f"{name}: {len(b)} elements instead of {len(a)}")
            for key in a.keys() & b.keys():
                self.add_array(key, a[key], b[key])

    def add_array(self, name, a, b):
        if a.dtype != b.dtype or a.shape != b.shape:
            self.differences.append(f"{name}: {b.dtype}{list(b.shape)} instead of {a.dtype}{list(a.shape)}")
        elif a.dtype.kind != "f":
            if not numpy.array_equal(a, b):
                self.differences.append(f"{name}: other {a.dtype}")
        else:
            self.add_floats(name, a.astype(numpy.float64), b.astype(numpy.float64))

    def add_floats(self, name, a, b):
        finite = numpy.isfinite(a)
        if not numpy.array_equal(a[~finite], b[~finite], equal_nan=True) or not numpy.isfinite(b[finite]).all():
            self.differences.append(f"{name}: other infinities or NaN")
            return
        self.signal[name] += float((a[finite] ** 2).sum())
        self.error[name] += float(((a[finite] - b[finite]) ** 2).sum())

    def sqnr_db(self):
        """That of the output where it is least; None where nothing differs."""
        return min(self.by_output().values(), default=None)

    def by_output(self):
        """Of every output that differs."""
        power = {name: max(self.signal[name], SMALLEST_INTERESTING) for name in self.error}
        return {name: 10.0 * math.log10(power[name] / error) for name, error in self.error.items() if error}


def compare(job, result):
    reference = exact_session(job["reference"])
    config = EXACT_PRODUCTS if job.get("exact_products") else None
    exact, default = exact_session(job["model"]), session(job["model"], config=config)
    exact_sums, default_sums, agreement = Comparison(), Comparison(), Comparison()
    for sample in job["samples"]:
        expected, found, fast = run(reference, sample), run(exact, sample), run(default, sample)
        exact_sums.add(expected, found)
        default_sums.add(expected, fast)
        agreement.add(found, fast)
    result["sqnr_db"], result["default_sqnr_db"] = exact_sums.sqnr_db(), default_sums.sqnr_db()
    result["default_by_output_db"] = default_sums.by_output()
    result["agreement_db"] = agreement.sqnr_db()
    result["differences"] = exact_sums.differences + [f"optimized: {d}" for d in default_sums.differences]


def accuracy(model, labels):
    first = next(iter(run(session(model), labels).values()))
    with numpy.load(labels) as file:
        return float((first.argmax(axis=-1) == file["y"]).mean())


def capture_error(job):
    """The largest difference of a captured value, relative to the largest magnitude in it."""
    model = onnx.load(job["model"])
    with numpy.load(job["captures"][0][1]) as file:
        names = file.files
    known = {value.name for value in model.graph.input}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    used = session_of_bytes(model.SerializeToString())
    worst = 0.0
    for sample, captured in job["captures"]:
        inputs = read_sample(sample, used)
        values = dict(zip([o.name for o in used.get_outputs()], used.run(None, inputs)))
        with numpy.load(captured) as file:
            for name in names:
                expected, found = {**inputs, **values}[name], file[name]
                if expected.shape != found.shape:
                    raise ValueError(f"{name} has shape {found.shape}, expected {expected.shape}")
                scale = max(float(numpy.abs(expected).max()), SMALLEST_INTERESTING)
                worst = max(worst, float(numpy.abs(expected - found).max()) / scale)
    return {"capture_error": worst, "captured_values": len(names)}


def session_of_bytes(content):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = Level.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def measure(job):
    result = {"problems": []}
    if job.get("check"):
        result["problems"] += check(job["model"])
    if job.get("load"):
        result["problems"] += load(job["model"])

    def figures():
        if job.get("nodes"):
            result["nodes"] = optimized_nodes(job["model"])
        if "reference" in job:
            compare(job, result)
        if "labels" in job:
            result["accuracy"] = accuracy(job["model"], job["labels"])
        if "captures" in job:
            result.update(capture_error(job))

    result["problems"] += problem("run", figures)
    return result


def main():
    json.dump([measure(job) for job in json.load(sys.stdin)], sys.stdout, indent=1)


if __name__ == "__main__":
    main()
