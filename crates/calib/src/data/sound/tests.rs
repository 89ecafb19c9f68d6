//! Sounds as tensors.

use std::fs;
use std::path::PathBuf;

use hound::{SampleFormat, WavSpec, WavWriter};

use super::*;
use crate::data::CalibSet;

fn spec(dims: &[usize]) -> InputSpec {
    let dims = dims.iter().map(|&n| if n == 0 { Dim::Unknown } else { Dim::Fixed(n) }).collect();
    InputSpec { name: "sound".into(), element: ElementType::F32, dims: Some(dims), optional: false }
}

fn wav(path: &Path, rate: u32, bits: u16, frames: &[[f64; 2]]) {
    let sample_format = if bits == 0 { SampleFormat::Float } else { SampleFormat::Int };
    let bits_per_sample = if bits == 0 { 32 } else { bits };
    let spec = WavSpec { channels: 2, sample_rate: rate, bits_per_sample, sample_format };
    let mut writer = WavWriter::create(path, spec).unwrap();
    for sample in frames.iter().flatten() {
        match bits {
            0 => writer.write_sample(*sample as f32).unwrap(),
            _ => writer.write_sample((sample * f64::from(bits - 1).exp2()) as i32).unwrap(),
        }
    }
    writer.finalize().unwrap();
}

pub(super) fn prepared(dims: &[usize], data: &Path) -> Result<SoundPreparation, CalibError> {
    SoundPreparation::new(&spec(dims), data, &DataOptions::default())
}

#[test]
fn samples_of_all_widths_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let frames = [[0.5, 0.0], [-1.0, -0.5], [0.25, 0.25]];
    for bits in [8, 16, 24, 32, 0] {
        let path = dir.path().join("a.wav");
        wav(&path, 16_000, bits, &frames);
        let part = Part::whole(path);
        let free = prepared(&[1, 0], dir.path()).unwrap();
        assert_eq!(free.scan(&part).unwrap(), [1, 3]);
        let values = free.load(&part).unwrap().to_f32().unwrap();
        assert_eq!(values.iter().copied().collect::<Vec<_>>(), [0.25, -0.75, 0.25], "{bits} bits");
    }
}

#[test]
fn raw_sounds_are_cut_off_filled_up_and_normalized() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    wav(&path, 16_000, 16, &[[0.5; 2], [-0.5; 2], [0.5; 2], [-0.5; 2]]);
    let values = |dims: &[usize]| {
        let tensor = prepared(dims, dir.path()).unwrap().load(&Part::whole(path.clone())).unwrap();
        (tensor.shape().to_vec(), tensor.to_f32().unwrap().iter().copied().collect::<Vec<_>>())
    };
    assert_eq!(values(&[1, 3]), (vec![1, 3], vec![0.5, -0.5, 0.5]));
    assert_eq!(values(&[1, 1, 6]), (vec![1, 1, 6], vec![0.5, -0.5, 0.5, -0.5, 0.0, 0.0]));
    assert_eq!(values(&[2]), (vec![2], vec![0.5, -0.5]));
    let config = r#"{"do_normalize": true, "feature_size": 1, "sampling_rate": 16000}"#;
    fs::write(dir.path().join("preprocessor_config.json"), config).unwrap();
    let (_, found) = values(&[1, 5]);
    assert!((found[0] - 1.0).abs() < 1e-5 && found[4] == 0.0, "{found:?}");
    let told = prepared(&[1, 5], dir.path()).unwrap().describe();
    assert!(told.starts_with("mono, 16000 Hz, 0.0003125 s, mean 0, deviation 1, after "), "{told}");
}

#[test]
fn a_set_of_sounds_is_opened_and_surveyed() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3_u32 {
        let tone = |at: usize| (at as f64 * f64::from(number + 1) * 0.05).sin();
        let frames: Vec<[f64; 2]> = (0..8_000).map(|at| [tone(at); 2]).collect();
        wav(&dir.path().join(format!("{number}.wav")), 8_000, 16, &frames);
    }
    let set = CalibSet::open(dir.path(), &[spec(&[1, 80, 200])], &DataOptions::default()).unwrap();
    assert_eq!((set.len(), set.load(0).unwrap()[0].1.shape()), (3, &[1, 80, 200][..]));
    let told = set.survey().unwrap();
    assert_eq!(told.samples, "3 wav");
    assert_eq!(told.prepared.as_deref(), Some("mono, 16000 Hz, 2 s, log-mel of 80 bands"));
    assert!(told.warnings.is_empty() && told.ranges[0].max > told.ranges[0].min);
}

#[test]
fn a_mask_tells_where_a_sound_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    wav(&path, 16_000, 16, &[[0.5, 0.5]; 500]);
    let part = Part::whole(path);
    let rows = [(vec![1, 0], 500, 0..500), (vec![1, 800], 800, 0..500), (vec![1, 80, 10], 10, 0..4)];
    for (dims, length, given) in rows {
        let filled = prepared(&dims, dir.path()).unwrap().filled(&part).unwrap();
        assert_eq!(filled, Filled { lengths: vec![length], given: Vec::from([given]) }, "{dims:?}");
    }
}

#[test]
fn damaged_sounds_are_errors_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("a.wav");
    wav(&path, 44_100, 16, &[[0.5, -0.5]; 100]);
    let whole = fs::read(&path).unwrap();
    let prepared = prepared(&[1, 0], dir.path()).unwrap();
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let part = Part::whole(path.clone());
        prepared.scan(&part).and_then(|_| prepared.load(&part))
    };
    assert!(load(&whole).is_ok());
    for cut in [0, 10, 30, 44, 60, whole.len() - 1] {
        assert!(load(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..80 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut flipped = whole.clone();
            flipped[at] = value;
            let _ = load(&flipped).map(|tensor| tensor.len());
        }
    }
    // A file that claims hours of sound is cut off where it ends.
    let mut long = whole.clone();
    long[40..44].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    assert!(load(&long).is_err());
}

#[test]
fn unsuited_inputs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [
        (spec(&[1, 2, 3, 4]), "expected the axes batch and samples"),
        (spec(&[1, 80, 0, 4]), "expected the axes batch and samples"),
        (InputSpec { element: ElementType::I16, ..spec(&[1, 0]) }, "expected floats"),
        (InputSpec { dims: None, ..spec(&[]) }, "rank is not declared"),
        (spec(&[2, 100]), "[1, 100]"),
    ];
    for (input, expected) in rows {
        let error = SoundPreparation::new(&input, dir.path(), &DataOptions::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
