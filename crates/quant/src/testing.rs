//! Data for the unit tests.

use crate::lattice::panel::Panel;
use crate::lattice::quadratic::Quadratic;
use crate::lattice::recipe::Forms;
use crate::layer::grid::Affine;
use crate::layer::problem::LayerProblem;
use crate::layer::solution::LayerSolution;
use crate::stats::gram::GramStats;
use crate::stats::paired::PairedAccumulator;
use faer::Mat;
use ndarray::{Array2, Array3, ArrayView3, Axis};

/// A reproducible stream of standard normal numbers (splitmix64, Box-Muller).
pub(crate) struct Gaussian(u64);

impl Gaussian {
    pub(crate) fn new(seed: u64) -> Gaussian {
        Gaussian(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn sample(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

pub(crate) fn gaussian_rows(n: usize, k: usize, seed: u64) -> Array2<f32> {
    let mut gaussian = Gaussian::new(seed);
    Array2::from_shape_simple_fn((n, k), || gaussian.sample() as f32)
}

pub(crate) fn gaussian_weights(groups: usize, k: usize, m: usize, seed: u64) -> Array3<f32> {
    let mut gaussian = Gaussian::new(seed);
    Array3::from_shape_simple_fn((groups, k, m), || gaussian.sample() as f32)
}

/// Rows whose columns are mixtures of each other, with a falling spectrum.
pub(crate) fn correlated_rows(n: usize, k: usize, seed: u64) -> Array2<f32> {
    let mut rows = gaussian_rows(n, k, seed);
    for (j, mut column) in rows.axis_iter_mut(Axis(1)).enumerate() {
        column.mapv_inplace(|x| x / (1.0 + j as f32));
    }
    rows.dot(&gaussian_rows(k, k, 99)) + 0.5
}

/// Two rows an input, in which it alone is not 0, with both signs: no correlation and no mean.
pub(crate) fn diagonal_rows(k: usize) -> Array2<f32> {
    Array2::from_shape_fn((2 * k, k), |(i, input)| match (i / 2 == input, i % 2) {
        (false, _) => 0.0,
        (true, 0) => 1.0 + input as f32,
        (true, _) => -1.0 - input as f32,
    })
}

/// Of the only group.
pub(crate) fn stats(rows: &Array2<f32>) -> [GramStats; 1] {
    [GramStats::from_rows(rows.view()).unwrap()]
}

/// The same with what the float network has in place of the rows that are seen.
pub(crate) fn paired_stats(seen: &Array2<f32>, reference: &Array2<f32>) -> [GramStats; 1] {
    let mut accumulator = PairedAccumulator::new(seen.ncols()).unwrap();
    accumulator.push(seen.view(), reference.view()).unwrap();
    [accumulator.finish().unwrap()]
}

/// All neurons of the first group.
pub(crate) fn panel<'a>(problem: &'a LayerProblem<'_>, forms: &'a Forms) -> Panel<'a> {
    let (form, factor) = (&forms.forms[0], &forms.factors[0]);
    let weights = problem.weights();
    Panel {
        form,
        lower: factor.lower.as_ref(),
        added: factor.added,
        grid: problem.spec().grid(),
        partners: &[],
        weights: Mat::from_fn(weights.dim().2, form.inputs.len(), |p, i| weights[[0, form.inputs[i], p]]),
    }
}

/// Every weight to the nearest level on the scales of `solution`.
pub(crate) fn rounded(problem: &LayerProblem<'_>, solution: &LayerSolution) -> LayerSolution {
    let mut plain = solution.clone();
    for ((g, k, m), code) in plain.codes.indexed_iter_mut() {
        let block = [g, k / solution.block_size, m];
        let affine = Affine::new(solution.scales[block], solution.zero_points[block]).unwrap();
        let affine = affine.with_alphabet(solution.alphabet);
        *code = affine.quantize(problem.weights()[[g, k, m]], problem.spec().grid());
    }
    plain
}

/// What `run` returns with so many threads.
pub(crate) fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

/// `(w - q)^T A (w - q)` of every neuron of the first group; `targets` are the `w`.
pub(crate) fn energies(problem: &LayerProblem<'_>, targets: ArrayView3<'_, f32>, levels: &Array3<f32>) -> Vec<f64> {
    let form = Quadratic::new(&problem.stats().unwrap()[0], problem.corrects_bias()).unwrap();
    let added = f64::from(form.factor(problem.damping()).unwrap().added);
    let errors = (&targets - levels).index_axis(Axis(0), 0).mapv(f64::from);
    let entry = |(i, j)| f64::from(form.matrix[(i, j)]) + if i == j { added } else { 0.0 };
    let a = Array2::from_shape_fn((form.inputs.len(), form.inputs.len()), entry);
    let errors = errors.select(Axis(0), &form.inputs);
    (a.dot(&errors) * &errors).sum_axis(Axis(0)).to_vec()
}

/// Values distributed as those of activations are.
pub(crate) fn activations(n: usize, seed: u64) -> Vec<(&'static str, Vec<f32>)> {
    let mut gaussian = Gaussian::new(seed);
    let mut values = |draw: &dyn Fn(&mut dyn FnMut() -> f64) -> f64| -> Vec<f32> {
        (0..n).map(|_| draw(&mut || gaussian.sample()) as f32).collect()
    };
    let student = |g: &mut dyn FnMut() -> f64| g() / ((g().powi(2) + g().powi(2) + g().powi(2)) / 3.0).sqrt();
    let gelu = |x: f64| x / (1.0 + (-1.702 * x).exp());
    vec![
        ("gaussian", values(&|g| g())),
        ("shifted gaussian", values(&|g| 3.0 * g() + 5.0)),
        ("laplace", values(&|g| g() * g() + g() * g())),
        ("relu of gaussian", values(&|g| g().max(0.0))),
        ("negative relu", values(&|g| 40.0 * g().min(0.0))),
        ("gelu of gaussian", values(&|g| gelu(2.0 * g()))),
        ("student t with 3 degrees of freedom", values(&student)),
        ("relu of student t", values(&|g| student(g).max(0.0))),
    ]
}

pub(crate) fn histogram_of(values: &[f32]) -> crate::Histogram {
    let mut histogram = crate::Histogram::new();
    histogram.push(values).unwrap();
    histogram.end_sample();
    histogram
}
