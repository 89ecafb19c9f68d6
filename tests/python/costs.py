"""How long operators take in ONNX Runtime on this processor, in float and on codes.

    python tests/python/costs.py > CLASS.toml

Prints a table of `crates/passes/src/integer/costs/`, whose names `times.rs` there explains. Times are nanoseconds on one
thread. `cargo xtask bench costs` runs this; with `--without-avx512` it lets Python find a runtime that sees no AVX-512.

Models of one operator hold it a few times over, with weights of their own, and twice as many times: the difference is the time
of the operator without that of the session. The start of a layer is the time of a tiny one; what else an entry
means is fitted over several shapes, by least squares of relative errors with no coefficient below zero.

Layers of one or a few rows take what reading their weights takes: dense layers run with nothing in the processor's caches.
Conversions are measured inside a chain of convolutions, every second of them on codes: there the runtime changes the layout
of the tensor as well. So is MaxPool, which has another kernel there than alone.
"""

import platform
import sys
import time

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROUNDS = 7
SECONDS = 0.02
COLD_ROUNDS = 25
ATTEMPTS = 5
COPIES = 4
RANDOM = numpy.random.default_rng(1)
# Larger than what a core finds in caches.
BALLAST = numpy.zeros(1 << 24, numpy.int64)
F32, U8 = TensorProto.FLOAT, TensorProto.UINT8


class Net:
    """A model under construction; names are numbered."""

    def __init__(self, **inputs):
        self.nodes, self.constants, self.outputs, self.count = [], [], [], 0
        self.inputs = inputs

    def constant(self, array):
        self.count += 1
        self.constants.append(numpy_helper.from_array(array, f"c{self.count}"))
        return f"c{self.count}"

    def add(self, op, inputs, domain="", **attributes):
        self.count += 1
        name = f"v{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], domain=domain, **attributes))
        return name

    def scale(self):
        self.count += 1
        return self.constant(numpy.float32(0.01 * (1 + self.count / 1e4)))

    def decode(self, codes, zero=128):
        return self.add("DequantizeLinear", [codes, self.scale(), self.constant(numpy.uint8(zero))])

    def encode(self, value, zero=128):
        return self.add("QuantizeLinear", [value, self.scale(), self.constant(numpy.uint8(zero))])

    def weight(self, shape, axis):
        """Codes of a weight, decoded."""
        codes = self.constant(RANDOM.integers(-64, 64, shape).astype(numpy.int8))
        scales = self.constant(numpy.full(shape[axis], 0.01, numpy.float32))
        return self.add("DequantizeLinear", [codes, scales], axis=axis)

    def result(self, value, dtype=F32):
        self.outputs.append(helper.make_tensor_value_info(value, dtype, None))

    def session(self):
        inputs = [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in self.inputs.items()]
        graph = helper.make_graph(self.nodes, "g", inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def feeds(self):
        return {
            name: RANDOM.standard_normal(shape).astype(numpy.float32)
            if dtype == F32
            else RANDOM.integers(0, 255, shape).astype(numpy.uint8)
            for name, (dtype, shape) in self.inputs.items()
        }


def measure(nets, cold=False):
    """Least times of a run of each, in nanoseconds, taken in turn; with empty caches where that is asked for."""
    bound = []
    for net in nets:
        session = net.session()
        binding = session.io_binding()
        for name, array in net.feeds().items():
            binding.bind_cpu_input(name, array)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        session.run_with_iobinding(binding)
        bound.append((session, binding))
    if cold:
        return [1e9 * min(found) for found in zip(*([once(*pair) for pair in bound] for _ in range(COLD_ROUNDS)))]
    least = [numpy.inf] * len(nets)
    for _ in range(ROUNDS):
        for at, (session, binding) in enumerate(bound):
            spent = 0.0
            while spent < SECONDS:
                start = time.perf_counter()
                session.run_with_iobinding(binding)
                took = time.perf_counter() - start
                spent += took
                least[at] = min(least[at], took)
    return [1e9 * found for found in least]


def once(session, binding):
    """Seconds of a run with empty caches."""
    numpy.add(BALLAST, 1, out=BALLAST)
    start = time.perf_counter()
    session.run_with_iobinding(binding)
    return time.perf_counter() - start


def one(build, cold=False):
    """The time of what `build(copies)` makes a net of, once."""
    for _ in range(ATTEMPTS):
        few, many = measure([build(COPIES), build(2 * COPIES)], cold)
        if many > few:
            return (many - few) / COPIES
    raise SystemExit("twice the operators took no longer: the machine is too busy to measure on")


def fit(rows, times, begin=0.0):
    """The coefficients, none negative, for which `begin + rows @ coefficients` is nearest to `times`, relatively."""
    rows, times = numpy.array(rows, float), numpy.array(times, float)
    scaled, wanted = rows / times[:, None], 1 - begin / times
    free = [column for column in range(rows.shape[1]) if rows[:, column].any()]
    while True:
        found = numpy.zeros(rows.shape[1])
        found[free] = numpy.linalg.lstsq(scaled[:, free], wanted, rcond=None)[0]
        negative = [column for column in free if found[column] < 0]
        if not negative:
            errors = (begin + rows @ found) / times
            print(f"    off by {errors.min():.2f} to {errors.max():.2f}", file=sys.stderr)
            return found
        free.remove(min(negative, key=lambda column: found[column] * scaled[:, column].max()))


# Layers


def dense(kind, rows, k, m, cold=True):
    def build(copies):
        net = Net(x=(U8 if kind == "codes" else F32, [rows, k]))
        shared = None
        if kind == "dynamic":
            net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
        for _ in range(copies):
            if kind == "float":
                net.result(net.add("MatMul", ["x", net.constant(RANDOM.standard_normal((k, m)).astype(numpy.float32))]))
            elif kind.startswith("nbits"):
                bits, block = (8, 64) if kind.endswith("8") else (4, 128)
                blocks = -(-k // block)
                codes = net.constant(RANDOM.integers(0, 255, (m, blocks, block * bits // 8)).astype(numpy.uint8))
                scales = net.constant(numpy.full(m * blocks, 0.01, numpy.float32))
                sizes = dict(K=k, N=m, bits=bits, block_size=block, accuracy_level=4)
                net.result(net.add("MatMulNBits", ["x", codes, scales], "com.microsoft", **sizes))
            elif kind == "dynamic":
                codes = net.constant(RANDOM.integers(-64, 64, (k, m)).astype(numpy.int8))
                product = net.add("MatMulInteger", ["q", codes, "z"])
                scale = net.add("Mul", ["s", net.constant(numpy.full(m, 0.01, numpy.float32))])
                net.result(net.add("Mul", [net.add("Cast", [product], to=F32), scale]))
            else:
                shared = net.decode("x")
                net.result(net.encode(net.add("MatMul", [shared, net.weight((k, m), 1)])), U8)
        return net

    return one(build, cold)


TINY_DENSE = (1, 16, 16)
DENSE = [(rows, k, m) for rows in (1, 4, 16, 64, 256) for k, m in [(384, 384), (384, 1536), (1536, 384), (1024, 1024)]]


def dense_entry(kind):
    begin = dense(kind, *TINY_DENSE, cold=False)
    times = [dense(kind, *shape) for shape in DENSE]
    rows = [[r * k * m, k * m, r * m] for r, k, m in DENSE]
    return named(["start", "mac", "weight", "output"], [begin, *fit(rows, times, begin)])


def conv(kind, channels, outputs, kernel, size, groups=1):
    def build(copies):
        net = Net(x=(F32 if kind == "float" else U8, [1, channels, *size]))
        shape = (outputs, channels // groups, *kernel)
        attributes = dict(group=groups, kernel_shape=list(kernel))
        # Of the windows of one convolution the others are the same: what they give must differ.
        for _ in range(copies):
            if kind == "float":
                weight = net.constant(RANDOM.standard_normal(shape).astype(numpy.float32))
                net.result(net.add("Conv", ["x", weight, net.constant(numpy.zeros(outputs, numpy.float32))], **attributes))
            else:
                net.result(net.encode(net.add("Conv", [net.decode("x"), net.weight(shape, 0)], **attributes)), U8)
        return net

    return one(build)


LANES, CHANNELS = 16, 4


def multiple(number, of):
    return -(-number // of) * of


# Channels in and out, kernel and size of the input.
TINY_CONV = (16, 16, (1, 1), (1, 1))
CONVS = [
    (1, 1, (1, 256), (1, 8192)), (1, 8, (1, 256), (1, 8192)), (1, 16, (1, 256), (1, 8192)),
    (4, 8, (3, 3), (64, 64)), (8, 8, (3, 3), (64, 64)), (8, 8, (3, 39), (64, 100)), (8, 1, (5, 5), (64, 64)),
    (8, 32, (3, 3), (64, 64)), (8, 33, (3, 3), (64, 64)), (32, 1, (3, 3), (64, 64)), (32, 8, (3, 3), (64, 64)),
    (32, 18, (3, 3), (64, 64)), (32, 32, (3, 3), (64, 64)), (33, 8, (3, 3), (64, 64)), (64, 3, (3, 3), (64, 64)),
    (128, 8, (3, 3), (32, 32)), (128, 20, (3, 3), (32, 32)), (128, 128, (3, 3), (32, 32)), (256, 1, (3, 3), (32, 32)),
    (32, 192, (1, 1), (56, 56)), (192, 32, (1, 1), (56, 56)), (96, 576, (1, 1), (14, 14)), (576, 96, (1, 1), (14, 14)),
    (320, 1280, (1, 1), (7, 7)), (16, 16, (3, 3), (30, 30)), (16, 16, (5, 5), (32, 32)), (64, 64, (3, 3), (9, 9)),
]  # fmt: skip


def conv_entries():
    begins = [conv(kind, *TINY_CONV) for kind in ("float", "codes")]
    floats, codes, rows_float, rows_codes = [], [], [], []
    for channels, outputs, kernel, size in CONVS:
        window = kernel[0] * kernel[1]
        positions = (size[0] - kernel[0] + 1) * (size[1] - kernel[1] + 1)
        results, inputs = positions * outputs, channels * window
        direct = channels < LANES or channels % CHANNELS == 0
        filled = inputs * multiple(outputs, LANES)
        gathers = 0 if direct or window == 1 else inputs * positions
        floats.append(conv("float", channels, outputs, kernel, size))
        rows_float.append([positions * (filled if direct else inputs * outputs), results, gathers])
        codes.append(conv("codes", channels, outputs, kernel, size))
        single, fast = channels == outputs == 1, outputs >= LANES and outputs % CHANNELS == channels % CHANNELS == 0
        gathers = not single and not fast and window > 1
        row = [0 if single else positions * filled, results, positions * window if fast and window > 1 else 0]
        row += [positions * inputs, positions] if gathers else [0, 0]
        rows_codes.append(row + ([positions, positions * inputs] if single else [0, 0]))
    of_float, of_codes = fit(rows_float, floats, begins[0]), fit(rows_codes, codes, begins[1])
    # What gathering windows of codes takes (3 and 4) is no entry: all tables have one figure for it.
    return {
        "float": named(["start", "product", "output"], [begins[0], *of_float[:2]]),
        "codes": named(["start", "product", "output", "pointer"], [begins[1], *of_codes[:3]]),
        "gather_float": of_float[2],
        "single_window": of_codes[5],
        "single_element": of_codes[6],
    }


# Channels, kernel and length of a side of the input.
DEPTHWISE = [
    (16, (3, 3), 48), (32, (3, 3), 112), (96, (3, 3), 56), (144, (5, 5), 28), (240, (3, 3), 28), (480, (5, 5), 14), (672, (3, 3), 14),
]  # fmt: skip


def depthwise(kind, more=0):
    begin = conv(kind, 16, 16, (3, 3), (3, 3), 16)
    rows, times = [], []
    for channels, kernel, size in DEPTHWISE:
        channels += more
        results = channels * (size - kernel[0] + 1) * (size - kernel[1] + 1)
        times.append(conv(kind, channels, channels, kernel, (size, size), channels))
        window = kernel[0] * kernel[1]
        rows.append([results * window, results, *([results * window / channels] if kind != "float" else [])])
    return named(["start", "mac", "output", "pointer"], [begin, *fit(rows, times, begin)])


def grouped():
    rows, times = [], []
    for channels, groups, size in [(64, 4, 28), (128, 8, 28), (256, 32, 14), (64, 32, 28)]:
        results = channels * (size - 2) ** 2
        times.append(conv("float", channels, channels, (3, 3), (size, size), groups))
        rows.append([results * 9 * channels // groups, results])
    return {"start": 0.0, **named(["mac", "output"], fit(rows, times))}


# Operators on elements

SHAPES = [(1, 16, 28, 28), (1, 32, 56, 56), (1, 128, 28, 28)]


def alone(op, on_codes, node, attributes):
    """Time of an element of the input; each copy reads an input of its own, as equal nodes would be computed once."""
    found = []
    for shape in SHAPES:

        def build(copies, shape=shape):
            net = Net(**{f"x{at}": (U8 if on_codes else F32, list(shape)) for at in range(copies)})
            for name in net.inputs:
                if op == "QuantizeLinear":
                    net.result(net.encode(name), U8)
                elif op == "DequantizeLinear":
                    net.result(net.decode(name))
                elif on_codes and op not in ("Transpose", "MaxPool"):
                    net.result(net.encode(net.add(op, [net.decode(name)], **attributes)), U8)
                else:
                    net.result(net.add(op, [name], **attributes), U8 if on_codes else F32)
            return net

        found.append(max(one(build) - node, 0.0) / numpy.prod(shape))
    return float(numpy.median(found))


def added(op, on_codes, node):
    """Two activations of one shape, other ones in each copy."""
    found = []
    for shape in SHAPES:

        def build(copies, shape=shape):
            net = Net(**{f"x{at}": (U8 if on_codes else F32, list(shape)) for at in range(copies + 1)})
            names = list(net.inputs)
            for pair in zip(names, names[1:]):
                read = [net.decode(name) for name in pair] if on_codes else list(pair)
                made = net.add(op, read)
                net.result(net.encode(made) if on_codes else made, U8 if on_codes else F32)
            return net

        found.append(max(one(build) - node, 0.0) / numpy.prod(shape))
    return float(numpy.median(found))


def spread(node, plain):
    """A run of elements that one of a smaller tensor is multiplied with, on codes; channels last, as among convolutions."""
    runs = []
    for _, channels, height, width in SHAPES:

        def build(copies, shape=(1, height, width, channels)):
            net = Net(x=(U8, list(shape)), **{f"g{at}": (U8, [1, 1, 1, shape[3]]) for at in range(copies)})
            for at in range(copies):
                net.result(net.encode(net.add("Mul", [net.decode("x"), net.decode(f"g{at}")])), U8)
            return net

        runs.append(max(one(build) - node - plain * channels * height * width, 0.0) / (height * width))
    return float(numpy.median(runs))


def start():
    def build(copies):
        net = Net(**{f"x{at}": (F32, [1, 4]) for at in range(copies)})
        for name in net.inputs:
            net.result(net.add("Sigmoid", [name]))
        return net

    return one(build)


def chain(steps, pools=0):
    """Convolutions, each pointwise ("p") or depthwise ("d"), on codes in capitals; and so many MaxPools behind the first."""
    net = Net(x=(F32, [1, CHAIN_CHANNELS, CHAIN_SIZE, CHAIN_SIZE]))
    value, is_coded = "x", False
    for at, step in enumerate(steps):
        on_codes = step.isupper()
        shape, groups = ((CHAIN_CHANNELS, 1, 3, 3), CHAIN_CHANNELS) if step in "dD" else ((CHAIN_CHANNELS,) * 2 + (1, 1), 1)
        attributes = dict(kernel_shape=shape[2:], pads=[shape[2] // 2] * 4, group=groups)
        if on_codes:
            value = value if is_coded else net.decode(net.encode(value))
            value = net.add("Conv", [value, net.weight(shape, 0)], **attributes)
            scale, zero = net.scale(), net.constant(numpy.uint8(128))
            value = recoded(net, value, scale, zero)
        else:
            weight = net.constant(RANDOM.standard_normal(shape).astype(numpy.float32))
            value = net.add("Conv", [value, weight, net.constant(numpy.zeros(CHAIN_CHANNELS, numpy.float32))], **attributes)
        for _ in range(pools if at == 0 else 0):
            value = net.add("MaxPool", [value], kernel_shape=POOL, pads=[1, 1, 1, 1])
            value = recoded(net, value, scale, zero) if on_codes else value
        is_coded = on_codes
    net.result(value)
    return net


def recoded(net, value, scale, zero):
    return net.add("DequantizeLinear", [net.add("QuantizeLinear", [value, scale, zero]), scale, zero])


CHAIN_CHANNELS, CHAIN_SIZE, STEPS = 64, 28, 6
CHAIN_ELEMENTS = CHAIN_CHANNELS * CHAIN_SIZE * CHAIN_SIZE
POOL = [3, 3]


def conversions(quantize, dequantize):
    """Both around depthwise convolutions in float among others on codes, in the proportion of the two alone."""
    codes, mixed, floats, both = measure([chain(steps * STEPS) for steps in ("P", "Pd", "p", "pd")])
    pair = (mixed - codes - (both - floats)) / (STEPS * CHAIN_ELEMENTS)
    found = max(pair, quantize + dequantize)
    return [found * part / (quantize + dequantize) for part in (quantize, dequantize)]


def pooled(on_codes):
    """An element of a window of a MaxPool between convolutions."""
    few, many = measure([chain("PP" if on_codes else "pp", pools) for pools in (COPIES, 2 * COPIES)])
    return max(many - few, 0.0) / (COPIES * CHAIN_ELEMENTS * numpy.prod(POOL))


def pooled_alone(node):
    """The same on codes that do not come from a convolution."""
    attributes = dict(kernel_shape=POOL, pads=[1, 1, 1, 1])
    return alone("MaxPool", True, node, attributes) / float(numpy.prod(POOL))


def named(names, numbers):
    return dict(zip(names, map(float, numbers)))


def elements():
    node = start()
    alone_as = [alone(op, op[0] == "D", node, {}) for op in ("QuantizeLinear", "DequantizeLinear")]
    quantize, dequantize = conversions(*alone_as)
    multiplied = added("Mul", True, node)
    return {
        "float_elementwise": added("Add", False, node),
        "codes_elementwise": added("Add", True, node),
        "codes_mul": multiplied,
        "codes_spread": spread(node, multiplied),
        "float_max_pool": pooled(False),
        "codes_max_pool": pooled(True),
        "first_max_pool": pooled_alone(node),
        "float_sigmoid": alone("Sigmoid", False, node, {}),
        "codes_lookup": alone("Sigmoid", True, node, {}),
        "float_movement": alone("Transpose", False, node, dict(perm=[0, 2, 3, 1])),
        "codes_movement": alone("Transpose", True, node, dict(perm=[0, 2, 3, 1])),
        "quantize": quantize,
        "dequantize": dequantize,
        "other": float(numpy.mean([alone(op, False, node, {}) for op in ("Softmax", "Gelu")])),
        "node": node,
    }


def entry(value):
    """A number or table as TOML has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {entry(part)}" for name, part in value.items()) + " }"
    return f"{value:.6f}" if abs(value) < 1 else f"{value:.3f}"


def processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    kinds = ["float", "nbits8", "nbits4", "dynamic", "codes"]
    layers = {f"dense_{kind}": dense_entry(kind) for kind in kinds}
    layers["depthwise_float"] = depthwise("float")
    layers["depthwise_codes"] = depthwise("codes")
    layers["ragged_depthwise_codes"] = depthwise("codes", more=8)
    layers["grouped"] = grouped()
    convolution = conv_entries()
    option = "".join(f" {word}" for word in sys.argv[1:])
    print(f"# Times of operators in nanoseconds on one core, measured by `cargo xtask bench costs{option}`")
    print(f"# with ONNX Runtime {onnxruntime.__version__} on: {processor()}.\n")
    for name, value in [*elements().items(), *layers.items()]:
        print(f"{name} = {entry(value)}")
    print("\n[convolution]")
    for name, value in convolution.items():
        print(f"{name} = {entry(value)}")


if __name__ == "__main__":
    main()
