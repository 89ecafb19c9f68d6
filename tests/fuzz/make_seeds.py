"""Writes small files of every kind that the fuzz targets read into `tests/fuzz/seeds`; they are where fuzzing begins.

    python tests/fuzz/make_seeds.py

It needs numpy and Pillow.
"""

import io
import json
import pathlib
import struct
import tarfile

import numpy as np
from PIL import Image

FOLDER = pathlib.Path(__file__).resolve().parent / "seeds"


def write(target, name, data):
    """A seed of a target."""
    path = FOLDER / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def npy(array, version=None):
    """The bytes of an `.npy` file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def npz(compressed):
    """The bytes of an archive of one array."""
    stream = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(stream, x=np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3))
    return stream.getvalue()


def safetensors():
    """The bytes of a file with two tensors."""
    header = {
        "__metadata__": {"format": "pt"},
        "x": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "y": {"dtype": "BF16", "shape": [2], "data_offsets": [8, 12]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(12)


def message():
    """The bytes of a `TensorProto`: dims [1, 2], float, name `x`, raw data."""
    return b"\x08\x01\x08\x02\x10\x01\x42\x01x\x4a\x08" + struct.pack("<2f", 0.5, -1)


def wav(form, bits, channels=1, rate=8000):
    """The bytes of a sound of 64 numbers a channel."""
    data = bytes((index * 37) % 256 for index in range(64 * channels * bits // 8))
    block = channels * bits // 8
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, form, channels, rate, rate * block, block, bits)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(head) + 8 + len(data), b"WAVE") + head + b"data" + struct.pack("<I", len(data)) + data


def tar():
    """The bytes of an archive of two samples."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in [("0.x.npy", npy(np.zeros((1, 2), np.float32))), ("1.npz", npz(True)), ("1.cls", b"3")]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def pictures():
    """Small pictures of every format; the first byte says which."""
    grey = Image.fromarray((np.arange(96).reshape(8, 12) * 2).astype(np.uint8))
    colours = Image.fromarray((np.arange(288).reshape(8, 12, 3) % 256).astype(np.uint8))
    for index, form in enumerate(["png", "jpeg", "webp", "bmp", "tiff", "gif"]):
        for name, picture in [("grey", grey), ("colours", colours)]:
            stream = io.BytesIO()
            picture.save(stream, form)
            write("picture", f"{name}-{form}", bytes([index]) + stream.getvalue())


TOKENIZERS = {
    "word-level": {"model": {"type": "WordLevel", "vocab": {"a": 0, "text": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
                   "pre_tokenizer": {"type": "Whitespace"}},
    "word-piece": {"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1, "te": 2, "##xt": 3}, "unk_token": "[UNK]",
                             "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
                   "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                  "strip_accents": None, "lowercase": True},
                   "pre_tokenizer": {"type": "BertPreTokenizer"}},
    "bpe": {"model": {"type": "BPE", "vocab": {"a": 0, "t": 1, "e": 2, "te": 3}, "merges": ["t e"]},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
    "unigram": {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["text", -2.5]]},
                "normalizer": {"type": "Replace", "pattern": {"Regex": "[a-z]+x"}, "content": "t"}},
}

PROCESSORS = {
    "vit": {"do_resize": True, "size": {"height": 8, "width": 8}, "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2},
    "clip": {"do_resize": True, "size": {"shortest_edge": 8}, "do_center_crop": True,
             "crop_size": {"height": 8, "width": 8}, "resample": 3, "do_convert_rgb": True},
    "detr": {"size": {"shortest_edge": 8, "longest_edge": 16}, "do_pad": True, "pad_size": {"height": 9, "width": 9}},
}


def main():
    values = np.linspace(-1, 1, 6).reshape(2, 3)
    for kind in ["<f4", "<f8", "<f2", "<i8", "|u1", "|b1", ">f4"]:
        write("npy", kind[1:], npy(values.astype(kind)))
    write("npy", "fortran", npy(np.asfortranarray(values.astype(np.float32)), version=(2, 0)))
    write("npz", "stored", npz(False))
    write("npz", "deflated", npz(True))
    write("safetensors", "two", safetensors())
    write("pb", "raw", message())
    for form, bits in [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32)]:
        write("wav", f"{form}-{bits}", wav(form, bits, channels=1 + (bits == 16)))
    write("tar", "two", tar())
    pictures()
    common = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
              "pre_tokenizer": None, "post_processor": None, "decoder": None}
    for name, parts in TOKENIZERS.items():
        write("tokenizer", name, json.dumps({**common, **parts}).encode())
    for name, parts in PROCESSORS.items():
        write("processor", name, json.dumps(parts).encode())


if __name__ == "__main__":
    main()
