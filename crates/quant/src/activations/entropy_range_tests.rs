use super::*;
use crate::testing::{activations, histogram_of};
use proptest::prelude::*;

/// The divergence from the definition, bin by bin.
fn naive_loss(bins: &Bins, run: Run, from: i64, to: i64) -> f64 {
    let inside = run.first..run.end;
    let mut p: Vec<f64> = inside.clone().map(|bin| bins.counts[bin] as f64).collect();
    let mut q = vec![0.0; p.len()];
    for cell in 0..CELLS as i64 {
        let edge = |cell: i64| from + (to - from) * cell / CELLS as i64;
        let cell: Vec<usize> = (edge(cell)..edge(cell + 1))
            .filter_map(|bin| usize::try_from(bin - run.first as i64).ok())
            .filter(|bin| p.get(*bin).is_some_and(|count| *count > 0.0))
            .collect();
        let mean = cell.iter().map(|bin| p[*bin]).sum::<f64>() / cell.len() as f64;
        cell.iter().for_each(|bin| q[*bin] = mean);
    }
    let first = p.iter().position(|count| *count > 0.0).unwrap();
    let last = p.iter().rposition(|count| *count > 0.0).unwrap();
    p[first] += bins.counts[..run.first].iter().sum::<u64>() as f64;
    p[last] += bins.counts[run.end..].iter().sum::<u64>() as f64;
    let (p_sum, q_sum): (f64, f64) = (p.iter().sum(), q.iter().sum());
    let terms = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
    terms.map(|(p, q)| p / p_sum * ((p / p_sum) / (q / q_sum)).ln()).sum()
}

#[test]
fn loss_equals_the_definition_and_is_not_negative() {
    for (name, values) in activations(3_000, 8) {
        let bins = Bins::new(&histogram_of(&values));
        let (zero, all) = (bins.zero, bins.counts.len());
        for (first, end) in
            [(0, all), (zero / 2, all), (zero / 3, zero + (all - zero) / 2), (0, zero + (all - zero) / 4)]
        {
            let run = Run { first, end };
            if bins.sums[first].filled == bins.sums[end].filled {
                continue;
            }
            let width = (zero - first).max(end - zero) as i64;
            for (from, to) in [(first as i64, end as i64), (zero as i64 - width, zero as i64 + width)] {
                let (found, wanted) = (bins.loss(run, from, to), naive_loss(&bins, run, from, to));
                assert!((found - wanted).abs() < 1e-9 && found > -1e-9, "{name} {first} {end}: {found} {wanted}");
            }
        }
    }
}

#[test]
fn far_values_are_clipped_and_an_even_spread_is_kept() {
    let mut values = activations(200_000, 9)[0].1.clone();
    values.extend([40.0, -35.0, 33.0]);
    for grid in [ActivationGrid::Unsigned, ActivationGrid::Signed] {
        let (lower, upper) = choose(&histogram_of(&values), grid);
        assert!(lower > -20.0 && upper < 20.0 && lower < -2.5 && upper > 2.5, "{grid:?} {lower} {upper}");
    }
    let even: Vec<f32> = (0..400_000).map(|i| (i % 1000) as f32 + 0.5).collect();
    let (lower, upper) = choose(&histogram_of(&even), ActivationGrid::Unsigned);
    assert!(lower == 0.0 && upper > 950.0, "{lower} {upper}");
}

#[test]
fn tensors_with_few_bins_keep_their_range() {
    let values: Vec<f32> = (-50i16..100).map(f32::from).collect();
    for grid in [ActivationGrid::Unsigned, ActivationGrid::Signed] {
        let (lower, upper) = choose(&histogram_of(&values), grid);
        assert_eq!((lower, upper), (-50.0, 99.0), "{grid:?}");
    }
}

proptest! {
    #[test]
    fn ends_are_in_order_whatever_the_values(
        values in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..50),
    ) {
        let values: Vec<f32> = values.into_iter().filter(|x| x.is_finite()).collect();
        let histogram = histogram_of(&values);
        for grid in [ActivationGrid::Unsigned, ActivationGrid::Signed] {
            let (lower, upper) = choose(&histogram, grid);
            prop_assert!(lower <= upper && lower >= histogram.min().min(0.0) && upper <= histogram.max().max(0.0));
        }
    }
}
