use ndarray::{Array2, Axis};

use super::*;
use crate::activations::migration::ChannelAxis;
use crate::layer::geometry::{ConvGeometry, Padding};
use crate::testing::gaussian_rows;

fn ranges(rows: &Array2<f32>) -> ChannelRanges {
    let mut ranges = ChannelRanges::default();
    rows.axis_chunks_iter(Axis(0), 10).for_each(|sample| ranges.push(&sample.to_owned().into_dyn(), ChannelAxis::Last));
    ranges
}

fn uneven(seed: u64) -> Array2<f32> {
    let mut rows = gaussian_rows(200, 12, seed);
    for (k, mut column) in rows.columns_mut().into_iter().enumerate() {
        column.mapv_inplace(|x| x.max(0.0) * 2f32.powi(k as i32 % 5));
    }
    rows
}

fn depthwise(channels: usize) -> MatrixView {
    MatrixView::Conv(ConvGeometry {
        in_channels: channels,
        out_channels: channels,
        groups: channels,
        kernel: vec![3, 3],
        strides: vec![1, 1],
        dilations: vec![1, 1],
        padding: Padding::SameUpper,
    })
}

#[test]
fn channels_of_a_depthwise_layer_become_more_even() {
    let (rows, view) = (uneven(1), depthwise(12));
    let weights: Vec<f32> = gaussian_rows(12, 9, 2).into_iter().collect();
    let found = equalization_factors(&ranges(&rows), &[(&view, &weights)]).unwrap();
    let plain = ranges(&rows).magnitudes();
    let scaled: Vec<f64> = plain.iter().zip(&found.factors).map(|(range, d)| range / f64::from(*d)).collect();
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    // By how much each channel grew beside the largest.
    let gains = plain.iter().zip(&scaled).map(|(before, after)| after / largest(&scaled) * largest(&plain) / before);
    for (gain, before) in gains.zip(&plain) {
        let expected = (HEADROOM * before).max(largest(&plain) / MOST_GAIN).min(largest(&plain));
        assert!((gain * expected / largest(&plain) - 1.0).abs() < 0.01, "{gain} of {before}");
    }
    assert!(found.error_left < 0.8, "{}", found.error_left);
}

#[test]
fn expected_error_of_a_dense_layer_falls_as_predicted() {
    let (rows, weights) = (uneven(3), gaussian_rows(12, 8, 4));
    let view = MatrixView::Dense { inputs: 12, outputs: 8, transposed: false };
    let flat: Vec<f32> = weights.iter().copied().collect();
    let found = equalization_factors(&ranges(&rows), &[(&view, &flat)]).unwrap();
    let ratio = measured(&rows, &weights, &found.factors) / measured(&rows, &weights, &[1.0; 12]);
    assert!((ratio / found.error_left - 1.0).abs() < 0.35, "{ratio} measured, {} expected", found.error_left);
    let turned: Vec<f32> = weights.t().iter().copied().collect();
    let view = MatrixView::Dense { inputs: 12, outputs: 8, transposed: true };
    assert_eq!(equalization_factors(&ranges(&rows), &[(&view, &turned)]).unwrap(), found);
}

/// Squared error of `x W` with 8-bit codes for x (one scale) and W (a scale an output).
fn measured(rows: &Array2<f32>, weights: &Array2<f32>, factors: &[f32]) -> f64 {
    let round = |x: f32, step: f32| (x / step).round() * step;
    let mut scaled = Array2::from_shape_fn(weights.dim(), |(k, m)| weights[[k, m]] * factors[k]);
    for mut column in scaled.columns_mut() {
        let step = column.iter().fold(0.0f32, |largest, w| largest.max(w.abs())) / 127.0;
        column.mapv_inplace(|w| round(w, step));
    }
    let x = Array2::from_shape_fn(rows.dim(), |(i, k)| rows[[i, k]] / factors[k]);
    let step = x.iter().fold(0.0f32, |largest, x| largest.max(*x)) / 255.0;
    let error = x.mapv(|x| round(x, step)).dot(&scaled) - rows.dot(weights);
    error.iter().map(|e| f64::from(*e).powi(2)).sum()
}

#[test]
fn even_dead_and_unknown_channels_are_left_alone() {
    let weights: Vec<f32> = gaussian_rows(12, 9, 6).into_iter().collect();
    let view = depthwise(12);
    let even = gaussian_rows(100, 12, 5).mapv(|x| x.clamp(-1.0, 1.0));
    assert_eq!(equalization_factors(&ranges(&even), &[(&view, &weights)]), None);
    assert_eq!(equalization_factors(&ranges(&Array2::zeros((20, 12))), &[(&view, &weights)]), None);
    assert_eq!(equalization_factors(&ChannelRanges::default(), &[(&view, &weights)]), None);
    assert_eq!(equalization_factors(&ranges(&even), &[]), None);
}

#[test]
fn channels_that_were_hardly_seen_keep_room() {
    let seen = [8.0, 2.5, 1.5, 0.5, 0.0];
    assert_eq!(with_headroom(&seen), [8.0, 8.0, 6.0, 4.0, 4.0]);
    assert_eq!(with_headroom(&[0.0, 0.0]), [0.0, 0.0]);
}
