//! `cargo xtask paper`: the decay of the error, and digits at few bits.
//!
//! Two experiments about quantization by a walk in the kernel of the data (Maly
//! and Saab, arXiv 2209.03487), reproducible to the last digit:
//!
//! 1. *Decay.* One layer, m = 64 rows of Gaussian data, uniform weights, N = 128 to
//!    2048 inputs, alphabets of 2, 4 and 16 levels that contain both ends. The
//!    relative error of `maly-saab` must fall like N^-1/2 (slope -0.5 within 0.1
//!    on logarithmic axes); plain rounding must not fall. Anything else is a failure.
//! 2. *Digits.* A multilayer perceptron on real digits, quantized layer by layer:
//!    the data of a layer are the activations of the network whose earlier layers are
//!    quantized already. Fewer calibration samples than inputs, so that there is
//!    a kernel to walk in.
//!
//! Writes `target/paper/decay.csv`, and the pictures of the book into `docs/src/pictures`.

use anyhow::{Context, ensure};
use ndarray::{Array1, Array2, Array3, Axis, Slice};
use ndarray_npy::NpzReader;
use onnxquant_quant::{
    GramStats, Granularity, Grid, LayerProblem, LayerSolution, Method, QuantSpec, ScaleRule, certify, solve,
};
use plotters::prelude::*;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

mod pictures;

const ROWS: usize = 64;
const INPUTS: [usize; 5] = [128, 256, 512, 1024, 2048];
const BITS: [u32; 3] = [1, 2, 4];
/// Neurons of the layer; their errors count together.
const NEURONS: usize = 16;
const SLOPE: f64 = -0.5;
const SLOPE_TOLERANCE: f64 = 0.1;
/// What the picture shows.
const PLOTTED: [&str; 4] = ["msq", "maly-saab", "cell-walk", "feedback"];
const PLOTTED_BITS: u32 = 4;

#[derive(clap::Args)]
pub struct Args {
    /// Calibration samples for the digits; the kernel vanishes from 64 on.
    #[arg(long, default_value_t = 32)]
    samples: usize,
    /// Trained weights, calibration and test digits.
    #[arg(long, default_value = "fixtures/paper/digits_mlp.npz")]
    digits: PathBuf,
    /// Where tables go.
    #[arg(long, default_value = "target/paper")]
    out: PathBuf,
    /// Where pictures go.
    #[arg(long, default_value = "docs/src/pictures")]
    pictures: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    for folder in [&args.out, &args.pictures] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder:?}"))?;
    }
    let curves = decay()?;
    print!("{}", decay_table(&curves));
    fs::write(args.out.join("decay.csv"), decay_csv(&curves))?;
    plot(&curves, &args.pictures.join("decay.svg"))?;
    pictures::draw(&args.pictures)?;
    digits(args)?;
    check_slopes(&curves)
}

/// The error of one method at one number of bits, over N.
struct Curve {
    method: Method,
    bits: u32,
    errors: Vec<f64>,
}

impl Curve {
    /// Least-squares slope of log(error) over log(N).
    fn slope(&self) -> f64 {
        let x: Vec<f64> = INPUTS.iter().map(|n| (*n as f64).ln()).collect();
        let y: Vec<f64> = self.errors.iter().map(|error| error.ln()).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (mx, my) = (mean(&x), mean(&y));
        let covariance: f64 = x.iter().zip(&y).map(|(x, y)| (x - mx) * (y - my)).sum();
        covariance / x.iter().map(|x| (x - mx).powi(2)).sum::<f64>()
    }
}

fn decay() -> anyhow::Result<Vec<Curve>> {
    let mut random = Random(2209_03487);
    let mut layers = Vec::new();
    for inputs in INPUTS {
        let rows = Array2::from_shape_simple_fn((ROWS, inputs), || random.gaussian() as f32);
        let shape = (1, inputs, NEURONS);
        let weights = Array3::from_shape_simple_fn(shape, || random.uniform() as f32 * 2.0 - 1.0);
        layers.push((weights, [GramStats::from_rows(rows.view())?]));
    }
    let mut curves = Vec::new();
    for method in Method::ALL {
        for bits in BITS {
            let error = |(weights, stats): &(Array3<f32>, [GramStats; 1])| {
                let problem = LayerProblem::new(weights.view(), Some(stats), spec(bits)?)?;
                relative_error(method, &problem)
            };
            let errors = layers.iter().map(error).collect::<Result<_, _>>()?;
            curves.push(Curve { method, bits, errors });
        }
    }
    Ok(curves)
}

/// The paper's alphabet, `2^bits` levels with both ends, one scale per neuron.
fn spec(bits: u32) -> anyhow::Result<QuantSpec> {
    Ok(QuantSpec::new(Grid::mid_rise(bits)?, Granularity::Channel, ScaleRule::Max)?)
}

/// The certified error; a bound that is claimed must hold.
fn relative_error(method: Method, problem: &LayerProblem<'_>) -> anyhow::Result<f64> {
    let certificate = certify(problem, &solve(method, problem)?)?.certificate;
    let achieved = certificate.achieved.context("a Gram matrix was gathered")?;
    if let Some(bound) = certificate.bound {
        ensure!(achieved <= bound, "{method}: error {achieved} exceeds its bound {bound}");
    }
    Ok(achieved)
}

fn decay_table(curves: &[Curve]) -> String {
    let mut table = format!("relative error, Gaussian data, m = {ROWS}\n\n");
    let _ = write!(table, "{:<15}{:>5}", "method", "bits");
    for n in INPUTS {
        let _ = write!(table, "{:>10}", format!("N={n}"));
    }
    let _ = writeln!(table, "{:>10}", "slope");
    for curve in curves {
        let _ = write!(table, "{:<15}{:>5}", curve.method, curve.bits);
        for error in &curve.errors {
            let _ = write!(table, "{error:>10.4}");
        }
        let _ = writeln!(table, "{:>10.3}", curve.slope());
    }
    table + "\n"
}

fn decay_csv(curves: &[Curve]) -> String {
    let mut csv = String::from("method,bits,inputs,relative_error\n");
    for curve in curves {
        for (inputs, error) in INPUTS.iter().zip(&curve.errors) {
            let _ = writeln!(csv, "{},{},{inputs},{error:.6}", curve.method, curve.bits);
        }
    }
    csv
}

fn check_slopes(curves: &[Curve]) -> anyhow::Result<()> {
    for curve in curves.iter().filter(|curve| curve.method.name() == "maly-saab") {
        let (bits, slope) = (curve.bits, curve.slope());
        ensure!(
            (slope - SLOPE).abs() <= SLOPE_TOLERANCE,
            "maly-saab at {bits} bits decays with slope {slope:.3}, expected {SLOPE} +- {SLOPE_TOLERANCE}"
        );
    }
    Ok(())
}

/// The curves of a few methods, at as many bits as networks have.
fn plot(curves: &[Curve], path: &Path) -> anyhow::Result<()> {
    let root = SVGBackend::new(path, (640, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption(format!("{PLOTTED_BITS} bits, Gaussian data, {ROWS} rows"), ("sans-serif", 16))
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((100.0..2600.0f64).log_scale(), (3e-3..0.6f64).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(6)
        .x_desc("inputs")
        .y_desc("relative error of the outputs")
        .draw()?;
    let shown = curves.iter().filter(|curve| curve.bits == PLOTTED_BITS && PLOTTED.contains(&curve.method.name()));
    for (curve, color) in shown.zip([RED, GREEN, BLACK, BLUE]) {
        let style = color.stroke_width(2);
        let points = INPUTS.iter().map(|n| *n as f64).zip(curve.errors.iter().copied());
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(curve.method.to_string())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperRight).border_style(BLACK.mix(0.3)).draw()?;
    root.present().with_context(|| format!("cannot write {path:?}"))
}

/// A dense network with ReLU between its layers.
struct Perceptron {
    layers: Vec<(Array2<f32>, Array1<f32>)>, // [in, out], [out]
}

impl Perceptron {
    fn read(npz: &mut NpzReader<File>) -> anyhow::Result<Perceptron> {
        let names = npz.names()?;
        let has = |name: &String| names.iter().any(|n| n.trim_end_matches(".npy") == name);
        let mut layers = Vec::new();
        for index in 1.. {
            let (weight, bias) = (format!("w{index}"), format!("b{index}"));
            if !has(&weight) {
                break;
            }
            layers.push((npz.by_name(&weight)?, npz.by_name(&bias)?));
        }
        ensure!(!layers.is_empty(), "no array `w1` (arrays: {names:?})");
        Ok(Perceptron { layers })
    }

    /// What goes into layer `index + 1`.
    fn forward(&self, index: usize, weights: &Array2<f32>, input: &Array2<f32>) -> Array2<f32> {
        let output = input.dot(weights) + &self.layers[index].1;
        if index + 1 == self.layers.len() { output } else { output.mapv(|x| x.max(0.0)) }
    }

    /// The weights after quantization, each layer fed by the quantized ones before it.
    fn quantize(&self, method: Method, bits: u32, calibration: &Array2<f32>) -> anyhow::Result<Vec<Array2<f32>>> {
        let mut activations = calibration.clone();
        let mut quantized = Vec::new();
        for (index, (weights, _)) in self.layers.iter().enumerate() {
            let stats = [GramStats::from_rows(activations.view())?];
            let weights = weights.view().insert_axis(Axis(0));
            let problem = LayerProblem::new(weights, Some(&stats), spec(bits)?)?;
            let solution: LayerSolution = solve(method, &problem)?;
            let levels = solution.dequantize().remove_axis(Axis(0));
            activations = self.forward(index, &levels, &activations);
            quantized.push(levels);
        }
        Ok(quantized)
    }

    fn accuracy(&self, weights: &[Array2<f32>], test: &Test) -> f64 {
        let mut activations = test.images.clone();
        for (index, weights) in weights.iter().enumerate() {
            activations = self.forward(index, weights, &activations);
        }
        let best = |row: ndarray::ArrayView1<'_, f32>| {
            let largest = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            largest.map_or(0, |(class, _)| class as i64)
        };
        let right = activations.rows().into_iter().zip(&test.labels);
        let right = right.filter(|(row, label)| best(*row) == **label).count();
        right as f64 / test.labels.len() as f64
    }
}

struct Test {
    images: Array2<f32>,
    labels: Array1<i64>,
}

fn digits(args: &Args) -> anyhow::Result<()> {
    let path = &args.digits;
    let file = File::open(path).with_context(|| format!("cannot open {path:?}"))?;
    let mut npz = NpzReader::new(file)?;
    let network = Perceptron::read(&mut npz)?;
    let calibration: Array2<f32> = npz.by_name("x_calib")?;
    ensure!(
        (1..=calibration.nrows()).contains(&args.samples),
        "{} calibration samples were asked for, {path:?} has {}",
        args.samples,
        calibration.nrows()
    );
    let calibration = calibration.slice_axis(Axis(0), Slice::from(..args.samples)).to_owned();
    let test = Test { images: npz.by_name("x_test")?, labels: labels(&mut npz)? };
    let float: Vec<Array2<f32>> = network.layers.iter().map(|(w, _)| w.clone()).collect();
    let accuracy = network.accuracy(&float, &test);
    println!("accuracy on {} digits, {} calibration samples\n", test.labels.len(), args.samples);
    println!("{:<15}{:>9}{:>9}{:>9}{:>9}", "method", "1 bit", "2 bits", "3 bits", "4 bits");
    for method in Method::ALL {
        print!("{method:<15}");
        for bits in 1..=4 {
            let quantized = network.quantize(method, bits, &calibration)?;
            print!("{:>8.2}%", 100.0 * network.accuracy(&quantized, &test));
        }
        println!();
    }
    println!("{:<15}{:>8.2}%\n", "float", 100.0 * accuracy);
    Ok(())
}

/// Labels in whichever integer type they were saved.
fn labels(npz: &mut NpzReader<File>) -> anyhow::Result<Array1<i64>> {
    if let Ok(labels) = npz.by_name::<ndarray::OwnedRepr<i64>, ndarray::Ix1>("y_test") {
        return Ok(labels);
    }
    if let Ok(labels) = npz.by_name::<ndarray::OwnedRepr<u8>, ndarray::Ix1>("y_test") {
        return Ok(labels.mapv(i64::from));
    }
    let labels: Array1<i32> = npz.by_name("y_test")?;
    Ok(labels.mapv(i64::from))
}

/// A reproducible stream of random numbers (splitmix64, Box-Muller).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
