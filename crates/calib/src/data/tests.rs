//! Opening and loading whole data sets.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use ndarray::{ArrayD, IxDyn, array};
use zip::write::SimpleFileOptions;

use super::npy::write_npy;
use super::*;
use crate::tensor::ElementType;

fn spec(name: &str, element: ElementType, dims: &[usize]) -> InputSpec {
    let dim = |&n: &usize| if n == 0 { Dim::Symbolic(format!("n_{name}")) } else { Dim::Fixed(n) };
    InputSpec { name: name.into(), element, dims: Some(dims.iter().map(dim).collect()), optional: false }
}

fn save_npz(path: &Path, arrays: &[(&str, ArrayD<f32>)]) {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        zip.write_all(&write_npy(array)).unwrap();
    }
    fs::write(path, zip.finish().unwrap().into_inner()).unwrap();
}

fn ramp(shape: &[usize]) -> ArrayD<f32> {
    let n: usize = shape.iter().product();
    ArrayD::from_shape_vec(IxDyn(shape), (0..n).map(|i| i as f32).collect()).unwrap()
}

#[test]
fn npz_samples_come_in_graph_order() {
    let dir = tempfile::tempdir().unwrap();
    save_npz(&dir.path().join("0.npz"), &[("b", ramp(&[1])), ("a", ramp(&[2]))]);
    let inputs = [spec("a", ElementType::F32, &[0]), spec("b", ElementType::F32, &[0])];
    let set = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap();
    assert_eq!(set.shapes(0), [vec![2], vec![1]]);
    let sample = set.load(0).unwrap();
    assert_eq!(sample.iter().map(|(n, t)| (n.as_str(), t.len())).collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
}

#[test]
fn npz_with_wrong_arrays_is_refused_when_opened() {
    let inputs = [spec("a", ElementType::F32, &[2]), spec("b", ElementType::F32, &[0])];
    type Row<'a> = (&'a [(&'a str, ArrayD<f32>)], &'a str);
    let rows: [Row<'_>; 4] = [
        (&[("a", ramp(&[2])), ("x", ramp(&[1]))], "no graph input named `x`"),
        (&[("a", ramp(&[2]))], "graph input `b` is missing from"),
        (&[("a", ramp(&[3])), ("b", ramp(&[1]))], "has shape [3], expected [2]"),
        (&[], "graph input `a` is missing"),
    ];
    for (arrays, expected) in rows {
        let dir = tempfile::tempdir().unwrap();
        save_npz(&dir.path().join("0.npz"), arrays);
        let message = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("0.npz"), "{message}");
    }
}

#[test]
fn a_named_dimension_has_one_length_in_a_sample() {
    let dir = tempfile::tempdir().unwrap();
    let dims = |first: usize| Some(vec![Dim::Fixed(first), Dim::Symbolic("length".into())]);
    let input = |name: &str, first| InputSpec { dims: dims(first), ..spec(name, ElementType::F32, &[]) };
    let inputs = [input("ids", 1), input("mask", 2)];
    save_npz(&dir.path().join("0.npz"), &[("ids", ramp(&[1, 5])), ("mask", ramp(&[2, 5]))]);
    assert!(CalibSet::open(dir.path(), &inputs, &DataOptions::default()).is_ok());
    save_npz(&dir.path().join("1.npz"), &[("ids", ramp(&[1, 4])), ("mask", ramp(&[2, 7]))]);
    let message = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap_err().to_string();
    assert!(message.contains("dimension `length` is 4 in `ids` and 7 in `mask` of `"), "{message}");
}

#[test]
fn options_for_pictures_are_refused_beside_arrays() {
    let dir = tempfile::tempdir().unwrap();
    save_npz(&dir.path().join("0.npz"), &[("x", ramp(&[2]))]);
    let options = DataOptions { image: Some(ImageOptions::default()), ..DataOptions::default() };
    let error = CalibSet::open(dir.path(), &[spec("x", ElementType::F32, &[2])], &options).unwrap_err();
    assert!(matches!(error, CalibError::NoPictures { .. }), "{error}");
}

#[test]
fn caches_may_be_empty_and_samples_may_not() {
    let inputs = [spec("x", ElementType::F32, &[0, 2]), spec("past", ElementType::F32, &[1, 0, 2])];
    let open = |x: &[usize], past: &[usize]| {
        let dir = tempfile::tempdir().unwrap();
        save_npz(&dir.path().join("0.npz"), &[("x", ramp(x)), ("past", ramp(past))]);
        let set = CalibSet::open(dir.path(), &inputs, &DataOptions::default())?;
        Ok::<_, CalibError>(set.load(0)?.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect::<Vec<_>>())
    };
    assert_eq!(open(&[3, 2], &[1, 0, 2]).unwrap(), [vec![3, 2], vec![1, 0, 2]]);
    let error = open(&[0, 2], &[1, 4, 2]).unwrap_err().to_string();
    assert!(error.contains("array `x`") && error.contains("[0, 2]: it has no elements"), "{error}");
}

#[test]
fn samples_of_empty_arrays_alone_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    save_npz(&dir.path().join("0.npz"), &[("past", ramp(&[1, 0, 2]))]);
    let inputs = [spec("past", ElementType::F32, &[1, 0, 2])];
    let error = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap_err().to_string();
    assert!(error.contains("[1, 0, 2]: it has no elements"), "{error}");
}

#[test]
fn any_number_of_empty_rows_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (21000000000000, 0), }\n";
    let bytes = [&b"\x93NUMPY\x01\x00"[..], &[header.len() as u8, 0], header].concat();
    fs::write(dir.path().join("0.npy"), bytes).unwrap();
    let inputs = [spec("x", ElementType::F32, &[0, 0])];
    let error = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap_err().to_string();
    assert!(error.contains("it has no elements"), "{error}");
}

#[test]
fn optional_inputs_are_given_always_or_never() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = [spec("a", ElementType::F32, &[0]), InputSpec { optional: true, ..spec("b", ElementType::F32, &[0]) }];
    save_npz(&dir.path().join("0.npz"), &[("a", ramp(&[1]))]);
    let set = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap();
    assert_eq!(set.inputs().len(), 1);
    save_npz(&dir.path().join("1.npz"), &[("a", ramp(&[1])), ("b", ramp(&[1]))]);
    let error = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap_err();
    assert!(matches!(error, CalibError::SometimesGiven { .. }), "{error}");
}

#[test]
fn npy_batches_are_split_and_missing_batch_axes_added() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    type Row<'a> = (&'a [usize], &'a [usize], usize, &'a [usize]);
    let rows: [Row<'_>; 6] = [
        (&[5, 3], &[0, 3], 5, &[1, 3]),
        (&[5, 3], &[1, 3], 5, &[1, 3]),
        (&[5, 3], &[5, 3], 1, &[5, 3]),
        (&[3], &[0, 3], 1, &[1, 3]),
        (&[1, 3], &[0, 3], 1, &[1, 3]),
        (&[], &[], 1, &[]),
    ];
    for (shape, dims, samples, expected) in rows {
        fs::write(&path, write_npy(&ramp(shape))).unwrap();
        let set = CalibSet::open(&path, &[spec("x", ElementType::F32, dims)], &DataOptions::default()).unwrap();
        assert_eq!((set.len(), set.shapes(0)[0].as_slice()), (samples, expected), "{shape:?} for {dims:?}");
        let last = set.load(samples - 1).unwrap().remove(0).1;
        assert_eq!(last.shape(), expected);
        let end = ramp(shape).iter().last().copied();
        assert_eq!(last.to_f32().unwrap().iter().last().copied(), end);
    }
}

#[test]
fn fortran_npy_rows_are_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    let mut bytes = write_npy(&array![[0.0_f32, 2.0], [1.0, 3.0]].into_dyn());
    let text = String::from_utf8_lossy(&bytes[10..74]).into_owned().replace("False", "True ");
    bytes.splice(10..74, text.into_bytes());
    fs::write(&path, bytes).unwrap();
    let set = CalibSet::open(&path, &[spec("x", ElementType::F32, &[0, 2])], &DataOptions::default()).unwrap();
    assert_eq!(set.load(1).unwrap()[0].1, Tensor::F32(array![[2.0_f32, 3.0]].into_dyn()));
}

#[test]
fn npy_for_several_inputs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.npy"), write_npy(&ramp(&[2]))).unwrap();
    let inputs = [spec("a", ElementType::F32, &[0]), spec("b", ElementType::F32, &[0])];
    let message = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap_err().to_string();
    assert!(message.contains("the model has 2 inputs (`a`, `b`)"), "{message}");
}

#[test]
fn test_data_tensors_match_by_name_or_number() {
    use onnxquant_proto::onnx::TensorProto;
    use prost::Message;
    let dir = tempfile::tempdir().unwrap();
    let set_dir = dir.path().join("test_data_set_0");
    fs::create_dir(&set_dir).unwrap();
    let tensor = |name: &str, value: f32| TensorProto {
        name: Some(name.into()),
        dims: vec![1],
        data_type: Some(1),
        float_data: vec![value],
        ..TensorProto::default()
    };
    let inputs = [spec("a", ElementType::F32, &[0]), spec("b", ElementType::F32, &[0])];
    for (names, expected) in [(["b", "a"], [2.0, 1.0]), (["", ""], [1.0, 2.0])] {
        fs::write(set_dir.join("input_0.pb"), tensor(names[0], 1.0).encode_to_vec()).unwrap();
        fs::write(set_dir.join("input_1.pb"), tensor(names[1], 2.0).encode_to_vec()).unwrap();
        fs::write(set_dir.join("output_0.pb"), b"ignored").unwrap();
        let set = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap();
        let values: Vec<f32> = set.load(0).unwrap().iter().map(|(_, t)| t.to_f32().unwrap()[0]).collect();
        assert_eq!(values, expected, "{names:?}");
    }
}

#[test]
fn samples_are_evenly_spaced() {
    assert_eq!(evenly_spaced((0..10).collect(), 3), [0, 3, 6]);
    assert_eq!(evenly_spaced((0..4).collect(), 9), [0, 1, 2, 3]);
    assert_eq!(evenly_spaced((0..4).collect(), 0), Vec::<i32>::new());
}

#[test]
fn a_fifth_and_at_least_eight_samples_are_held_out_and_a_tenth_is_chosen_on() {
    let of = |n| {
        let Split { calibration, validation, held_out, shared } = Split::of(n);
        (calibration.len(), validation.len(), held_out.len(), shared)
    };
    assert_eq!([1, 2, 3, 6].map(of), [(1, 1, 1, true), (1, 1, 1, true), (1, 1, 1, false), (3, 1, 2, false)]);
    assert_eq!([24, 32, 128].map(of), [(14, 2, 8, false), (21, 3, 8, false), (91, 12, 25, false)]);
    for n in 3..200 {
        let Split { calibration, validation, held_out, .. } = Split::of(n);
        let mut all = [calibration, validation, held_out].concat();
        all.sort_unstable();
        assert_eq!(all, (0..n).collect::<Vec<_>>());
    }
    assert_eq!(Split::of(12).held_out, [1, 4, 7, 10]);
    assert_eq!(Split::of(12).seen(64), [0, 2, 3, 5, 6, 8, 9, 11]);
    assert_eq!(Split::of(12).seen(4), [0, 3, 6, 9]);
    assert_eq!(Split::of(1).seen(64), [0; 0]);
}

#[test]
fn caches_that_are_never_empty_are_noticed() {
    let inputs = [spec("x", ElementType::F32, &[0]), spec("past_0", ElementType::F32, &[1, 2, 0, 4])];
    let dir = tempfile::tempdir().unwrap();
    let save = |name: &str, past: usize| {
        save_npz(&dir.path().join(name), &[("x", ramp(&[3])), ("past_0", ramp(&[1, 2, past, 4]))]);
    };
    let is_late = || CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap().starts_late();
    save("0.npz", 3);
    save("1.npz", 1);
    assert!(is_late());
    save("2.npz", 0);
    assert!(!is_late());
    let dir = tempfile::tempdir().unwrap();
    save_npz(&dir.path().join("0.npz"), &[("x", ramp(&[3]))]);
    assert!(!CalibSet::open(dir.path(), &inputs[..1], &DataOptions::default()).unwrap().starts_late());
}

#[test]
fn caches_behind_an_encoder_need_not_be_empty() {
    for (other, expected) in [("past_key_values.0.encoder.key", false), ("past_key_values.0.decoder.value", true)] {
        let names = ["past_key_values.0.decoder.key", other];
        let inputs = names.map(|name| spec(name, ElementType::F32, &[1, 2, 0, 4]));
        let dir = tempfile::tempdir().unwrap();
        save_npz(&dir.path().join("0.npz"), &names.map(|name| (name, ramp(&[1, 2, 3, 4]))));
        let set = CalibSet::open(dir.path(), &inputs, &DataOptions::default()).unwrap();
        assert_eq!(set.starts_late(), expected, "{other}");
    }
}

#[test]
fn arrays_with_other_names_are_mapped() {
    let dir = tempfile::tempdir().unwrap();
    save_npz(&dir.path().join("0.npz"), &[("pixels", ramp(&[2])), ("label", ramp(&[1]))]);
    let inputs = [spec("x", ElementType::F32, &[2])];
    let open = |names: &[(&str, &str)]| {
        let names = names.iter().map(|&(array, input)| (array.to_owned(), input.to_owned())).collect();
        CalibSet::open(dir.path(), &inputs, &DataOptions { names, ..DataOptions::default() })
    };
    let set = open(&[("pixels", "x"), ("label", "")]).unwrap();
    assert_eq!(set.load(0).unwrap(), [("x".to_owned(), crate::tensor::Tensor::F32(ramp(&[2])))]);
    let rows: [(&[(&str, &str)], &str); 4] = [
        (&[("pixels", "x")], "no graph input named `label`"),
        (&[("pixels", "y"), ("label", "")], "to `y`, which is no input (inputs: `x`)"),
        (&[("pixel", "x")], "array `pixel`, which is not in"),
        (&[("pixels", "x"), ("label", "x")], "has shape [1], expected [2]"),
    ];
    for (names, expected) in rows {
        let error = open(names).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let png = tempfile::tempdir().unwrap();
    fs::write(png.path().join("x.npy"), write_npy(&ramp(&[2]))).unwrap();
    let names = vec![("pixels".to_owned(), "x".to_owned())];
    let error = CalibSet::open(png.path(), &inputs, &DataOptions { names, ..DataOptions::default() }).unwrap_err();
    assert!(matches!(error, CalibError::NoNames { .. }), "{error}");
}

#[test]
fn safetensors_are_read_as_npz_is() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = [0.0_f32, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let header = r#"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
    fs::write(dir.path().join("0.safetensors"), super::safetensors::tests::file(header, &data)).unwrap();
    let set = CalibSet::open(dir.path(), &[spec("x", ElementType::F32, &[2])], &DataOptions::default()).unwrap();
    assert_eq!(set.load(0).unwrap(), [("x".to_owned(), crate::tensor::Tensor::F32(ramp(&[2])))]);
    assert_eq!(set.survey().unwrap().samples, "1 safetensors");
}
