"""Quantizes a model with onnxruntime.quantization, in the forms that compute on codes.

    python quantized_elsewhere.py FLOAT SAMPLES FORM OUT

FORM is `static` (an operator for codes in place of each float one) or `dynamic` (DynamicQuantizeLinear and MatMulInteger or
ConvInteger); SAMPLES is a folder of .npz files.
"""

import sys
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

FLOAT, SAMPLES, FORM, OUT = sys.argv[1:]


class Reader(CalibrationDataReader):
    def __init__(self):
        self.samples = iter([dict(np.load(file)) for file in sorted(Path(SAMPLES).glob("*.npz"))[:16]])

    def get_next(self):
        return next(self.samples, None)


if FORM == "static":
    quantize_static(FLOAT, OUT, Reader(), quant_format=QuantFormat.QOperator, per_channel=True, weight_type=QuantType.QInt8)
else:
    quantize_dynamic(FLOAT, OUT, weight_type=QuantType.QUInt8)
