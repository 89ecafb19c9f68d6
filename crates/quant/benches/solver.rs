//! The methods that measure errors by the data, beside plain rounding.
//!
//! `feedback_judged` also chooses share and damping on held-out rows, in the presence of drift; `large` does so for
//! layers of up to 8192 inputs, once and only with `LARGE` in the environment: it takes minutes. `max alloc` is the memory
//! that a solution takes besides weights and statistics.

use divan::{AllocProfiler, Bencher};
use ndarray::{Array2, Array3};
use onnxquant_quant::{Granularity, Grid, LayerProblem, Method, PairedAccumulator, QuantSpec, ScaleRule, solve};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Rows of the calibration and of the held-out data are no more than these.
const MOST_ROWS: [usize; 2] = [2048, 512];

fn main() {
    divan::main();
}

/// Numbers spread evenly over -1..1 that no short rule predicts.
fn noise(i: usize) -> f32 {
    let mut z = (i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// Inputs, outputs, bits.
type Size = (usize, usize, u32);

const SIZES: [Size; 4] = [(384, 384, 8), (384, 384, 4), (384, 384, 2), (1536, 384, 4)];

fn large_sizes() -> Vec<Size> {
    let sizes = [(1536, 1536, 4), (2048, 5632, 4), (5632, 2048, 4), (4096, 4096, 4), (8192, 8192, 4)];
    if std::env::var_os("LARGE").is_some() { sizes.to_vec() } else { Vec::new() }
}

/// Rows of the quantized and of the float network.
fn rows(n: usize, inputs: usize, seed: usize) -> (Array2<f32>, Array2<f32>) {
    let place = |i: usize, k: usize| (i + seed) * inputs + k;
    let seen = Array2::from_shape_fn((n, inputs), |(i, k)| noise(place(i, k)) + noise(place(i, k / 3)));
    let reference = Array2::from_shape_fn((n, inputs), |(i, k)| seen[[i, k]] + 0.05 * noise(7 * place(i, k / 5)));
    (seen, reference)
}

fn layer(bencher: Bencher<'_, '_>, method: Method, (inputs, outputs, bits): Size, judged: bool) {
    let gather = |n: usize, seed: usize| {
        let (seen, reference) = rows(n, inputs, seed);
        let mut accumulator = PairedAccumulator::new(inputs).expect("at least one input");
        accumulator.push(seen.view(), reference.view()).expect("finite rows");
        [accumulator.finish().expect("finite sums")]
    };
    let [calibration, held_out] = MOST_ROWS;
    let (stats, held_out) = (gather(calibration.min(2 * inputs), 0), gather(held_out.min(inputs / 4), 2 * inputs));
    let weights = Array3::from_shape_fn((1, inputs, outputs), |(_, k, m)| noise(k * outputs + m + 7));
    let grid = Grid::symmetric(bits).expect("1 to 8 bits");
    let spec = QuantSpec::new(grid, Granularity::Channel, ScaleRule::LeastSquares).expect("a sound specification");
    let mut problem = LayerProblem::new(weights.view(), Some(&stats), spec).expect("matching shapes");
    if judged {
        problem = problem.with_held_out(&held_out).expect("matching shapes");
    }
    bencher.bench_local(|| solve(method, &problem).expect("a Gram matrix"));
}

#[divan::bench(args = SIZES, max_time = 2)]
fn msq(bencher: Bencher<'_, '_>, size: Size) {
    layer(bencher, Method::Msq, size, false);
}

#[divan::bench(args = SIZES, max_time = 2)]
fn gpfq(bencher: Bencher<'_, '_>, size: Size) {
    layer(bencher, Method::Gpfq, size, false);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn optq(bencher: Bencher<'_, '_>, size: Size) {
    layer(bencher, Method::Optq, size, false);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn feedback(bencher: Bencher<'_, '_>, size: Size) {
    layer(bencher, Method::Feedback, size, false);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn feedback_judged(bencher: Bencher<'_, '_>, size: Size) {
    layer(bencher, Method::Feedback, size, true);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn saturate(bencher: Bencher<'_, '_>, size: Size) {
    layer(bencher, Method::Saturate, size, true);
}

#[divan::bench(args = large_sizes(), sample_count = 1, sample_size = 1)]
fn large(bencher: Bencher<'_, '_>, size: Size) {
    layer(bencher, Method::Feedback, size, true);
}
