//! Gathering second moments against faer's own triangular product.
//!
//! `accumulate` checks rows for NaN, transposes them into the buffer, sums the
//! columns, flushes chunks and symmetrises; `triangular_product` is one call.

use divan::Bencher;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatRef, Par};
use ndarray::Array2;
use onnxquant_quant::{ConvGeometry, GramAccumulator, GramStats, MatrixView, Padding};

fn main() {
    divan::main();
}

const ROWS: usize = 8192;

fn rows(inputs: usize) -> Array2<f32> {
    Array2::from_shape_fn((ROWS, inputs), |(i, j)| ((i * 31 + j * 17) % 101) as f32 - 50.0)
}

fn gather(rows: &Array2<f32>) -> GramStats {
    let mut accumulator = GramAccumulator::new(rows.ncols()).expect("at least one input");
    accumulator.push(rows.view()).expect("finite rows");
    accumulator.finish().expect("finite sums")
}

#[divan::bench(args = [64, 256, 576, 1024], max_time = 3)]
fn accumulate(bencher: Bencher<'_, '_>, inputs: usize) {
    let rows = rows(inputs);
    bencher.bench_local(|| gather(&rows));
}

#[divan::bench(args = [64, 256, 576, 1024], max_time = 3)]
fn triangular_product(bencher: Bencher<'_, '_>, inputs: usize) {
    let rows = rows(inputs);
    let x = MatRef::from_row_major_slice(rows.as_slice().expect("standard layout"), ROWS, inputs);
    let mut gram = Mat::<f32>::zeros(inputs, inputs);
    bencher.bench_local(|| {
        matmul(
            gram.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Replace,
            x.transpose(),
            BlockStructure::Rectangular,
            x,
            BlockStructure::Rectangular,
            1.0f32,
            Par::Seq,
        );
    });
}

/// One 3 x 3 convolution with 64 channels on 56 x 56 pixels: 3136 patches of 576.
#[divan::bench(args = [1, 2], max_time = 2)]
fn unfold(bencher: Bencher<'_, '_>, stride: usize) {
    let view = MatrixView::Conv(ConvGeometry {
        groups: 1,
        out_channels: 1,
        in_channels: 64,
        kernel: vec![3, 3],
        strides: vec![stride; 2],
        dilations: vec![1, 1],
        padding: Padding::SameUpper,
    });
    let input = ndarray::ArrayD::from_elem(vec![1, 64, 56, 56], 0.5f32);
    bencher.bench_local(|| {
        let mut rows = 0;
        view.for_each_rows(input.view(), 0, 1024, &mut |chunk| rows += chunk.nrows()).expect("a sound geometry");
        rows
    });
}
