"""Makes pictures, and what a model sees of them as Pillow and Hugging Face's transformers prepare them.

    python pictures.py FOLDER

Prints a list of cases as JSON. Each has a folder with one picture, the input's dimensions, what to say about the
preprocessing, the expected values (.npy) and the largest allowed difference.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(sys.argv[1])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
FILTERS = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
CASES = []


def noise(height, width, channels=3, seed=0):
    """Edges, gradients and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 90 * np.sin(x / 5.0 + seed) * np.cos(y / 7.0) + 60 * ((x // 9 + y // 6) % 2)
    noisy = waves[..., None] + random.normal(0, 25, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def case(name, picture, expected, dims, tolerance=1 / 255, extension="png", preset=None, config=None, save=None):
    folder = FOLDER / name
    folder.mkdir()
    picture.save(folder / f"picture.{extension}", **(save or {}))
    if config is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
    file = FOLDER / f"{name}.npy"
    np.save(file, np.ascontiguousarray(expected, dtype=np.float32))
    CASES.append(
        {
            "name": name,
            "folder": str(folder),
            "dims": dims,
            "preset": preset,
            "expected": str(file),
            "tolerance": tolerance * 1.001,
        }
    )


def values(pixels, mean=(0, 0, 0), std=(1, 1, 1), scale=1 / 255):
    """What transformers makes of pixels, channels first."""
    scaled = (np.asarray(pixels).astype(np.float64) * scale).astype(np.float32)
    normalized = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    return normalized.transpose(2, 0, 1)[None]


def shortest(picture, side):
    """transformers' get_resize_output_image_size for the shorter side."""
    width, height = picture.size
    short, long = (width, height) if width <= height else (height, width)
    return (side, int(side * long / short)) if width <= height else (int(side * long / short), side)


def limited(picture, side, most):
    """transformers' get_size_with_aspect_ratio, for DETR."""
    width, height = picture.size
    exact = None
    if max(width, height) / min(width, height) * side > most:
        exact = most * min(width, height) / max(width, height)
        side = int(round(exact))
    exact = side if exact is None else exact
    return (side, int(exact * height / width)) if width < height else (int(exact * width / height), side)


def center_crop(pixels, height, width):
    """transformers' center_crop, with zeros around pictures that are smaller."""
    rows, columns = pixels.shape[:2]
    top, left = (rows - height) // 2, (columns - width) // 2
    if top >= 0 and left >= 0 and top + height <= rows and left + width <= columns:
        return pixels[top : top + height, left : left + width]
    new_height, new_width = max(height, rows), max(width, columns)
    padded = np.zeros((new_height, new_width, 3), pixels.dtype)
    top_pad, left_pad = math.ceil((new_height - rows) / 2), math.ceil((new_width - columns) / 2)
    padded[top_pad : top_pad + rows, left_pad : left_pad + columns] = pixels
    top, left = top + top_pad, left + left_pad
    return padded[max(0, top) : min(new_height, top + height), max(0, left) : min(new_width, left + width)]


def torchvision(picture, resize, crop, resample):
    """Resize to the shorter side, then CenterCrop."""
    resized = picture.resize(shortest(picture, resize), resample)
    width, height = resized.size
    top, left = int(round((height - crop) / 2.0)), int(round((width - crop) / 2.0))
    return np.asarray(resized)[top : top + crop, left : left + crop]


def opencv_linear(pixels, height, width):
    """cv2.resize with INTER_LINEAR, computed exactly."""
    for axis, length in ((0, height), (1, width)):
        source = pixels.shape[axis]
        at = (np.arange(length) + 0.5) * source / length - 0.5
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if k == axis else 1 for k in range(3)])
        below = np.take(pixels, np.clip(low, 0, source - 1), axis)
        above = np.take(pixels, np.clip(low + 1, 0, source - 1), axis)
        pixels = below * (1 - share) + above * share
    return pixels


def letterbox(pixels, side):
    """Ultralytics' LetterBox."""
    rows, columns = pixels.shape[:2]
    ratio = min(side / rows, side / columns)
    height, width = int(round(rows * ratio)), int(round(columns * ratio))
    top, left = int(round((side - height) / 2 - 0.1)), int(round((side - width) / 2 - 0.1))
    canvas = np.full((side, side, 3), 114.0)
    canvas[top : top + height, left : left + width] = opencv_linear(pixels.astype(np.float64), height, width)
    return canvas


def filters():
    for number, name in enumerate(FILTERS):
        for height, width, rows, columns in [(97, 61, 24, 31), (23, 17, 40, 50), (64, 64, 64, 20), (301, 200, 7, 9)]:
            picture = Image.fromarray(noise(height, width, seed=number))
            expected = values(picture.resize((columns, rows), number))
            config = {"size": {"height": rows, "width": columns}, "resample": number, "do_normalize": False}
            case(f"{name}_{height}x{width}_{rows}x{columns}", picture, expected, [1, 3, rows, columns], config=config)


def processors():
    for height, width in [(90, 131), (131, 90), (77, 77), (20, 300)]:
        picture = Image.fromarray(noise(height, width, seed=height))
        size = f"{height}x{width}"

        resized = np.asarray(picture.resize(shortest(picture, 48), Image.BICUBIC))
        config = {
            "crop_size": 41,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": CLIP[0],
            "image_std": CLIP[1],
            "resample": 3,
            "size": 48,
        }
        expected = values(center_crop(resized, 41, 41), *CLIP)
        case(f"clip_{size}", picture, expected, [1, 3, 41, 41], tolerance=1 / 255 / 0.26, config=config)

        config = {
            "image_processor_type": "ViTImageProcessorFast",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"height": 32, "width": 32},
        }
        expected = values(picture.resize((32, 32), Image.BILINEAR), [0.5] * 3, [0.5] * 3)
        case(f"vit_{size}", picture, expected, [1, 3, 32, 32], tolerance=2 / 255, config=config)

        config = {
            "image_processor_type": "ConvNextImageProcessor",
            "crop_pct": 0.875,
            "image_mean": IMAGENET[0],
            "image_std": IMAGENET[1],
            "resample": 3,
            "size": {"shortest_edge": 56},
        }
        resized = np.asarray(picture.resize(shortest(picture, 64), Image.BICUBIC))
        expected = values(center_crop(resized, 56, 56), *IMAGENET)
        case(f"convnext_{size}", picture, expected, [1, 3, 56, 56], tolerance=1 / 255 / 0.22, config=config)

        config = {
            "do_center_crop": True,
            "crop_size": {"height": 40, "width": 37},
            "do_normalize": False,
            "do_rescale": False,
            "image_processor_type": "DeiTImageProcessor",
            "size": {"height": 24, "width": 45},
        }
        resized = np.asarray(picture.resize((45, 24), Image.BICUBIC))
        expected = values(center_crop(resized, 40, 37), scale=1)
        case(f"deit_{size}", picture, expected, [1, 3, 40, 37], tolerance=1, config=config)

        config = {
            "image_processor_type": "DetrImageProcessor",
            "image_mean": IMAGENET[0],
            "image_std": IMAGENET[1],
            "size": {"shortest_edge": 40, "longest_edge": 66},
        }
        expected = values(picture.resize(limited(picture, 40, 66), Image.BILINEAR), *IMAGENET)
        case(f"detr_{size}", picture, expected, [1, 3, 0, 0], tolerance=1 / 255 / 0.22, config=config)

        config = {
            "image_processor_type": "SamImageProcessor",
            "do_pad": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "pad_size": {"height": 50, "width": 50},
            "size": {"longest_edge": 50},
        }
        scale = 50 / max(height, width)
        rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
        expected = np.zeros((1, 3, 50, 50))
        resized = values(picture.resize((columns, rows), Image.BILINEAR), [0.5] * 3, [0.5] * 3)
        expected[:, :, :rows, :columns] = resized
        case(f"sam_{size}", picture, expected, [1, 3, 50, 50], tolerance=2 / 255, config=config)


def presets():
    for height, width in [(300, 451), (512, 256), (100, 333)]:
        pixels = noise(height, width, seed=width)
        picture = Image.fromarray(pixels)
        size = f"{height}x{width}"
        expected = values(torchvision(picture, 256, 224, Image.BILINEAR), *IMAGENET)
        case(f"imagenet_{size}", picture, expected, [1, 3, 224, 224], tolerance=1 / 255 / 0.22, preset="imagenet")
        expected = values(torchvision(picture, 224, 224, Image.BICUBIC), *CLIP)
        case(f"preset_clip_{size}", picture, expected, [1, 3, 224, 224], tolerance=1 / 255 / 0.26, preset="clip")
        expected = values(picture.resize((96, 80), Image.BILINEAR), [0.5] * 3, [0.5] * 3).transpose(0, 2, 3, 1)
        case(f"preset_vit_{size}", picture, expected, [1, 80, 96, 3], tolerance=2 / 255, preset="vit")
        expected = values(letterbox(pixels, 160))
        case(f"yolo_{size}", picture, expected, [1, 3, 160, 160], preset="yolo")
        caffe = np.asarray(picture.resize((64, 64), Image.BILINEAR))[..., ::-1]
        expected = values(caffe, [103.939, 116.779, 123.68], scale=1)
        case(f"caffe_{size}", picture, expected, [1, 3, 64, 64], tolerance=1, preset="caffe")


def formats():
    pixels = noise(40, 30, seed=5)
    picture = Image.fromarray(pixels)
    alpha = Image.fromarray(np.dstack([pixels, pixels[..., :1]]))
    palette = picture.convert("P", palette=Image.ADAPTIVE, colors=64)
    grey = picture.convert("L")
    rows = [
        ("bmp", picture, "bmp", {}),
        ("tiff", picture, "tiff", {}),
        ("tiff_lzw", picture, "tif", {"compression": "tiff_lzw"}),
        ("webp", picture, "webp", {"lossless": True}),
        ("webp_alpha", alpha, "webp", {"lossless": True, "exact": True}),
        ("png_alpha", alpha, "png", {}),
        ("png_palette", palette, "png", {}),
        ("gif", palette, "gif", {}),
        ("grey", grey, "png", {}),
        ("one_bit", picture.convert("1"), "png", {}),
        ("grey_alpha", Image.merge("LA", [grey, grey]), "png", {}),
    ]
    for name, made, extension, save in rows:
        case(name, made, values(made.convert("RGB")), [1, 3, 40, 30], 1e-6, extension, save=save)
        expected = np.asarray(made.convert("RGB").convert("L"))[None, None] / 255
        case(f"{name}_as_grey", made, expected, [1, 1, 40, 30], 1e-6, extension, save=save)
    # Decoders of JPEG differ in how they round.
    smooth = Image.fromarray(noise(12, 9, seed=5)).resize((90, 120), Image.BICUBIC)
    case("jpeg", smooth, values(smooth), [1, 3, 120, 90], 12 / 255, "jpg", save={"quality": 98, "subsampling": 0})


def orientations():
    for orientation in range(1, 9):
        picture = Image.fromarray(noise(40, 30, seed=orientation))
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = ImageOps.exif_transpose(with_exif(picture, exif))
        for extension, save in [("png", {}), ("webp", {"lossless": True})]:
            width, height = upright.size
            save = {**save, "exif": exif.tobytes()}
            name = f"orientation_{orientation}_{extension}"
            case(name, picture, values(upright), [1, 3, height, width], 1e-6, extension, save=save)


def with_exif(picture, exif):
    copy = picture.copy()
    copy.getexif()[0x0112] = exif[0x0112]
    return copy


for make in (filters, processors, presets, formats, orientations):
    make()
json.dump(CASES, sys.stdout)
