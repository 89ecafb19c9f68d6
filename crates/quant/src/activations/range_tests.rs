use super::*;
use crate::activations::density::{expected_square_error, signal_power};
use crate::activations::grid::ActivationParams;
use crate::testing::{activations, histogram_of};
use proptest::prelude::*;

const GRIDS: [ActivationGrid; 5] = [
    ActivationGrid::Unsigned,
    ActivationGrid::Signed,
    ActivationGrid::Shifted,
    ActivationGrid::Unsigned16,
    ActivationGrid::Signed16,
];
const METHODS: [RangeMethod; 7] = [
    RangeMethod::MinMax,
    RangeMethod::Stretched(1.5),
    RangeMethod::MovingAverage,
    RangeMethod::Percentile(99.99),
    RangeMethod::Percentile(50.0),
    RangeMethod::MeanSquaredError,
    RangeMethod::Entropy,
];

fn finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite())
}

fn true_error(values: &[f32], params: ActivationParams) -> f64 {
    let sum: f64 = values.iter().map(|x| (f64::from(*x) - f64::from(params.fake_quantize(*x))).powi(2)).sum();
    sum / values.len() as f64
}

/// The operator's definition, word by word.
fn onnx(x: f32, scale: f32, zero_point: i32, codes: std::ops::RangeInclusive<i32>) -> f32 {
    let code = ((x / scale).round_ties_even() as i64 + i64::from(zero_point))
        .clamp(i64::from(*codes.start()), i64::from(*codes.end()));
    (code - i64::from(zero_point)) as f32 * scale
}

#[test]
fn whole_reciprocals_stay_whole_in_single_precision() {
    for steps in 1..5000 {
        let wide = ActivationParams::new(1.0 / (steps as f32 + 0.7), 0, ActivationGrid::Unsigned).unwrap();
        let params = wide.with_whole_reciprocal();
        assert_eq!((1.0 / params.scale()).floor(), steps as f32);
        assert!(params.scale() >= wide.scale() && params.scale() <= 1.8 * wide.scale(), "{steps}");
        assert_eq!(params.with_whole_reciprocal(), params);
    }
    let coarse = ActivationParams::new(1.5, 0, ActivationGrid::Unsigned).unwrap();
    assert_eq!(coarse.with_whole_reciprocal(), coarse);
}

#[test]
fn names_parse_back_to_their_method() {
    for method in METHODS {
        assert_eq!(method.to_string().parse::<RangeMethod>().unwrap(), method);
        let json = serde_json::to_string(&method).unwrap();
        assert_eq!(json, format!("\"{method}\""));
        assert_eq!(serde_json::from_str::<RangeMethod>(&json).unwrap(), method);
    }
    assert_eq!("percentile".parse::<RangeMethod>().unwrap().to_string(), "percentile:99.99");
    for bad in [
        "max",
        "percentile:",
        "percentile:0",
        "percentile:100.1",
        "percentile:nan",
        "percentile:-5",
        "min-max:0.5",
        "min-max:17",
        "",
    ] {
        let error = bad.parse::<RangeMethod>().unwrap_err().to_string();
        assert!(error.contains(&format!("`{bad}`")) && error.contains("`mse`"), "{error}");
    }
}

#[test]
fn ranges_have_the_documented_parameters() {
    use ActivationGrid::{Signed, Unsigned};
    let cases = [
        ((0.0, 2.55, Unsigned), (2.55 / 255.0, 0, true)),
        ((-2.55, 0.0, Unsigned), (2.55 / 255.0, 255, false)),
        ((-1.0, 3.0, Unsigned), (4.0 / 255.0, 64, false)),
        ((1.0, 5.1, Unsigned), (5.1 / 255.0, 0, true)),
        ((-5.1, -1.0, Unsigned), (5.1 / 255.0, 255, false)),
        ((-1.0, 254.0, Unsigned), (1.0, 1, false)),
        ((-0.5, 254.5, Unsigned), (1.0, 0, true)),
        ((-1.0, 1.0, Signed), (1.0 / 127.0, 0, false)),
        ((-1.28, 1.0, Signed), (0.01, 0, false)),
        ((0.0, 0.0, Unsigned), (1.0, 0, true)),
        ((0.0, 0.0, Signed), (1.0, 0, false)),
        ((-0.0, 1e-45, Unsigned), (f32::MIN_POSITIVE, 0, true)),
        ((-1e-40, 0.0, Signed), (f32::MIN_POSITIVE, 0, false)),
        ((f32::NAN, f32::NAN, Unsigned), (1.0, 0, true)),
    ];
    for ((lower, upper, grid), wanted) in cases {
        let params = ActivationParams::from_range(lower, upper, grid);
        let found = (params.scale(), params.zero_point(), params.bottom_at_zero());
        assert_eq!(found, wanted, "{lower} {upper} {grid:?}");
    }
}

#[test]
fn the_largest_numbers_do_not_decode_to_infinity() {
    for grid in GRIDS {
        for (lower, upper) in
            [(0.0, f32::MAX), (f32::MIN, f32::MAX), (f32::MIN, 0.0), (f32::NEG_INFINITY, f32::INFINITY)]
        {
            let params = ActivationParams::from_range(lower, upper, grid);
            let (least, greatest) = params.range();
            assert!(
                params.scale().is_normal() && least.is_finite() && greatest.is_finite(),
                "{lower} {upper} {grid:?}"
            );
            assert!(params.fake_quantize(f32::MAX).is_finite() && params.fake_quantize(f32::MIN).is_finite());
        }
    }
}

#[test]
fn parameters_are_written_as_numbers() {
    let params = ActivationParams::from_range(-1.0, 254.0, ActivationGrid::Unsigned);
    let json = serde_json::to_value(params).unwrap();
    assert_eq!(json, serde_json::json!({"scale": 1.0, "zero_point": 1, "grid": "unsigned"}));
}

#[test]
fn expected_error_and_power_are_those_of_the_values() {
    for (name, values) in activations(50_000, 3) {
        let histogram = histogram_of(&values);
        let power = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((signal_power(&histogram) - power).abs() < 1e-3 * power, "{name}");
        for grid in GRIDS {
            for share in [1.0, 0.7, 0.3, 0.1] {
                let (lower, upper) = (share * histogram.min(), share * histogram.max());
                let params = ActivationParams::from_range(lower, upper, grid);
                let (found, wanted) = (expected_square_error(&histogram, params), true_error(&values, params));
                assert!((found - wanted).abs() < 0.02 * wanted, "{name} {grid:?} {share}: {found} {wanted}");
            }
        }
    }
}

#[test]
fn expected_error_is_exact_for_an_even_spread_with_one_bin_a_level() {
    // 64 values in each bin, at the centres of its 64 parts.
    let values: Vec<f32> = (0..255 * 8 * 64).map(|i| (i as f32 + 0.5) / 512.0).collect();
    let params = ActivationParams::from_range(0.0, 255.0, ActivationGrid::Unsigned);
    let found = expected_square_error(&histogram_of(&values), params);
    assert!((found - 1.0 / 12.0).abs() < 1e-5, "{found}");
}

#[test]
fn zeros_cost_nothing_and_count() {
    let values: Vec<f32> = activations(10_000, 4)[0].1.clone();
    let mut with_zeros = histogram_of(&values);
    with_zeros.push(&vec![0.0; 30_000]).unwrap();
    let params = ActivationParams::from_range(-3.0, 3.0, ActivationGrid::Unsigned);
    let (with, without) =
        (expected_square_error(&with_zeros, params), expected_square_error(&histogram_of(&values), params));
    assert!((4.0 * with - without).abs() < 1e-12 * without);
    for method in [RangeMethod::MeanSquaredError, RangeMethod::Entropy] {
        for grid in GRIDS {
            let ranges = [&with_zeros, &histogram_of(&values)].map(|histogram| choose_range(histogram, method, grid));
            assert_eq!(ranges[0], ranges[1], "{method}");
        }
    }
}

#[test]
fn percentiles_cut_the_tails_that_exist() {
    let ramp: Vec<f32> = (1..=100_000).map(|i| i as f32 / 1000.0).collect();
    let both: Vec<f32> = ramp.iter().flat_map(|x| [*x, -*x]).collect();
    let negated: Vec<f32> = ramp.iter().map(|x| -x).collect();
    let cases = [
        (&ramp, 99.0, (0.0, 99.0)),
        (&ramp, 50.0, (0.0, 50.0)),
        (&both, 99.0, (-99.0, 99.0)),
        (&negated, 90.0, (-90.0, 0.0)),
        (&both, 100.0, (-100.0, 100.0)),
        (&both, 1e9, (-100.0, 100.0)),
        (&ramp, 0.0, (0.0, 0.0)),
        (&ramp, -7.0, (0.0, 0.0)),
    ];
    for (values, percent, wanted) in cases {
        let found = choose_range(&histogram_of(values), RangeMethod::Percentile(percent), ActivationGrid::Unsigned);
        let near = |a: f32, b: f32| (a - b).abs() < 0.01;
        assert!(near(found.0, wanted.0) && near(found.1, wanted.1), "{percent}: {found:?} {wanted:?}");
    }
}

#[test]
fn min_max_and_moving_average_are_what_the_histogram_says_and_contain_zero() {
    let mut histogram = histogram_of(&[2.0, 4.0]);
    histogram.push(&[3.0, 14.0]).unwrap();
    histogram.end_sample();
    for grid in GRIDS {
        assert_eq!(choose_range(&histogram, RangeMethod::MinMax, grid), (0.0, 14.0));
        assert_eq!(choose_range(&histogram, RangeMethod::MovingAverage, grid), (0.0, 5.0));
    }
}

#[test]
fn every_method_survives_degenerate_tensors() {
    let tensors: [&[f32]; 10] = [
        &[],
        &[0.0],
        &[0.0, -0.0, 0.0],
        &[7.5; 20],
        &[-7.5],
        &[1e-45, -1e-45],
        &[f32::MAX, f32::MIN],
        &[f32::MAX],
        &[f32::MIN, 1e-45],
        &[-1e-30, 1e30],
    ];
    for values in tensors {
        let histogram = histogram_of(values);
        for grid in GRIDS {
            for method in METHODS.into_iter().chain([RangeMethod::Percentile(f64::NAN)]) {
                let (lower, upper) = choose_range(&histogram, method, grid);
                let params = ActivationParams::from_range(lower, upper, grid);
                let what = format!("{values:?} {method} {grid:?}: {lower} {upper} {params:?}");
                assert!(lower <= 0.0 && upper >= 0.0 && lower.is_finite() && upper.is_finite(), "{what}");
                assert!(params.scale().is_normal() && params.fake_quantize(0.0) == 0.0, "{what}");
                let error = expected_square_error(&histogram, params);
                assert!(error.is_finite() && error >= 0.0, "{what} {error}");
            }
        }
    }
}

proptest! {
    #[test]
    fn zero_is_a_level_and_errors_inside_are_half_a_step(a in finite(), b in finite(), share in 0f32..=1.0) {
        let (lower, upper) = (a.min(b).min(0.0), a.max(b).max(0.0));
        // A wider range is narrowed, for no code may decode to infinity.
        prop_assume!((upper - lower).is_finite());
        for grid in GRIDS {
            let params = ActivationParams::from_range(lower, upper, grid);
            prop_assert!(params.scale().is_normal() && params.scale() > 0.0);
            prop_assert!((grid.min_code()..=grid.max_code()).contains(&params.zero_point()));
            prop_assert_eq!(params.fake_quantize(0.0), 0.0);
            // So is one that is finite, if what the grid makes of it, of both signs or of whole codes, is not.
            let ends = [grid.min_code(), grid.max_code()].map(|code| f64::from(code - params.zero_point()));
            let most = ends.map(f64::abs).into_iter().fold(0.0, f64::max) * f64::from(params.scale());
            if most > f64::from(f32::MAX) * (1.0 - 1e-6) {
                continue;
            }
            for x in [lower, upper, lower * share, upper * share] {
                let error = (f64::from(params.fake_quantize(x)) - f64::from(x)).abs();
                // Quotients of many steps are rounded in f32.
                let steps = 0.5 + 4e-7 * f64::from(grid.max_code() - grid.min_code());
                prop_assert!(error <= steps * f64::from(params.scale()), "{x} {lower} {upper} {params:?}");
            }
        }
    }

    #[test]
    fn fake_quantize_is_the_onnx_operator(lower in -100f32..0.0, upper in 0f32..100.0, x in -300f32..300.0, half in -300i16..300) {
        for grid in GRIDS {
            let codes = grid.min_code()..=grid.max_code();
            let params = ActivationParams::from_range(lower, upper, grid);
            for x in [x, params.scale() * f32::from(half) / 2.0, lower, upper] {
                let wanted = onnx(x, params.scale(), params.zero_point(), codes.clone());
                prop_assert_eq!(params.fake_quantize(x), wanted, "{} {:?}", x, params);
            }
        }
    }

    #[test]
    fn chosen_ranges_stay_inside_what_was_seen(values in prop::collection::vec(finite(), 1..40)) {
        let histogram = histogram_of(&values);
        let (least, greatest) = (histogram.min().min(0.0), histogram.max().max(0.0));
        for grid in GRIDS {
            for method in METHODS {
                let (lower, upper) = choose_range(&histogram, method, grid);
                prop_assert!(lower <= 0.0 && upper >= 0.0);
                if !matches!(method, RangeMethod::MeanSquaredError | RangeMethod::Stretched(_)) {
                    prop_assert!(least <= lower && upper <= greatest, "{method} {lower} {upper}");
                }
            }
        }
    }
}

#[test]
fn stretched_ranges_reach_beyond_what_was_seen() {
    let histogram = histogram_of(&[-1.0, 0.5, 4.0]);
    for grid in GRIDS {
        assert_eq!(choose_range(&histogram, RangeMethod::Stretched(1.5), grid), (-1.5, 6.0));
        assert_eq!(choose_range(&histogram, RangeMethod::Stretched(f64::NAN), grid), (-1.0, 4.0));
    }
}

#[test]
fn scales_become_the_next_power_of_two_and_keep_zero() {
    for grid in GRIDS {
        for (lower, upper) in [(0.0, 6.0), (-1.0, 3.0), (-5.0, 0.0), (0.0, 255.0), (-0.0, 1e-45), (f32::MIN, f32::MAX)]
        {
            let plain = ActivationParams::from_range(lower, upper, grid);
            let params = plain.with_power_of_two();
            let ratio = f64::from(params.scale()) / f64::from(plain.scale());
            assert_eq!(params.scale().log2().fract(), 0.0, "{params:?}");
            let widest = plain.scale() * 65536.0 == f32::INFINITY || plain.scale() > 1e30;
            assert!((1.0..2.0).contains(&ratio) || widest, "{plain:?} {params:?}");
            assert_eq!(params.fake_quantize(0.0), 0.0);
            assert_eq!(plain.bottom_at_zero(), params.bottom_at_zero(), "{plain:?} {params:?}");
            assert_eq!(params.with_power_of_two(), params);
        }
    }
}

#[test]
fn parameters_that_mean_nothing_are_refused() {
    use ActivationGrid::{Shifted, Signed, Unsigned, Unsigned16};
    let bad =
        [(0.0, 0, Unsigned), (f32::NAN, 0, Unsigned), (1e-45, 0, Unsigned), (1.0, -1, Unsigned), (1.0, 5, Signed)];
    for (scale, zero_point, grid) in bad {
        assert!(ActivationParams::new(scale, zero_point, grid).is_err(), "{scale} {zero_point} {grid:?}");
    }
    for (zero_point, grid) in [(0, Signed), (-128, Shifted), (255, Unsigned), (65535, Unsigned16)] {
        assert_eq!(ActivationParams::new(0.5, zero_point, grid).unwrap().zero_point(), zero_point);
    }
}
