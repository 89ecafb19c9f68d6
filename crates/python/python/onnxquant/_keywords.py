"""The settings of `onnxquant.quantize`, for editors and type checkers.

Written by `tests/python/make_keywords.py` from the options of the command.
"""

from __future__ import annotations

from os import PathLike
from typing import Literal, Sequence, Tuple, TypedDict, Union

Path = Union[str, "PathLike[str]"]


class Settings(TypedDict, total=False):
    """Options of the command; all are optional."""

    #: Quantize without calibration data (plain rounding)
    weights_only: bool

    #: Use this many samples, evenly spaced over the sorted files; by default all, or 128 of texts
    samples: int

    #: Which input an array of a .npz, .safetensors or .tar file feeds, where their names differ; `KEY=` leaves it
    #: out
    calib_map: Union[str, Sequence[str]]

    #: Preprocessing as Hugging Face's transformers writes it; by default preprocessor_config.json beside the model
    #: or in the folder of the samples, where there is one
    preprocessor: Path

    #: Preprocessing of pictures as a whole; the other options change parts of it
    image_preset: Literal["imagenet", "timm", "clip", "vit", "siglip", "keras", "caffe", "yolo", "yolox", "unit"]

    #: Height and width of pictures, for example 224 or 480x640; by default the input's
    image_size: Union[int, str, Tuple[int, int]]

    #: Subtracted from pixel values of 0..1, by channel
    mean: Union[float, str, Sequence[float]]

    #: Divides pixel values after --mean, by channel
    std: Union[float, str, Sequence[float]]

    #: Axis order of pictures; by default found from the input's shape
    layout: Literal["nchw", "nhwc"]

    #: Channel order of pictures
    channel_order: Literal["rgb", "bgr"]

    #: The tokenizer of texts, as Hugging Face's library writes it; by default tokenizer.json beside the model
    tokenizer: Path

    #: Tokens of a sample of texts; by default 512, or as many as model and tokenizer take
    sequence_length: int

    #: Under which a line of a .jsonl file holds its text; by default `text`
    text_key: str

    #: What becomes of weights and activations; by default `auto`
    scheme: Literal["w8", "w4", "w3", "w2", "w1", "fp8", "w8a8", "w4a8", "w8a8-dynamic", "auto"]

    #: How weights become codes; `auto` lets validation samples choose, layer by layer
    method: Literal["auto", "msq", "maly-saab", "cell-walk", "gpfq", "optq", "feedback", "saturate"]

    #: Quantize every layer by the named method, even where rounding is better on validation samples
    no_fallback: bool

    #: Fit every layer to what it sees in the float network, not to what it sees behind the layers quantized before
    #: it: faster, less exact
    one_pass: bool

    #: Follow this many partial solutions side by side: 4 to 8 gain a few percent at as many times the cost
    beam: int

    #: Shrink the range of weights before rounding (MagR): 0.001 for example, at 2 or 3 bits
    shrink: float

    #: Added to the diagonal of Gram matrices, as a fraction of its mean; by default validation samples choose
    damping: float

    #: Where the walk of `maly-saab` saturates: at the largest weight, or at the smallest value possible
    saturation: Literal["max", "min"]

    #: What the file is for: ONNX Runtime on a CPU, or a compiler
    target: Literal["ort-cpu", "qdq-strict", "tensorrt", "openvino", "qnn"]

    #: How ranges of activations are found: `min-max`, `min-max:F` (F times as wide), `moving-average`,
    #: `percentile:P`, `mse`, `entropy`; by default validation samples choose
    range: str

    #: The held-out outputs must have this SQNR
    min_sqnr: float

    #: The same until one minus the mean cosine of every held-out output is at most this, for example 0.001
    max_loss: float

    #: The same until the perplexity of held-out text is at most this many times that of the float model, for
    #: example 1.05
    max_perplexity_ratio: float

    #: Codes of activations on fixed scales: with a sign or without one
    activation_type: Literal["u8", "s8"]

    #: Bits of activations on fixed scales: `8`, `16`, or `mixed`: 16 only where --min-sqnr or --max-loss needs them
    activation_bits: Literal["8", "16", "mixed", 8, 16]

    #: Fixed scales of activations are powers of two, for accelerators that shift; with `--target qdq-strict`
    power_of_two_scales: bool

    #: Processors on which integer layers must be exact and nothing may be slower than floats: `portable` (all of
    #: the others, the default), `avx2`, `avx512`, `vnni`, `arm64`, or `native`, this one
    cpu: str

    #: Decode what is quantized in the model already, weights and activations, and quantize it anew. By default it
    #: stays as it is
    requantize: bool

    #: Compute in f16 or bf16 what the model computes in them. By default that is f32, which processors without such
    #: arithmetic do faster, between inputs and outputs of the model's types; what is left of its weights is stored
    #: in them
    keep_type: bool

    #: Weights of 7 bits with integer activations, for other runtimes whose 8-bit products saturate; in ONNX Runtime
    #: --cpu loses less
    reduce_range: bool

    #: Bits a weight, 1 to 8, instead of those of --scheme
    bits: int

    #: Bits of every layer, and what stands with them, from a file that --save-plan wrote
    plan: Path

    #: Which weights share a scale: `tensor`, `channel` or `block:N`, which is about MatMul and Gemm; by default
    #: `block:32` with `--scheme w4`, `w3` and `w2`, else `channel`
    granularity: str

    #: Zero points are 0 (default)
    symmetric: bool

    #: Zero points are chosen for each scale
    asymmetric: bool

    #: How scales are chosen; by default as suits the method
    scale: Literal["max", "least-squares"]

    #: Quantize only layers whose name matches; may be repeated
    include: Union[str, Sequence[str]]

    #: Leave layers whose name matches in float; may be repeated
    exclude: Union[str, Sequence[str]]

    #: What single layers get: those that `name = "LAYER"`, `match = "GLOB"`, `op-type = "Conv"` and `position =
    #: "first"` (`"last"`, or a number) pick, one of them or several, get `bits = 4`, or stay floats: `float =
    #: true`. May be repeated; the last rule for a layer holds. In a file it is a table, `[[layer]]`
    layer: Union[str, Sequence[str]]

    #: Never raise the model's opset above this
    opset_max: int

    #: The oldest version of ONNX Runtime in which the file has to load, be right and be fast; 1.19 and on
    ort_min: str

    #: How weights of MatMul and Gemm are written: `auto`, as is fast from --ort-min on; `dq`, standard ONNX;
    #: `matmulnbits`, ONNX Runtime's own operator
    format: Literal["auto", "dq", "matmulnbits"]

    #: Bits of tables that Gather reads, one scale a row; `off` leaves them in float
    embeddings: Literal["8", "4", "off", 8, 4, False]

    #: What a decoder keeps of the tokens behind it: `int8`, codes on a scale for each head and channel, in an
    #: operator of ONNX Runtime from 1.27 on (--ort-min 1.27)
    kv_cache: Literal["float", "int8"]

    #: Keep weights in a file beside the model (OUT.data); automatic above 2 GB
    external_data: bool

    #: Memory for the statistics of the layers that are solved together, in MiB
    memory_limit: int

    #: Choose bits layer by layer, out of 2, 3, 4 and 8: at most so many a weight on the average, for example 3.5. A
    #: weight that several layers read counts once
    average_bits: Union[int, float, str]

    #: The same for a file of at most so many megabytes (of 1,000,000 bytes)
    target_size: float

    #: A command that says how good a model is, the larger the better: `{model}` in it stands for the file, and the
    #: last line that it prints is the number. Layers keep float activations until --min-metric or --max-metric-loss
    #: is reached
    metric_command: str

    #: The written model must have at least this much
    min_metric: float

    #: It may have so much less than the float model
    max_metric_loss: float

    #: Write the bits of every layer into a file, for --plan; `-` is the standard output
    save_plan: Path

    #: Keep solved layers in this folder, or under this address of an object store: a run that was killed goes on
    #: there when it is started again
    state: str

    #: Keep statistics of activations in this file; they are used again while model and samples are the same
    calibration_cache: Path

    #: Write the full report: as a page where the name ends in .html, else as JSON; may be given twice
    report: Union[str, Sequence[str]]

    #: Exit with code 0 although nothing was quantized, --include, --exclude or --layer match no layer, no layer
    #: runs on the codes that were asked for, or most weights were rounded without data
    allow_float: bool

    #: The library of ONNX Runtime, or the folder that holds it; else that of ORT_DYLIB_PATH, of the package
    #: `onnxruntime` of Python, or of the system. With `off` none is used, and accuracy is simulated
    ort_lib: Path

    #: The Python whose package is meant; else that of ONNXQUANT_PYTHON or VIRTUAL_ENV, else python3
    python: Path

    #: What runs the float model on samples: `tract`, which is part of this program; `ort`, ONNX Runtime; or `auto`:
    #: tract, unless it cannot run the model or, on one sample, gives something else than ONNX Runtime
    engine: Literal["auto", "tract", "ort"]

    #: Load the written file in ONNX Runtime at every optimization level, and check there what layers run as.
    #: Nothing is written where it does not load; a layer that does not run as predicted is an error
    verify: Literal["ort"]

    #: Read options from this file, whose keys are their names; those of the command line come first
    config: Path

    #: Options that go together; a file and the command line come first
    preset: Literal["cpu", "small", "smallest", "decoder", "npu"]

    #: Worker threads; by default one for each core. The result does not depend on it
    threads: int
