//! Gathering the distribution of an activation, and choosing its range.

use divan::Bencher;
use divan::counter::ItemsCount;
use onnxquant_quant::{ActivationGrid, Histogram, RangeMethod, choose_range};

fn main() {
    divan::main();
}

/// Sums of three even spreads around zero.
fn values(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut even = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..n).map(|_| even() + even() + even()).collect()
}

fn push(bencher: Bencher<'_, '_>, values: &[f32]) {
    let mut histogram = Histogram::new();
    bencher.counter(ItemsCount::new(values.len())).bench_local(|| histogram.push(values).expect("finite values"));
}

#[divan::bench(args = [64, 4000, 65_536, 1_000_000], max_time = 1)]
fn both_signs(bencher: Bencher<'_, '_>, n: usize) {
    push(bencher, &values(n));
}

#[divan::bench(args = [64, 4000, 65_536, 1_000_000], max_time = 1)]
fn relu(bencher: Bencher<'_, '_>, n: usize) {
    let values: Vec<f32> = values(n).into_iter().map(|x| x.max(0.0)).collect();
    push(bencher, &values);
}

#[divan::bench(max_time = 1)]
fn constant(bencher: Bencher<'_, '_>) {
    push(bencher, &vec![1.5; 1_000_000]);
}

#[divan::bench(args = [RangeMethod::MinMax, RangeMethod::Percentile(99.99), RangeMethod::MeanSquaredError, RangeMethod::Entropy], max_time = 1)]
fn range(bencher: Bencher<'_, '_>, method: RangeMethod) {
    let mut histogram = Histogram::new();
    histogram.push(&values(1_000_000)).expect("finite values");
    bencher.bench_local(|| choose_range(&histogram, method, ActivationGrid::Unsigned));
}
