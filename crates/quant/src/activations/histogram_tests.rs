use super::*;
use crate::testing::{Gaussian, activations, histogram_of};
use proptest::prelude::*;

/// Counts every value on its own, in `f64`.
fn recount(values: &[f32], width: f64) -> (Vec<u64>, Vec<u64>, u64) {
    let (mut negative, mut positive, mut zeros) = (vec![], vec![], 0);
    for x in values {
        let half = match *x {
            0.0 => {
                zeros += 1;
                continue;
            }
            x if x < 0.0 => &mut negative,
            _ => &mut positive,
        };
        let bin = (f64::from(x.abs()) / width).floor() as usize;
        if half.len() <= bin {
            half.resize(bin + 1, 0);
        }
        half[bin] += 1;
    }
    (negative, positive, zeros)
}

fn check(histogram: &Histogram, values: &[f32]) {
    let width = f64::from(histogram.bin_width());
    let (negative, positive, zeros) = recount(values, width);
    assert_eq!(histogram.negative(), negative);
    assert_eq!(histogram.positive(), positive);
    assert_eq!((histogram.zeros(), histogram.count()), (zeros, values.len() as u64));
    let least = values.iter().copied().reduce(f32::min).unwrap_or(0.0);
    let greatest = values.iter().copied().reduce(f32::max).unwrap_or(0.0);
    assert_eq!((histogram.min(), histogram.max()), (least, greatest));
    let bins = negative.len() + positive.len();
    assert!(bins <= BINS, "{bins}");
    let finer = |end: f32| bins_at(end, width / 2.0);
    let least_width = histogram.exponent() == LEAST_EXPONENT;
    assert!(least_width || finer(-least) + finer(greatest) > BINS, "bins are wider than needed");
}

fn bins_at(end: f32, width: f64) -> usize {
    if end > 0.0 { (f64::from(end) / width) as usize + 1 } else { 0 }
}

/// Any finite number, many of them zero or close to others.
fn numbers() -> impl Strategy<Value = f32> {
    let any = any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite());
    prop_oneof![any, -1f32..1.0, 100f32..101.0, Just(0.0), Just(-0.0), Just(f32::MAX), Just(f32::MIN), -1e-44f32..1e-44]
}

#[test]
fn counts_equal_a_recount_for_every_distribution() {
    for (name, values) in activations(20_000, 1) {
        println!("{name}");
        check(&histogram_of(&values), &values);
    }
}

#[test]
fn growing_on_either_side_merges_bins() {
    let mut histogram = Histogram::new();
    let mut all = vec![];
    for power in 0..200 {
        for sign in [1.0, -1.0] {
            let x = (sign * (f64::from(power) - 100.0 + f64::from(power % 7) / 7.0).exp2()) as f32;
            all.push(x);
            histogram.push(&[x]).unwrap();
            check(&histogram, &all);
        }
    }
}

#[test]
fn large_and_small_slices_are_counted_alike() {
    let mut gaussian = Gaussian::new(2);
    let values: Vec<f32> = (0..3 * MANY_VALUES + 5).map(|_| gaussian.sample().max(-0.5) as f32).collect();
    let whole = histogram_of(&values);
    for chunk in [1, 7, 100, MANY_VALUES - 1, MANY_VALUES, MANY_VALUES + 9] {
        let mut split = Histogram::new();
        values.chunks(chunk).for_each(|part| split.push(part).unwrap());
        split.end_sample();
        assert_eq!(split, whole, "{chunk}");
    }
}

#[test]
fn zeros_of_a_relu_stand_in_no_bin() {
    let values: Vec<f32> = (0..10_000).map(|i| if i % 2 == 0 { 0.0 } else { i as f32 }).collect();
    let histogram = histogram_of(&values);
    assert_eq!(histogram.zeros(), 5_000);
    assert_eq!(histogram.positive().iter().sum::<u64>(), 5_000);
    assert_eq!(histogram.positive()[0], 4); // Bins are eight wide: 1, 3, 5, 7.
    for (least, zero) in [(-1.0f32, 0.0f32), (-1.0, -0.0), (0.0, 0.0)] {
        let mut values = vec![zero; MANY_VALUES];
        values[17] = least;
        for part in [&values[..20], &values[..]] {
            check(&histogram_of(part), part);
        }
    }
}

#[test]
fn the_moving_average_weighs_a_new_sample_by_a_tenth() {
    let mut histogram = Histogram::new();
    assert_eq!(histogram.moving_average(), (0.0, 0.0));
    histogram.push(&[-1.0, 2.0]).unwrap();
    histogram.push(&[-2.0]).unwrap();
    assert_eq!(histogram.moving_average(), (-2.0, 2.0));
    histogram.end_sample();
    histogram.push(&[8.0, 12.0]).unwrap();
    assert_eq!(histogram.moving_average(), (-2.0, 2.0));
    histogram.end_sample();
    assert_eq!(histogram.moving_average(), (-1.0, 3.0));
    histogram.end_sample();
    assert_eq!((histogram.moving_average(), histogram.samples()), ((-1.0, 3.0), 3));
    histogram.push(&[f32::MAX, f32::MIN]).unwrap();
    histogram.end_sample();
    assert!(histogram.moving_average().1.is_finite());
}

#[test]
fn non_finite_values_are_refused_with_their_index_and_change_nothing() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for n in [3, 17, 5000] {
            let mut histogram = histogram_of(&[1.0, -3.0]);
            let before = histogram.clone();
            let mut values = vec![1e9; n];
            values[n - 2] = bad;
            values[n - 1] = f32::NAN;
            let error = histogram.push(&values).unwrap_err().to_string();
            assert!(error.contains("activations") && error.contains(&format!("[{}]", n - 2)), "{error}");
            assert_eq!(histogram, before);
        }
    }
}

#[test]
fn nothing_pushed_is_a_histogram_of_nothing() {
    let mut histogram = Histogram::new();
    histogram.push(&[]).unwrap();
    assert_eq!(histogram, Histogram::new());
    check(&histogram, &[]);
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let good = serde_json::to_value(histogram_of(&[-1.0, 0.0, 5.0])).unwrap();
    assert!(serde_json::from_value::<Histogram>(good.clone()).is_ok());
    let changes = [
        ("bin-width-exponent", serde_json::json!(3)),
        ("bin-width-exponent", serde_json::json!(-2_000_000_000)),
        ("zeros", serde_json::json!(2)),
        ("zeros", serde_json::json!(u64::MAX)),
        ("count", serde_json::json!(0)),
        ("negative", serde_json::json!([])),
        ("positive", serde_json::json!(vec![1; 5000])),
        ("range", serde_json::json!(null)),
        ("range", serde_json::json!([5.0, -1.0])),
        ("range", serde_json::json!([-1.0, 1e300])),
        ("moving-average", serde_json::json!([0.0, 1e39])),
        ("colour", serde_json::json!(1)),
    ];
    for (field, value) in changes {
        let mut bad = good.clone();
        bad[field] = value.clone();
        assert!(serde_json::from_value::<Histogram>(bad).is_err(), "{field} {value}");
    }
}

proptest! {
    #[test]
    fn any_order_and_any_split_give_the_same_counts(
        values in prop::collection::vec(numbers(), 0..60), chunk in 1usize..9, turn in 0usize..60,
    ) {
        check(&histogram_of(&values), &values);
        let mut turned = values.clone();
        turned.rotate_left(turn.min(values.len()));
        turned.reverse();
        let mut split = Histogram::new();
        turned.chunks(chunk).for_each(|part| split.push(part).unwrap());
        split.end_sample();
        prop_assert_eq!(split, histogram_of(&values));
    }

    #[test]
    fn a_histogram_survives_json(samples in prop::collection::vec(prop::collection::vec(numbers(), 0..20), 0..6)) {
        let mut histogram = Histogram::new();
        for (i, sample) in samples.iter().enumerate() {
            histogram.push(sample).unwrap();
            if i != 4 {
                histogram.end_sample();
            }
        }
        let text = serde_json::to_string(&histogram).unwrap();
        let back: Histogram = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), text);
        prop_assert_eq!(back, histogram);
    }
}
