//! The kernel walk: its growth with K and r, and what rank-one updates save.
//!
//! `grows` should double with K and quadruple with r; `refactoring` factors the
//! basis anew at every exchange, O(r^3) a step instead of O(r^2).

use divan::Bencher;
use ndarray::Array2;
use onnxquant_quant::{Directions, GramStats, Kernel, WalkOptions, Walls};

fn main() {
    divan::main();
}

/// Numbers spread evenly over -1..1 that no short rule predicts.
fn noise(count: usize) -> impl Iterator<Item = f64> {
    (0..count as u64).map(|i| {
        let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

struct Neuron {
    directions: Directions,
    start: Vec<f64>,
    walls: Walls,
}

impl Neuron {
    fn new(inputs: usize, rank: usize) -> Neuron {
        let rows = noise(rank * inputs).map(|x| x as f32).collect();
        let rows = Array2::from_shape_vec((rank, inputs), rows).expect("as many as asked for");
        let stats = GramStats::from_rows(rows.view()).expect("finite rows");
        let Ok(Some(Kernel::Walkable(directions))) = Kernel::new(&stats) else {
            panic!("fewer rows than inputs leave a kernel");
        };
        let walls = Walls::new(vec![-1.0; inputs], vec![1.0; inputs]).expect("ordered walls");
        Neuron { directions, start: noise(rank * inputs + inputs).skip(rank * inputs).collect(), walls }
    }

    fn walk(&self, refactor_every: usize) -> Vec<f64> {
        let options = WalkOptions { refactor_every };
        self.directions.walk(&self.start, &self.walls, options).expect("a sound basis").values
    }
}

#[divan::bench(args = [(512, 64), (1024, 64), (2048, 64), (1024, 32), (1024, 128), (1024, 256)],
    max_time = 2)]
fn grows(bencher: Bencher<'_, '_>, (inputs, rank): (usize, usize)) {
    let neuron = Neuron::new(inputs, rank);
    bencher.bench_local(|| neuron.walk(256));
}

#[divan::bench(args = [64, 128, 256], max_time = 2)]
fn rank_one_updates(bencher: Bencher<'_, '_>, rank: usize) {
    let neuron = Neuron::new(2 * rank, rank);
    bencher.bench_local(|| neuron.walk(256));
}

#[divan::bench(args = [64, 128, 256], max_time = 2)]
fn refactoring(bencher: Bencher<'_, '_>, rank: usize) {
    let neuron = Neuron::new(2 * rank, rank);
    bencher.bench_local(|| neuron.walk(1));
}

#[divan::bench(args = [64, 256], max_time = 2)]
fn first_basis(bencher: Bencher<'_, '_>, rank: usize) {
    bencher.bench_local(|| Neuron::new(1024, rank));
}
