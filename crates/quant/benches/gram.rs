//! Gathering second moments against faer's own triangular product.
//!
//! `accumulate` checks rows for NaN, transposes them into the buffer, sums the
//! columns, flushes chunks and symmetrises; `triangular_product` is one call.

use divan::Bencher;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};
use onnxquant_quant::{Chunks, ConvGeometry, GramAccumulator, GramStats, MatrixView, Padding};

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

#[divan::bench(args = [9, 25, 32, 64, 256, 576, 1024], max_time = 2)]
fn accumulate(bencher: Bencher<'_, '_>, inputs: usize) {
    let rows = rows(inputs);
    bencher.bench_local(|| gather(&rows));
}

#[divan::bench(args = [9, 25, 32, 64, 256, 576, 1024], max_time = 2)]
fn triangular_product(bencher: Bencher<'_, '_>, inputs: usize) {
    let rows = rows(inputs);
    let x = MatRef::from_row_major_slice(rows.as_slice().expect("standard layout"), ROWS, inputs);
    let mut gram = Mat::<f32>::zeros(inputs, inputs);
    bencher.bench_local(|| product(gram.as_mut(), x));
}

fn product(target: MatMut<'_, f32>, x: MatRef<'_, f32>) {
    matmul(
        target,
        BlockStructure::TriangularLower,
        Accum::Replace,
        x.transpose(),
        BlockStructure::Rectangular,
        x,
        BlockStructure::Rectangular,
        1.0f32,
        Par::Seq,
    );
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
        view.for_each_rows(input.view(), 0, Chunks::all(1024), &mut |chunk| rows += chunk.nrows())
            .expect("a sound geometry");
        rows
    });
}

/// One group of a depthwise convolution, 28 x 28 patches of 5 x 5: unfolded and gathered.
#[divan::bench(max_time = 1)]
fn depthwise(bencher: Bencher<'_, '_>) {
    let view = MatrixView::Conv(ConvGeometry {
        groups: 64,
        out_channels: 64,
        in_channels: 64,
        kernel: vec![5, 5],
        strides: vec![1; 2],
        dilations: vec![1, 1],
        padding: Padding::SameUpper,
    });
    let input = ndarray::ArrayD::from_elem(vec![1, 64, 28, 28], 0.5f32);
    bencher.bench_local(|| {
        let mut accumulator = GramAccumulator::new(25).expect("at least one input");
        let push = &mut |rows: ArrayView2<'_, f32>| accumulator.push(rows).expect("finite rows");
        view.for_each_rows(input.view(), 17, Chunks::all(4096), push).expect("a sound geometry");
        accumulator
    });
}

/// Few inputs, column by column as unfolded patches are.
#[divan::bench(args = [9, 25], max_time = 1)]
fn accumulate_columns(bencher: Bencher<'_, '_>, inputs: usize) {
    let rows = Array2::from_elem((inputs, ROWS), 0.5f32).reversed_axes();
    bencher.bench_local(|| gather(&rows));
}

#[divan::bench(args = [9, 25], max_time = 1)]
fn triangular_product_columns(bencher: Bencher<'_, '_>, inputs: usize) {
    let rows = Array2::from_elem((inputs, ROWS), 0.5f32);
    let x = MatRef::from_column_major_slice(rows.as_slice().expect("standard layout"), ROWS, inputs);
    let mut gram = Mat::<f32>::zeros(inputs, inputs);
    bencher.bench_local(|| product(gram.as_mut(), x));
}
