"""Makes sounds, and what a model hears of them as Hugging Face's transformers prepares them.

    python sounds.py FOLDER

Prints a list of cases as JSON: a folder with one sound, the input's dimensions, the expected values (.npy) and the largest
allowed difference.
"""

import json
import sys
import wave
from pathlib import Path

import numpy as np

FOLDER = Path(sys.argv[1])
RATE = 16000
CASES = []


def sound(seconds, seed, rate=RATE):
    """Tones, a sweep and noise, as a function of time."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    waves = sum(np.sin(2 * np.pi * f * time + p) for f, p in zip(random.uniform(80, 5000, 6), random.uniform(0, 6, 6)))
    return 0.12 * waves * np.exp(-time), random


def case(name, samples, expected, dims, tolerance, config=None, rate=RATE):
    folder = FOLDER / name
    folder.mkdir()
    codes = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(codes.tobytes())
    if config is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
    file = FOLDER / f"{name}.npy"
    np.save(file, np.ascontiguousarray(expected(codes / 32768), dtype=np.float32))
    CASES.append(
        {"name": name, "folder": str(folder), "dims": dims, "expected": str(file), "tolerance": tolerance}
    )


def hertz_to_mel(hertz):
    hertz = np.asarray(hertz, float)
    log = 15 + np.log(np.maximum(hertz, 1000) / 1000) * (27 / np.log(6.4))
    return np.where(hertz >= 1000, log, 3 * hertz / 200)


def mel_to_hertz(mel):
    return np.where(mel >= 15, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)), 200 * mel / 3)


def mel_filters(bands, n_fft):
    """transformers' mel_filter_bank with norm and mel_scale "slaney"."""
    edges = mel_to_hertz(np.linspace(hertz_to_mel(0), hertz_to_mel(8000), bands + 2))
    frequencies = np.linspace(0, RATE // 2, 1 + n_fft // 2)
    widths = np.diff(edges)
    slopes = edges[None] - frequencies[:, None]
    filters = np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return filters * (2.0 / (edges[2:] - edges[:-2]))[None]


def whisper(samples, bands, seconds, n_fft=400, hop=160):
    """transformers' WhisperFeatureExtractor."""
    padded = np.zeros(seconds * RATE)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    padded = np.pad(padded, n_fft // 2, mode="reflect")
    window = np.hanning(n_fft + 1)[:-1]
    count = 1 + (len(padded) - n_fft) // hop
    frames = np.stack([padded[k * hop : k * hop + n_fft] * window for k in range(count)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = np.maximum(1e-10, mel_filters(bands, n_fft).T @ power.T)
    log = np.log10(mel)[:, :-1]
    log = np.maximum(log, log.max() - 8.0)
    return ((log + 4.0) / 4.0)[None]


def whispers():
    for bands, seconds, length in [(80, 30, 3.0), (128, 5, 7.3), (80, 2, 2.0)]:
        samples, random = sound(length, bands + seconds)
        samples = samples + random.normal(0, 0.003, len(samples))
        config = {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "chunk_length": seconds,
            "feature_size": bands,
            "hop_length": 160,
            "n_fft": 400,
            "padding_value": 0.0,
            "sampling_rate": RATE,
        }
        expected = lambda heard, bands=bands, seconds=seconds: whisper(heard, bands, seconds)
        case(f"whisper_{bands}_{seconds}", samples, expected, [1, bands, seconds * 100], 1e-4, config)


def raws():
    samples, _ = sound(1.5, 7)
    config = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": True,
        "feature_size": 1,
        "padding_value": 0.0,
        "sampling_rate": RATE,
    }
    normalized = lambda heard: ((heard - heard.mean()) / np.sqrt(heard.var() + 1e-7))[None]
    case("wav2vec2", samples, normalized, [1, 0], 1e-4, config)
    case("raw", samples, lambda heard: heard[None], [1, 0], 1e-6)
    # At the ends nothing is known of what comes before and behind; the sound fades in and out there.
    for rate in (8000, 22050, 44100, 48000):
        fade = lambda rate: np.sin(np.pi * np.arange(int(1.2 * rate)) / (1.2 * rate)) ** 4
        tones = lambda rate: sum(
            0.2 * np.sin(2 * np.pi * f * np.arange(int(1.2 * rate)) / rate) for f in (220.0, 997.0, 3100.0)
        )
        case(f"from_{rate}", fade(rate) * tones(rate), lambda _: (fade(RATE) * tones(RATE))[None], [1, 19200], 1e-3, rate=rate)


for make in (whispers, raws):
    make()
json.dump(CASES, sys.stdout)
