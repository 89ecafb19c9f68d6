//! Error feedback with its scale search and descent, beside plain rounding.

use divan::Bencher;
use ndarray::{Array2, Array3};
use onnxquant_quant::{GramStats, Granularity, Grid, LayerProblem, Method, QuantSpec, ScaleRule, solve};

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

fn layer(bencher: Bencher<'_, '_>, method: Method, (inputs, outputs, bits): (usize, usize, u32)) {
    let rows = Array2::from_shape_fn((2 * inputs, inputs), |(i, k)| noise(i * inputs + k) + noise(i * inputs + k / 3));
    let stats = [GramStats::from_rows(rows.view()).expect("finite rows")];
    let weights = Array3::from_shape_fn((1, inputs, outputs), |(_, k, m)| noise(k * outputs + m + 7));
    let grid = Grid::symmetric(bits).expect("1 to 8 bits");
    let spec = QuantSpec::new(grid, Granularity::Channel, ScaleRule::LeastSquares).expect("a sound specification");
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).expect("matching shapes");
    bencher.bench_local(|| solve(method, &problem).expect("a Gram matrix"));
}

const SIZES: [(usize, usize, u32); 4] = [(384, 384, 8), (384, 384, 4), (384, 384, 2), (1536, 384, 4)];

#[divan::bench(args = SIZES, max_time = 2)]
fn msq(bencher: Bencher<'_, '_>, size: (usize, usize, u32)) {
    layer(bencher, Method::Msq, size);
}

#[divan::bench(args = SIZES, max_time = 3)]
fn optq(bencher: Bencher<'_, '_>, size: (usize, usize, u32)) {
    layer(bencher, Method::Optq, size);
}
