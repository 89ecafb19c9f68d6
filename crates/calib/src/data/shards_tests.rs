//! Archives of samples.

use std::error::Error;

use image::{ImageFormat, RgbImage};
use ndarray::{ArrayD, IxDyn};

use super::*;
use crate::data::npy::write_npy;
use crate::data::{CalibSet, DataOptions, Dim, InputSpec};
use crate::tensor::{ElementType, Tensor};

fn archive(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    std::fs::write(path, builder.into_inner().unwrap()).unwrap();
}

fn floats(value: f32) -> Vec<u8> {
    write_npy(&ArrayD::from_elem(IxDyn(&[1, 2]), value))
}

fn input(name: &str, dims: &[usize]) -> InputSpec {
    let dims = Some(dims.iter().map(|&length| Dim::Fixed(length)).collect());
    InputSpec { name: name.into(), element: ElementType::F32, dims, optional: false }
}

fn first(set: &CalibSet, sample: usize, array: usize) -> f32 {
    let Tensor::F32(values) = &set.load(sample).unwrap()[array].1 else { panic!("float32 expected") };
    values.iter().next().copied().unwrap()
}

#[test]
fn members_with_one_stem_are_a_sample() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/b/1.x.npy", "folder".repeat(30));
    let (a, b, c, d) = (floats(1.0), floats(2.0), floats(3.0), floats(4.0));
    archive(&dir.path().join("1.tar"), &[("7.x.npy", &c), ("7.cls", b"3"), ("7.y.npy", &d)]);
    archive(&dir.path().join("0.tar"), &[("notes", b"none"), (&long, &a), (&long.replace("x.npy", "y.npy"), &b)]);
    let inputs = [input("y", &[1, 2]), input("x", &[1, 2])];
    let set = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap();
    assert_eq!((set.len(), first(&set, 0, 0), first(&set, 0, 1)), (2, 2.0, 1.0));
    assert_eq!((first(&set, 1, 0), first(&set, 1, 1)), (4.0, 3.0));
    assert!(set.describe(1).ends_with("1.tar/7`"), "{}", set.describe(1));
}

#[test]
fn pictures_are_read_where_they_lie_and_labels_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let encoded = |value: u8| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        RgbImage::from_pixel(4, 4, image::Rgb([value; 3])).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let (dark, light) = (encoded(0), encoded(255));
    let members: [(&str, &[u8]); 5] =
        [("0.mask.png", &light), ("0.png", &dark), ("0.json", b"{}"), ("1.png", &light), ("2.txt", b"lost")];
    archive(&dir.path().join("a.tar"), &members);
    let set = CalibSet::open(&dir.path().join("a.tar"), &[input("x", &[1, 3, 4, 4])], &DataOptions::default()).unwrap();
    assert_eq!((set.len(), first(&set, 0, 0), first(&set, 1, 0)), (2, 0.0, 1.0));
    let told = set.survey().unwrap();
    assert_eq!((told.samples.as_str(), told.skipped.len()), ("2 png", 1));
}

#[test]
fn an_array_without_a_name_feeds_the_only_input() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    archive(&path, &[("0.npy", &floats(5.0)), ("1.npy", &floats(6.0))]);
    let set = CalibSet::open(&path, &[input("x", &[1, 2])], &DataOptions::default()).unwrap();
    assert_eq!((set.len(), first(&set, 1, 0)), (2, 6.0));
    let inputs = [input("x", &[1, 2]), input("y", &[1, 2])];
    assert!(CalibSet::open(&path, &inputs, &DataOptions::default()).is_err());
}

#[test]
fn archives_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    archive(&path, &[("0.x.npy", &floats(1.0)), ("1.x.npy", &floats(2.0))]);
    let whole = std::fs::read(&path).unwrap();
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let set = CalibSet::open(&path, &[input("x", &[1, 2])], &DataOptions::default())?;
        (0..set.len()).try_for_each(|sample| set.load(sample).map(drop))
    };
    assert!(open(&whole).is_ok());
    let error = open(&whole[..512 + 20]).unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains("claims 136 bytes, and 20 follow"), "{source}");
    let mut large = tar::Header::new_gnu();
    large.set_path("0.x.npy").unwrap();
    large.set_size(1 << 60);
    large.set_cksum();
    let error = open(&[large.as_bytes().as_slice(), &whole[512..]].concat()).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("claims 1152921504606846976 bytes"), "{error}");
    for at in 0..whole.len().min(1600) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x3f;
        // Either outcome is right; contents have no checksum.
        let _ = open(&flipped);
    }
    assert!(open(b"no archive at all, but long enough to be taken for one").is_err());
}
