use super::*;
use crate::choose::solve::solve;
use crate::layer::alphabet::Alphabet;
use crate::layer::grid::Grid;
use crate::layer::method::{Method, Saturation};
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::testing::{correlated_rows, gaussian_rows, gaussian_weights, paired_stats, stats as stats_of_rows};
use ndarray::Array2;
use proptest::prelude::*;

const WALKS: [Method; 3] = [
    Method::MalySaab { saturation: Saturation::Max },
    Method::MalySaab { saturation: Saturation::Min },
    Method::CellWalk,
];

fn spec(grid: Grid, granularity: Granularity) -> QuantSpec {
    QuantSpec::new(grid, granularity, ScaleRule::Max).unwrap()
}

fn stats(n: usize, k: usize, groups: u64) -> Vec<GramStats> {
    let rows = |seed| GramStats::from_rows(gaussian_rows(n, k, seed).view()).unwrap();
    (0..groups).map(rows).collect()
}

fn any_grid() -> impl Strategy<Value = Grid> {
    let integers = (1u32..=8, 0usize..4).prop_map(|(bits, kind)| {
        let make = [Grid::symmetric, Grid::full_range, Grid::asymmetric, Grid::mid_rise];
        // One asymmetric bit has no room for weights of both signs.
        make[kind](if kind == 0 { bits } else { bits.max(2) }).unwrap()
    });
    prop_oneof![4 => integers, 1 => Just(Grid::e4m3())]
}

fn any_granularity() -> impl Strategy<Value = Granularity> {
    prop_oneof![Just(Granularity::Tensor), Just(Granularity::Channel), (1usize..40).prop_map(Granularity::Block),]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_walk_is_certified_within_its_bound(
        grid in any_grid(), granularity in any_granularity(), n in 1usize..20, seed in 0u64..99,
    ) {
        let weights = gaussian_weights(2, 30, 3, seed);
        let stats = stats(n, 30, 2);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec(grid, granularity)).unwrap();
        for method in WALKS {
            let solution = solve(method, &problem).unwrap();
            let certificate = certify(&problem, &solution).unwrap().certificate;
            prop_assert!(certificate.bound.is_some(), "{method} {certificate:?}");
            prop_assert!(certificate.achieved <= certificate.bound, "{method} {certificate:?}");
            prop_assert!(certificate.max_unsaturated.unwrap() <= n);
            let preserved = certificate.hypotheses[0];
            prop_assert!(preserved.value <= 1e-7, "{method} {preserved:?}");
        }
    }
}

#[test]
fn error_feedback_keeps_what_the_nearest_plane_promises() {
    let seen = correlated_rows(300, 40, 1) + 0.3;
    let reference = &seen + &(gaussian_rows(300, 40, 2) * 0.05);
    let weights = gaussian_weights(1, 40, 12, 3);
    for (stats, drift) in [(stats_of_rows(&seen), false), (paired_stats(&seen, &reference), true)] {
        for method in [Method::Optq, Method::Feedback] {
            for bits in [8, 4] {
                let what = format!("{method} {bits} {drift}");
                let spec = spec(Grid::symmetric(bits).unwrap(), Granularity::Block(8));
                let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
                let solution = solve(method, &problem).unwrap();
                let certificate = certify(&problem, &solution).unwrap().certificate;
                let [hypothesis] = certificate.hypotheses[..] else { panic!("{what}: {certificate:?}") };
                assert_eq!(hypothesis.holds, certificate.bound.is_some(), "{what}");
                assert!(bits == 4 || hypothesis.holds, "{what}: {certificate:?}");
                if let Some(bound) = certificate.bound {
                    let achieved = certificate.achieved.unwrap();
                    assert!(achieved <= bound && bound < 30.0 * achieved, "{what}: {achieved} {bound}");
                }
                if bits == 8 {
                    let (attainable, dimension) = (certificate.attainable.unwrap(), certificate.effective_dimension);
                    assert!(certificate.achieved.unwrap() <= attainable && attainable < 1.0, "{what}: {attainable}");
                    assert!(dimension.is_some_and(|d| 1.0 < d && d < 40.0), "{what}: {dimension:?}");
                }
            }
        }
    }
}

/// A layer whose inputs differ between the two networks.
#[derive(Debug)]
struct Drifting {
    rows: usize,
    samples: usize,
    /// Of the means of what is seen, of the noise in it, and of the means of what is not.
    sizes: [f64; 3],
    /// An input hardly moves: less than sums in single precision tell.
    still: bool,
    bits: u32,
    fixed_bias: bool,
    seed: u64,
}

fn any_drifting() -> impl Strategy<Value = Drifting> {
    let sizes = [10.0, 5.0, 3.0].map(|most| prop_oneof![Just(0.0), 0.0..most]);
    (6usize..60, 1usize..20, sizes, any::<bool>(), 2u32..=8, any::<bool>(), 0u64..999).prop_map(
        |(rows, samples, sizes, still, bits, fixed_bias, seed)| Drifting {
            rows,
            samples: samples.min(rows),
            sizes,
            still,
            bits,
            fixed_bias,
            seed,
        },
    )
}

impl Drifting {
    const INPUTS: usize = 12;

    fn stats(&self) -> Vec<GramStats> {
        let group = |seed: u64| {
            let offset = |seed, size: f64| gaussian_rows(1, Self::INPUTS, seed) * size as f32;
            let [mean, noise, shift] = self.sizes;
            let reference = correlated_rows(self.rows, Self::INPUTS, seed) + &offset(seed + 3, shift);
            let noise = gaussian_rows(self.rows, Self::INPUTS, seed + 2) * noise as f32;
            let mut seen = &reference + &(noise + &offset(seed + 1, mean));
            seen.column_mut(3).fill(1.5);
            if self.still {
                seen.column_mut(7).mapv_inplace(|x| 500.0 + 0.1 * x);
            }
            let [stats] = paired_stats(&seen, &reference);
            stats.with_samples(self.samples)
        };
        vec![group(4 * self.seed), group(4 * self.seed + 4000)]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bound_is_passed_whatever_the_drift(case in any_drifting()) {
        let weights = gaussian_weights(2, Drifting::INPUTS, 3, case.seed);
        let stats = case.stats();
        let spec = spec(Grid::symmetric(case.bits).unwrap(), Granularity::Channel);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        let problem = if case.fixed_bias { problem.with_fixed_bias() } else { problem };
        for method in [Method::Optq, Method::Feedback, Method::Saturate].into_iter().chain(WALKS) {
            let solution = solve(method, &problem).unwrap();
            let certificate = certify(&problem, &solution).unwrap().certificate;
            let (achieved, bound) = (certificate.achieved.unwrap(), certificate.bound);
            // Moments of the drift are kept in single precision.
            let holds = bound.is_none_or(|bound| achieved <= bound * (1.0 + 1e-5) + 1e-6);
            prop_assert!(holds, "{method}: {achieved} against {bound:?}, {certificate:?}");
        }
    }
}

#[test]
fn a_broken_promise_is_no_bound() {
    let rows = gaussian_rows(60, 8, 1);
    let weights = gaussian_weights(1, 8, 3, 2);
    let stats = stats_of_rows(&rows);
    let spec = spec(Grid::symmetric(8).unwrap(), Granularity::Channel);
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let mut solution = solve(Method::Optq, &problem).unwrap();
    solution.promise.as_mut().unwrap().broken = 1;
    let certificate = certify(&problem, &solution).unwrap().certificate;
    assert_eq!((certificate.bound, certificate.hypotheses[0].holds), (None, false));
}

#[test]
fn achieved_error_is_that_of_the_rows() {
    let weights = gaussian_weights(1, 40, 5, 1);
    for n in [7, 900] {
        let rows = gaussian_rows(n, 40, 2);
        let stats = [GramStats::from_rows(rows.view()).unwrap()];
        let spec = spec(Grid::symmetric(3).unwrap(), Granularity::Channel);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap().with_fixed_bias();
        let solution = solve(Method::Msq, &problem).unwrap();
        let x = rows.mapv(f64::from);
        let w = weights.index_axis(Axis(0), 0).mapv(f64::from);
        let q = solution.dequantize().index_axis(Axis(0), 0).mapv(f64::from);
        let norm = |m: Array2<f64>| m.iter().map(|v| v * v).sum::<f64>().sqrt();
        let wanted = norm(x.dot(&(&w - &q))) / norm(x.dot(&w));
        let certificate = certify(&problem, &solution).unwrap().certificate;
        assert!((certificate.achieved.unwrap() - wanted).abs() < 1e-5 * wanted);
        assert_eq!((certificate.bound, certificate.n_rows), (None, Some(n)));
    }
}

#[test]
fn with_drift_both_networks_are_compared_and_the_bound_holds() {
    let weights = gaussian_weights(1, 40, 5, 1);
    let seen = gaussian_rows(7, 40, 2);
    let reference = &seen + &(gaussian_rows(7, 40, 3) * 0.05);
    let stats = paired_stats(&seen, &reference);
    let spec = spec(Grid::symmetric(3).unwrap(), Granularity::Channel);
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap().with_fixed_bias();
    for method in WALKS {
        let solution = solve(method, &problem).unwrap();
        let certificate = certify(&problem, &solution).unwrap().certificate;
        let group = |w: &Array3<f32>| w.index_axis(Axis(0), 0).mapv(f64::from);
        let whole = reference.mapv(f64::from).dot(&group(&weights));
        let left = &whole - &seen.mapv(f64::from).dot(&group(&solution.dequantize()));
        let norm = |m: &Array2<f64>| m.iter().map(|v| v * v).sum::<f64>().sqrt();
        let (wanted, found) = (norm(&left) / norm(&whole), certificate.achieved.unwrap());
        assert!((found - wanted).abs() < 1e-5 * wanted, "{method}: {found} {wanted}");
        assert!(certificate.bound.unwrap() >= found, "{certificate:?}");
    }
}

fn solved() -> (Array3<f32>, Vec<GramStats>, QuantSpec) {
    let spec = spec(Grid::symmetric(2).unwrap(), Granularity::Channel);
    (gaussian_weights(1, 24, 4, 3), stats(6, 24, 1), spec)
}

fn failed(certificate: &Certificate) -> Vec<HypothesisKind> {
    let failed = certificate.hypotheses.iter().filter(|hypothesis| !hypothesis.holds);
    failed.map(|hypothesis| hypothesis.kind).collect()
}

#[test]
fn the_bound_is_not_claimed_when_a_hypothesis_fails() {
    let (weights, stats, spec) = solved();
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let good = solve(WALKS[0], &problem).unwrap();
    let spoilt = |spoil: &dyn Fn(&mut LayerSolution)| {
        let mut solution = good.clone();
        spoil(&mut solution);
        let certificate = certify(&problem, &solution).unwrap().certificate;
        assert_eq!(certificate.bound, None);
        failed(&certificate)
    };
    let claim = |solution: &mut LayerSolution, change: f64| {
        if let Some(claim) = &mut solution.preprocessed {
            claim[[0, 3, 1]] += change;
        }
    };
    assert!(spoilt(&|s| claim(s, 0.1)).contains(&HypothesisKind::OutputPreserved));
    assert!(spoilt(&|s| claim(s, 50.0)).contains(&HypothesisKind::InsideGrid));
    let moved = spoilt(&|s| s.codes[[0, 3, 1]] = if s.codes[[0, 3, 1]] > 0 { -1 } else { 1 });
    assert!(moved.contains(&HypothesisKind::NearestLevel));
    let rounded = solve(Method::Msq, &problem).unwrap().codes;
    let honest = spoilt(&|s| {
        s.codes = rounded.clone();
        s.preprocessed = Some(weights.mapv(f64::from));
    });
    assert_eq!(honest, [HypothesisKind::FewUnsaturated]);
}

#[test]
fn clipped_weights_of_a_cell_walk_void_its_bound() {
    let (mut weights, stats, spec) = solved();
    weights[[0, 0, 0]] = 30.0;
    let spec = spec.with_scale_rule(ScaleRule::LeastSquares);
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let solution = solve(Method::CellWalk, &problem).unwrap();
    let clipped = |note: &crate::Note| matches!(note, crate::Note::Clipped { .. });
    assert!(solution.notes.iter().any(clipped), "{:?}", solution.notes);
    let certificate = certify(&problem, &solution).unwrap().certificate;
    assert_eq!(certificate.bound, None);
    assert!(failed(&certificate).contains(&HypothesisKind::OutputPreserved));
}

#[test]
fn broken_solutions_are_rejected() {
    let (weights, stats, spec) = solved();
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let good = solve(WALKS[0], &problem).unwrap();
    let spoils: [&dyn Fn(&mut LayerSolution); 7] = [
        &|s| s.codes[[0, 0, 0]] = 2,
        &|s| s.scales[[0, 0, 2]] = 0.0,
        &|s| s.scales[[0, 0, 2]] = f32::NAN,
        &|s| s.zero_points[[0, 0, 0]] = 9,
        &|s| s.codes = Array3::zeros((1, 24, 3)),
        &|s| s.block_size = 0,
        &|s| s.alphabet = Alphabet::E4m3,
    ];
    for (index, spoil) in spoils.iter().enumerate() {
        let mut solution = good.clone();
        spoil(&mut solution);
        assert!(certify(&problem, &solution).is_err(), "case {index}");
    }
    assert!(certify(&problem, &good).is_ok());
}

#[test]
fn certificates_serialize() {
    let (weights, stats, spec) = solved();
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let certificate = certify(&problem, &solve(WALKS[2], &problem).unwrap()).unwrap().certificate;
    let text = serde_json::to_string(&certificate).unwrap();
    assert!(text.contains("\"output-preserved\"") && text.contains("\"achieved\""), "{text}");
}
