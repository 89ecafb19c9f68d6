//! Statistics and comparisons over data sets.

use std::cell::Cell;

use ndarray::{Array2, Ix2};
use onnxquant_calib::{
    CalibError, CalibSet, Original, OutputComparison, OutputError, Session, StatKind, StatRequest, collect, compare,
    engine, for_each_batch, gram_bytes, open_session,
};
use onnxquant_proto::onnx::ModelProto;
use onnxquant_quant::{ConvGeometry, GramStats, MatrixView, Padding};

use crate::models::{self, data, input, model, node, noise, tensor};

fn dense(inputs: usize) -> MatrixView {
    MatrixView::Dense { inputs, outputs: 1, transposed: false }
}

fn request(value: &str, view: MatrixView, kind: StatKind) -> StatRequest {
    StatRequest { value: value.into(), view, kind }
}

fn two_layers() -> ModelProto {
    let nodes =
        vec![node("MatMul", &["x", "w"], &["y"]), node("Relu", &["y"], &["z"]), node("Softmax", &["z"], &["p"])];
    model(vec![input("x", &[-1, 16])], nodes, vec![tensor("w", &[16, 8], &noise(7, 128))])
}

/// 23 samples of up to 7 rows.
fn samples(folder: &std::path::Path, model: &ModelProto) -> CalibSet {
    let sample = |i: usize| vec![("x", models::array(i as u64, &[1 + i % 7, 16]))];
    data(folder, model, &(0..23).map(sample).collect::<Vec<_>>())
}

fn session(model: &ModelProto, data: &CalibSet, values: &[&str]) -> Box<dyn Session> {
    let values: Vec<String> = values.iter().map(|v| (*v).into()).collect();
    open_session(engine(), model, &values, data).unwrap()
}

fn all(data: &CalibSet) -> Vec<usize> {
    (0..data.len()).collect()
}

/// All rows of a value `[rows, k]` over the data set.
fn rows(engine: &dyn Session, data: &CalibSet, position: usize, k: usize) -> Array2<f32> {
    let mut flat = Vec::new();
    for index in 0..data.len() {
        flat.extend(engine.run(&data.load(index).unwrap()).unwrap()[position].to_f32().unwrap());
    }
    Array2::from_shape_vec((flat.len() / k, k), flat).unwrap()
}

#[test]
fn gram_matrices_are_those_of_all_rows() {
    let folder = tempfile::tempdir().unwrap();
    let model = two_layers();
    let data = samples(folder.path(), &model);
    let session = session(&model, &data, &["z", "x"]);
    let requests = [request("x", dense(16), StatKind::Gram), request("z", dense(8), StatKind::Gram)];
    let calls = Cell::new(0);
    let stats = collect(&session, &data, &all(&data), &requests, &|p| {
        assert_eq!(p.total, 23);
        calls.set(p.done);
    })
    .unwrap();
    assert_eq!(calls.get(), 23);
    for (position, stats) in [(1, &stats[0][0]), (0, &stats[1][0])] {
        let rows = rows(&session, &data, position, stats.k()).mapv(f64::from);
        let expected = rows.t().dot(&rows) / rows.nrows() as f64;
        assert_eq!(stats.n_rows(), rows.nrows());
        // Runs of one sample differ in the last bits by the plan chosen for its shape.
        assert!((&stats.gram().unwrap() - &expected).iter().all(|d| d.abs() < 1e-6));
    }
}

fn bits(stats: &[Vec<GramStats>]) -> Vec<u64> {
    let one = |s: &GramStats| s.gram().unwrap().iter().chain(s.mean().iter()).map(|x| x.to_bits()).collect::<Vec<_>>();
    stats.iter().flatten().flat_map(one).collect()
}

#[test]
fn sums_are_identical_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let model = two_layers();
    let data = samples(folder.path(), &model);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let session = session(&model, &data, &["x", "z"]);
            let requests = [request("x", dense(16), StatKind::Gram), request("z", dense(8), StatKind::Gram)];
            bits(&collect(&session, &data, &all(&data), &requests, &|_| ()).unwrap())
        })
    };
    let one = run(1);
    for threads in [2, 3, 16] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

#[test]
fn grouped_convolution_has_statistics_by_group() {
    let conv = model(vec![input("x", &[1, 4, 5, 5])], vec![node("Relu", &["x"], &["r"])], vec![]);
    let geometry = ConvGeometry {
        groups: 2,
        out_channels: 2,
        in_channels: 4,
        kernel: vec![1, 1],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        padding: Padding::Valid,
    };
    let folder = tempfile::tempdir().unwrap();
    let array = |i: u64| models::array(i, &[1, 4, 5, 5]);
    let data = data(folder.path(), &conv, &[vec![("x", array(1))], vec![("x", array(2))]]);
    let requests = [request("r", MatrixView::Conv(geometry), StatKind::Gram)];
    let stats = collect(&session(&conv, &data, &["r"]), &data, &[0, 1], &requests, &|_| ()).unwrap();
    assert_eq!((stats[0].len(), stats[0][1].n_rows(), stats[0][1].k()), (2, 50, 2));
    let product: f32 = (1..=2)
        .map(|i| {
            let x = array(i).mapv(|v| v.max(0.0)).into_shape_with_order((4, 25)).unwrap();
            x.row(2).dot(&x.row(3))
        })
        .sum();
    let found = stats[0][1].gram().unwrap().into_dimensionality::<Ix2>().unwrap()[[0, 1]];
    assert!((found - f64::from(product) / 50.0).abs() < 1e-6);
}

#[test]
fn bad_activations_and_requests_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let log =
        model(vec![input("x", &[-1, 16])], vec![node("Log", &["x"], &["y"]), node("Shape", &["y"], &["s"])], vec![]);
    let data = samples(folder.path(), &log);
    let session = session(&log, &data, &["y", "s"]);
    let rows = [
        (request("y", dense(16), StatKind::Gram), "activation `y` of `"),
        (request("y", dense(15), StatKind::Gram), "shape [1, 16]"),
        (request("s", dense(2), StatKind::Gram), "it is int64"),
        (request("other", dense(2), StatKind::Gram), "value `other`"),
    ];
    for (request, expected) in rows {
        let error: CalibError = collect(&session, &data, &all(&data), &[request], &|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn estimate_grows_with_the_matrix() {
    let gram = |k| gram_bytes(&[request("x", dense(k), StatKind::Gram)]);
    assert!(gram(1000) >= 12_000_000 && gram(1000) < 20_000_000);
}

#[test]
fn comparison_is_infinite_for_the_same_model_and_finite_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let model = two_layers();
    let data = samples(folder.path(), &model);
    let mut other = model.clone();
    other.graph.as_mut().unwrap().initializer[0] =
        tensor("w", &[16, 8], &noise(7, 128).iter().map(|w| (w * 64.0).round() / 64.0).collect::<Vec<_>>());
    let (a, b) = (session(&model, &data, &["p", "z"]), session(&other, &data, &["p", "z"]));
    let same = compare(&Original::new(&a), &a, &data, &all(&data), &|_| ()).unwrap();
    let error = |output: &OutputComparison| output.found.measured().unwrap().clone();
    for output in &same {
        assert_eq!((error(output).least_sqnr_db(), error(output).equal_fraction), ((f64::INFINITY, None), 1.0));
        assert_eq!(output.samples, 23);
    }
    let differing = compare(&Original::new(&a), &b, &data, &all(&data), &|_| ()).unwrap();
    // The same where the first model has been run before.
    let recorded = Original::new(&a).recorded(&data, &all(&data), &|_| ()).unwrap();
    assert_eq!(compare(&recorded, &b, &data, &all(&data), &|_| ()).unwrap(), differing);
    let few = Original::new(&a).recorded(&data, &[3, 1], &|_| ()).unwrap();
    assert!(compare(&few, &b, &data, &[1, 2], &|_| ()).is_err(), "sample 2 was not recorded");
    let differing: Vec<OutputError> = differing.iter().map(error).collect();
    assert!(
        differing.iter().all(|o| o.sqnr_db() > 20.0 && o.sqnr_db() < 80.0 && o.mean_cosine > 0.99),
        "{differing:?}"
    );
}

#[test]
fn batches_come_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let model = two_layers();
    let data = samples(folder.path(), &model);
    let session = session(&model, &data, &["x"]);
    let mut seen = Vec::new();
    for_each_batch(&[&session], &data, &[5, 1, 9, 2], &|_| (), &mut |runs| {
        seen.extend(runs.iter().map(|r| r.sample));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [5, 1, 9, 2]);
}
