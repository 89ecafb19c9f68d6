//! Features against those that transformers computes, see `fixtures/make_fbank.py`.

use std::path::PathBuf;

use super::*;
use crate::data::masks::Shown;
use crate::data::part::Part;
use crate::data::sound::tests::prepared;

/// Values in the fixture were rounded to complex numbers of 32 bits on the way, which shows most where least sounds.
const TOLERANCE: f32 = 2e-3;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/fbank").join(name)
}

#[test]
fn features_are_those_that_transformers_computes() {
    let rows = [
        ("ast", [0, 0, 128], [1, 32, 128], 28),
        ("ast_short", [1, 20, 40], [1, 20, 40], 20),
        ("speech_to_text", [0, 0, 80], [1, 28, 80], 28),
        ("speech_to_text_filled", [1, 36, 24], [1, 36, 24], 28),
    ];
    for (name, dims, shape, heard) in rows {
        let sound = Part::whole(fixture("sound.wav"));
        let preparation = prepared(&dims, &fixture(name)).unwrap();
        assert_eq!(preparation.scan(&sound).unwrap(), shape, "{name}");
        let (filled, given) = (preparation.filled(&sound).unwrap(), 0..heard);
        assert_eq!((filled.lengths, filled.given), (vec![shape[1]], Vec::from([given])), "{name}");
        let found = preparation.load(&sound).unwrap();
        assert_eq!(found.shape(), shape, "{name}");
        let found = found.to_f32().unwrap();
        let bytes = std::fs::read(fixture(name).join("expected.npy")).unwrap();
        // Behind a header as long as it likes.
        let expected = bytes[bytes.len() - 4 * found.len()..].chunks_exact(4);
        let expected = expected.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        let most = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < TOLERANCE, "{name}: {most}");
    }
}

#[test]
fn sounds_become_frames_of_kaldi_at_any_rate() {
    let settings = FbankSettings {
        bands: 3,
        window: Window::Povey,
        full_scale: 1.0,
        frames: None,
        scaling: Scaling::Sound { means: true, deviations: true },
    };
    for rate in [1_000, 8_000, 16_000, 22_050, 44_100] {
        let fbank = Fbank::new(&settings, rate);
        let of_frames = [1, 2, 100].map(|frames| fbank.frames(fbank.samples(frames)));
        assert_eq!(of_frames, [1, 2, 100], "{rate} Hz");
        // Shorter than a frame, and silent: nothing has a deviation.
        assert_eq!(fbank.of(&[]), [0.0; 3], "{rate} Hz");
        assert_eq!(fbank.of(&vec![0.0; fbank.samples(2)]), [0.0; 6], "{rate} Hz");
    }
}

#[test]
fn an_input_that_the_features_do_not_fit_is_refused() {
    let error = |dims: &[usize]| prepared(dims, &fixture("ast")).unwrap_err().to_string();
    assert!(error(&[1, 32]).contains("expected the axes batch, frames and bands"), "{}", error(&[1, 32]));
    assert!(error(&[1, 32, 64]).contains("[1, 32, 128]"), "{}", error(&[1, 32, 64]));
    assert!(error(&[1, 0, 64]).contains("[1, 32, 128]"), "{}", error(&[1, 0, 64]));
}

#[test]
fn what_becomes_of_sounds_is_told() {
    let told = |dims: &[usize], name: &str| prepared(dims, &fixture(name)).unwrap().describe();
    let ast = told(&[0, 0, 128], "ast");
    let expected =
        "mono, 16000 Hz, 0.335 s, Kaldi's log-mel of 128 bands, scaled by the model's mean and deviation, after ";
    assert!(ast.starts_with(expected), "{ast}");
    let speech = told(&[0, 0, 80], "speech_to_text");
    let expected = "mono, 16000 Hz, Kaldi's log-mel of 80 bands, mean 0 and deviation 1 in each sound, after ";
    assert!(speech.starts_with(expected), "{speech}");
}
