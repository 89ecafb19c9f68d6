//! Processors whose sums of products saturate: files give there what they give elsewhere, and where they do not it is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use onnxquant_ir::{Graph, Model, Node, tensor};
use onnxquant_passes::fold_planes::fold_planes;
use serde_json::Value;

use crate::command::compare_with;
use crate::integers::SIMULATION_MARGIN_DB;
use crate::support::{
    Chain, Failures, Fixture, Job, Measured, TiedModel, agree, folder, measure, measure_without_vnni, noise_samples,
    report, write,
};

const FIXTURES: [Fixture; 4] = [Fixture::MLP, Fixture::CNN, Fixture::TRANSFORMER, Fixture::CONV1D];
const STRICT: &[&str] = &["--scheme", "w8a8", "--target", "qdq-strict"];
const STATIC: &[&str] = &["--scheme", "w8a8"];
const DYNAMIC: &[&str] = &["--scheme", "w8a8-dynamic"];
const AUTO: &[&str] = &["--scheme", "auto"];

/// Two processors of which none saturates differ by that.
const BETWEEN_PROCESSORS_DB: f64 = 0.5;
/// What is told and what is measured where sums saturate.
const SATURATED_MARGIN_DB: f64 = 1.0;
/// A file is ruined by saturation that loses so much.
const RUINED_DB: f64 = 6.0;
/// Allows all codes.
const ALL_CODES: [&str; 2] = ["--cpu", "vnni"];

fn job(model: &Path, fixture: &Fixture, samples: &[PathBuf]) -> Job {
    Job { model: model.to_owned(), reference: Some(fixture.model()), samples: samples.to_vec(), ..Job::default() }
}

#[test]
fn files_give_the_same_with_and_without_vnni() {
    let folder = folder();
    let (mut cases, mut jobs) = (Vec::new(), Vec::new());
    for fixture in FIXTURES {
        for args in [STRICT, DYNAMIC, AUTO] {
            let path = folder.path().join(format!("{}.onnx", jobs.len()));
            let report = report(&fixture.model(), &path, args, Some(&fixture.calib()));
            jobs.push(job(&path, &fixture, &fixture.held_out()));
            cases.push((format!("{} {}", fixture.name, args.join(" ")), report));
        }
    }
    let Some(emulated) = measure_without_vnni(&jobs) else { return };
    let mut failures = Failures::default();
    for ((name, report), (native, emulated)) in cases.iter().zip(measure(&jobs).iter().zip(&emulated)) {
        let faults = [native.faults(), emulated.faults()].concat();
        failures.check(faults.is_empty(), || format!("{name}: {faults}"));
        let figures = [native, emulated].map(|found| found.default_sqnr_db.unwrap_or(f64::INFINITY));
        let same = agree(figures[0], figures[1], BETWEEN_PROCESSORS_DB);
        failures.check(same, || format!("{name}: {} dB here, {} dB without VNNI", figures[0], figures[1]));
        let told = report["held_out"]["sqnr_db"].as_f64().unwrap_or(f64::INFINITY);
        let as_told = agree(figures[1], told, SIMULATION_MARGIN_DB);
        failures.check(as_told, || format!("{name}: {} dB without VNNI, {told} dB told", figures[1]));
    }
    failures.finish();
}

/// The SQNR of the first output, near that of all.
fn told_db(found: &Value) -> f64 {
    found["outputs"][0]["sqnr_db"].as_f64().unwrap_or(f64::INFINITY)
}

/// Files whose codes may be anything.
#[test]
fn what_saturates_is_told_by_compare() {
    let folder = folder();
    let cases = [
        (Fixture::MLP, DYNAMIC),
        (Fixture::MLP, STRICT),
        (Fixture::TRANSFORMER, DYNAMIC),
        (Fixture::CNN, STRICT),
        (Fixture::CONV1D, STRICT),
    ];
    let mut failures = Failures::default();
    let (mut jobs, mut simulated) = (Vec::new(), Vec::new());
    for (fixture, args) in cases {
        let path = folder.path().join(format!("{}.onnx", jobs.len()));
        report(&fixture.model(), &path, &[args, &ALL_CODES].concat(), Some(&fixture.calib()));
        let samples: Vec<PathBuf> = (0..48).map(|index| fixture.sample(index)).collect();
        jobs.push(job(&path, &fixture, &samples));
        jobs.push(Job { exact_products: true, ..job(&path, &fixture, &samples) });
        let compared = |more: &[&str]| compare_with(&fixture.model(), &path, &fixture.calib(), more);
        let exact = compared(&[]);
        for (cpu, is_exact) in [("vnni", true), ("arm64", true), ("avx512", false), ("portable", false)] {
            let found = compared(&["--cpu", cpu]);
            let expected = if is_exact { exact.clone() } else { compared(&["--cpu", "avx2"]) };
            failures.check(found == expected, || format!("{} {args:?}: {cpu} differs from its like", fixture.name));
        }
        simulated.push((fixture, args, exact, compared(&["--cpu", "avx2"])));
    }
    let Some(measured) = measure_without_vnni(&jobs) else { return };
    let mut most = 0f64;
    for ((fixture, args, exact, saturated), found) in simulated.iter().zip(measured.chunks(2)) {
        let name = format!("{} {args:?}", fixture.name);
        most = most.max(told_db(exact) - told_db(saturated));
        check(&name, "saturated", told_db(saturated), &found[0], &mut failures);
        check(&name, "exact", told_db(exact), &found[1], &mut failures);
    }
    failures.check(most >= RUINED_DB, || format!("saturation costs at most {most} dB"));
    failures.finish();
}

fn check(name: &str, what: &str, told: f64, found: &Measured, failures: &mut Failures) {
    let faults = found.faults();
    failures.check(faults.is_empty(), || format!("{name}, {what}: {faults}"));
    let found = found.default_sqnr_db.unwrap_or(f64::INFINITY);
    let agrees = agree(found, told, SATURATED_MARGIN_DB);
    failures.check(agrees, || format!("{name}, {what}: {found} dB in ONNX Runtime, {told} dB told"));
}

/// Layers on integer kernels and paddings by operator, and their pairs of codes that some activations make saturate.
#[derive(Debug, Default)]
struct Written {
    layers: BTreeMap<String, usize>,
    pairs: usize,
    broken: usize,
}

impl Written {
    /// What stands in a file, read without the program's own idea of pairs.
    fn read(path: &Path) -> Self {
        let mut model = Model::read(path).expect("the file can be read");
        fold_planes(model.graph_mut());
        let mut written = Self::default();
        for (_, node) in model.graph().nodes() {
            let weight = integer_weight(model.graph(), node);
            if weight.is_some() || node.is("Pad") {
                *written.layers.entry(node.op_type().to_owned()).or_default() += 1;
            }
            let Some((codes, dims)) = weight else { continue };
            for row in reductions(node, &codes, &dims) {
                for pair in row.chunks_exact(2) {
                    let sums = [(0, 255), (255, 0), (255, 255)].map(|(a, b)| a * pair[0] + b * pair[1]);
                    written.pairs += 1;
                    written.broken += usize::from(sums.iter().any(|sum| i16::try_from(*sum).is_err()));
                }
            }
        }
        written
    }
}

/// The int8 codes of a layer whose input is codes as well.
fn integer_weight(graph: &Graph, node: &Node) -> Option<(Vec<i32>, Vec<usize>)> {
    let decoded = |slot: usize| graph.producer(node.input(slot)?).filter(|(_, node)| node.is("DequantizeLinear"));
    let codes = match node.op_type() {
        "MatMulInteger" => node.input(1)?,
        "Conv" | "Gemm" | "MatMul" => {
            decoded(0)?;
            decoded(1)?.1.input(0)?
        }
        _ => return None,
    };
    let tensor = graph.value(codes).constant()?;
    let numbers = tensor::to_codes(tensor).ok()?.into_iter().map(i32::from).collect();
    Some((numbers, tensor::shape(tensor).ok()?))
}

/// By output, the codes in the order in which kernels multiply them; none for a true depthwise Conv, which widens first.
fn reductions(node: &Node, codes: &[i32], dims: &[usize]) -> Vec<Vec<i32>> {
    if node.is("Conv") {
        let (channels, positions) = (dims[1], dims[2..].iter().product::<usize>());
        if channels == 1 && dims[0] as i64 == node.int("group", 1) {
            return vec![];
        }
        let row = |row: &[i32]| {
            (0..positions)
                .flat_map(|p| (0..channels).map(move |c| (c, p)))
                .map(|(c, p)| row[c * positions + p])
                .collect()
        };
        return codes.chunks(channels * positions).map(row).collect();
    }
    match node.int("transB", 0) {
        0 => (0..dims[1]).map(|m| codes.iter().skip(m).step_by(dims[1]).copied().collect()).collect(),
        _ => codes.chunks(dims[1]).map(<[i32]>::to_vec).collect(),
    }
}

/// Options, and how many nodes of which operator the file has then.
type Setting = (&'static [&'static str], Vec<(&'static str, usize)>);

/// Models with layers of all kinds, and of what kinds they are in the file.
fn chains() -> Vec<(&'static str, Chain, Vec<Setting>)> {
    let bits4: &[&str] = &["--scheme", "w4a8", "--target", "qdq-strict"];
    let dense = Chain::new(&[4, 33]).gemm(33, 31, false).gemm(31, 18, true).matmul(18, 17).matmul(17, 9);
    let dense_kinds = vec![("Gemm", 2), ("MatMul", 2)];
    let pictures = Chain::new(&[1, 3, 12, 12])
        .conv(&[16, 3, 3, 3], 1)
        .conv(&[16, 8, 5, 5], 2)
        .conv(&[16, 16, 1, 1], 1)
        .conv(&[16, 1, 3, 3], 16)
        .conv(&[32, 1, 4, 4], 16)
        .conv(&[20, 32, 2, 6], 1)
        .conv(&[24, 5, 7, 7], 4);
    // The first is padded to four channels.
    let wide = Chain::new(&[1, 3, 40, 40]).conv(&[32, 3, 3, 3], 1).conv(&[32, 32, 3, 3], 1).conv(&[32, 32, 3, 3], 1);
    let lines = Chain::new(&[1, 5, 40]).conv(&[7, 5, 3], 1).conv(&[6, 7, 4], 1).conv(&[8, 3, 7], 2);
    let volumes = Chain::new(&[1, 3, 6, 6, 6]).conv(&[8, 3, 3, 3, 3], 1).conv(&[6, 4, 2, 2, 2], 2);
    vec![
        (
            "dense",
            dense,
            vec![(STRICT, dense_kinds.clone()), (bits4, dense_kinds), (DYNAMIC, vec![("MatMulInteger", 4)])],
        ),
        ("pictures", pictures, vec![(STRICT, vec![("Conv", 7)]), (bits4, vec![("Conv", 7)])]),
        ("wide", wide, vec![(STATIC, vec![("Conv", 3), ("Pad", 1)])]),
        ("lines", lines, vec![(STRICT, vec![("Conv", 3)])]),
        ("volumes", volumes, vec![(STRICT, vec![("Conv", 2)])]),
    ]
}

#[test]
fn no_written_codes_can_saturate() {
    let folder = folder();
    let mut failures = Failures::default();
    let mut check = |name: &str, path: &Path, expected: &[(&str, usize)]| {
        let written = Written::read(path);
        let layers: Vec<_> = written.layers.iter().map(|(op_type, &count)| (op_type.as_str(), count)).collect();
        failures.check(layers == expected, || format!("{name}: {layers:?}, expected {expected:?}"));
        let found = (written.broken, written.pairs);
        failures
            .check(found.0 == 0 && found.1 > 0, || format!("{name}: {} of {} pairs can saturate", found.0, found.1));
    };
    for (name, chain, settings) in chains() {
        let at = |name: String| folder.path().join(name);
        let (model, calib) = (at(format!("{name}.onnx")), at(name.to_owned()));
        write(&chain.proto(), &model);
        chain.samples(&calib, 12);
        for (index, (args, expected)) in settings.iter().enumerate() {
            let output = at(format!("{name}_{index}.onnx"));
            report(&model, &output, args, Some(&calib));
            check(&format!("{name} {}", args.join(" ")), &output, expected);
        }
    }
    for (index, (tied, args, expected)) in [
        (TiedModel::products(3, 64), DYNAMIC, ("MatMulInteger", 3)),
        (TiedModel::convolutions(2, 32), STRICT, ("Conv", 2)),
    ]
    .into_iter()
    .enumerate()
    {
        let at = |name: &str| folder.path().join(format!("tied{index}{name}"));
        let (model, output, calib) = (at(".onnx"), at("_out.onnx"), at(""));
        write(&tied.proto(), &model);
        noise_samples(&calib, &tied.shape, 12);
        report(&model, &output, args, Some(&calib));
        check(&format!("shared weight {}", args.join(" ")), &output, &[expected]);
    }
    failures.finish();
}

/// ONNX Runtime can be told to make all weights unsigned, which it does by moving zero points: files have these.
#[test]
fn weights_of_every_form_run_where_the_runtime_makes_them_unsigned() {
    let folder = folder();
    let fixture = Fixture::MLP;
    let path = |name: &str| folder.path().join(format!("{name}.onnx"));
    let forms: [&[&str]; 4] = [
        &["--format", "dq", "--bits", "8"],
        &["--format", "dq", "--bits", "4"],
        &["--scheme", "w8", "--granularity", "tensor"],
        &["--scheme", "w8"],
    ];
    let mut jobs = Vec::new();
    for (index, form) in forms.into_iter().enumerate() {
        let output = path(&index.to_string());
        report(&fixture.model(), &output, form, Some(&fixture.calib()));
        let job = Job::compare(&output, &fixture.model(), &fixture.held_out());
        jobs.push(Job { exact_products: true, ..job });
    }
    let mut failures = Failures::default();
    for (found, form) in measure(&jobs).into_iter().zip(forms) {
        let db = found.default_sqnr_db;
        let is_right = found.faults().is_empty() && db.is_none_or(|db| db > 15.0);
        failures.check(is_right, || format!("{form:?}: {db:?} dB, {}", found.faults()));
    }
    failures.finish();
}
