use super::*;
use crate::layer::geometry::Extent;
use crate::layer::geometry::Padding;
use ndarray::{Array2, Array3, ArrayD};
use proptest::prelude::*;

fn ramp(shape: &[usize]) -> ArrayD<f32> {
    let mut state = 1u32;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 16) as f32 / 32768.0 - 1.0
    })
}

fn rows_of(view: &MatrixView, input: &ArrayD<f32>, group: usize, chunk: usize) -> Array2<f32> {
    let mut all = Array2::zeros((0, view.inputs()));
    view.for_each_rows(input.view(), group, Chunks::all(chunk), &mut |rows| {
        assert!(rows.nrows() <= chunk);
        all.append(Axis(0), rows).unwrap();
    })
    .unwrap();
    all
}

/// Direct convolution by the definition, for an input padded beforehand.
fn naive(conv: &ConvGeometry, input: &ArrayD<f32>, weight: &ArrayD<f32>) -> ArrayD<f32> {
    let rank = conv.kernel.len();
    let extents: Vec<Extent> = (0..rank).map(|d| conv.extent(d, input.shape()[d + 2]).unwrap()).collect();
    let mut shape = vec![input.shape()[0], conv.out_channels];
    shape.extend(extents.iter().map(|extent| extent.output));
    ArrayD::from_shape_fn(IxDyn(&shape), |at| {
        let group = at[1] / (conv.out_channels / conv.groups);
        let mut sum = 0.0;
        for (tap, w) in weight.index_axis(Axis(0), at[1]).indexed_iter() {
            let mut source = vec![at[0], group * conv.group_channels() + tap[0]];
            let mut outside = false;
            for d in 0..rank {
                let index = (at[d + 2] * conv.strides[d] + tap[d + 1] * conv.dilations[d]) as isize
                    - extents[d].before as isize;
                outside |= index < 0 || index >= input.shape()[d + 2] as isize;
                source.push(index.max(0) as usize);
            }
            if !outside {
                sum += w * input[IxDyn(&source)];
            }
        }
        sum
    })
}

fn unfolded(view: &MatrixView, input: &ArrayD<f32>, weight: &ArrayD<f32>) -> Vec<Array2<f32>> {
    let matrix = view.to_matrix(weight.view()).unwrap();
    (0..view.groups()).map(|g| rows_of(view, input, g, 7).dot(&matrix.index_axis(Axis(0), g))).collect()
}

fn geometry() -> impl Strategy<Value = (ConvGeometry, Vec<usize>)> {
    (1usize..=3).prop_flat_map(|rank| {
        let list = |range: std::ops::RangeInclusive<usize>| prop::collection::vec(range, rank);
        (
            (1usize..=2, 1usize..=2, 1usize..=2, 1usize..=2),
            (list(1..=3), list(1..=3), list(1..=2), list(0..=2), list(0..=2)),
            (list(5..=8), 0usize..4),
        )
            .prop_map(|((groups, out, channels, batch), lists, (size, auto))| {
                let (kernel, strides, dilations, begin, end) = lists;
                let padding = match auto {
                    0 => Padding::Explicit { begin, end },
                    1 => Padding::SameUpper,
                    2 => Padding::SameLower,
                    _ => Padding::Valid,
                };
                let conv = ConvGeometry {
                    groups,
                    out_channels: groups * out,
                    in_channels: groups * channels,
                    kernel,
                    strides,
                    dilations,
                    padding,
                };
                let mut shape = vec![batch, groups * channels];
                shape.extend(size);
                (conv, shape)
            })
    })
}

proptest! {
    #[test]
    fn unfold_and_multiply_equals_direct_convolution((conv, shape) in geometry()) {
        let view = MatrixView::Conv(conv.clone());
        let (input, weight) = (ramp(&shape), ramp(&view.weight_shape()));
        let direct = naive(&conv, &input, &weight);
        let positions = direct.len() / conv.out_channels;
        for (g, result) in unfolded(&view, &input, &weight).iter().enumerate() {
            prop_assert_eq!(result.nrows(), positions);
            let m = view.outputs();
            let batch = shape[0];
            let direct = direct.to_shape((batch, conv.out_channels, positions / batch)).unwrap();
            for ((row, column), value) in result.indexed_iter() {
                let (n, p) = (row / (positions / batch), row % (positions / batch));
                let wanted = direct[[n, g * m + column, p]];
                prop_assert!((value - wanted).abs() < 1e-4, "{value} {wanted}");
            }
        }
    }

    #[test]
    fn weights_survive_the_way_to_a_matrix_and_back((conv, _) in geometry(), transposed: bool) {
        let dense = MatrixView::Dense { inputs: 5, outputs: 3, transposed };
        for view in [MatrixView::Conv(conv), dense] {
            let weight = ramp(&view.weight_shape());
            let codes = weight.mapv(|w| (w * 100.0) as i16);
            let matrix = view.to_matrix(weight.view()).unwrap();
            prop_assert_eq!(view.from_matrix(matrix.view()).unwrap(), weight);
            let matrix = view.to_matrix(codes.view()).unwrap();
            prop_assert_eq!(view.from_matrix(matrix.view()).unwrap(), codes);
        }
    }

    #[test]
    fn chunking_does_not_change_the_rows((conv, shape) in geometry(), chunk in 1usize..40) {
        let view = MatrixView::Conv(conv);
        let input = ramp(&shape);
        prop_assert_eq!(rows_of(&view, &input, 0, chunk), rows_of(&view, &input, 0, 1000));
    }
}

#[test]
fn dilations_beyond_the_input_read_padding() {
    let far = 3_000_000;
    let conv = ConvGeometry {
        groups: 2,
        out_channels: 2,
        in_channels: 4,
        kernel: vec![3, 3],
        strides: vec![1, 2],
        dilations: vec![far, 1],
        padding: Padding::Explicit { begin: vec![far, 1], end: vec![far, 0] },
    };
    let (input, weight) = (ramp(&[2, 4, 5, 6]), ramp(&[2, 2, 3, 3]));
    let direct = naive(&conv, &input, &weight);
    for (g, result) in unfolded(&MatrixView::Conv(conv), &input, &weight).iter().enumerate() {
        let wanted = direct.index_axis(Axis(1), g);
        assert!(result.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn dense_input_of_any_rank_becomes_rows() {
    let view = MatrixView::Dense { inputs: 4, outputs: 2, transposed: false };
    for shape in [vec![4], vec![3, 4], vec![2, 3, 4]] {
        let input = ramp(&shape);
        let rows = rows_of(&view, &input, 0, 2);
        let flat: Vec<f32> = input.iter().copied().collect();
        assert_eq!(rows.iter().copied().collect::<Vec<_>>(), flat);
    }
    let weight = ramp(&[4, 2]);
    let matrix = view.to_matrix(weight.view()).unwrap();
    assert_eq!(matrix.index_axis(Axis(0), 0).into_dyn(), weight);
}

#[test]
fn wrong_shapes_are_errors_and_nothing_panics() {
    let dense = MatrixView::Dense { inputs: 4, outputs: 2, transposed: true };
    let conv = |kernel: Vec<usize>, groups, padding| {
        MatrixView::Conv(ConvGeometry {
            groups,
            out_channels: 4,
            in_channels: 4,
            strides: vec![1, 1],
            dilations: vec![1, 1],
            kernel,
            padding,
        })
    };
    let cases = [
        (dense, vec![3, 5]),
        (conv(vec![3, 3], 1, Padding::Valid), vec![1, 4, 2, 2]),
        (conv(vec![3, 3], 1, Padding::Valid), vec![1, 3, 5, 5]),
        (conv(vec![3, 3], 1, Padding::Valid), vec![4, 5, 5]),
        (conv(vec![3], 1, Padding::Valid), vec![1, 4, 5]),
        (conv(vec![0, 3], 1, Padding::SameUpper), vec![1, 4, 5, 5]),
        (conv(vec![3, 3], 3, Padding::SameUpper), vec![1, 4, 5, 5]),
        (conv(vec![3, 3], 0, Padding::SameUpper), vec![1, 4, 5, 5]),
    ];
    for (view, shape) in cases {
        let result = view.for_each_rows(ramp(&shape).view(), 0, Chunks::all(8), &mut |_| ());
        assert!(result.is_err(), "{view:?} {shape:?}");
        assert!(view.to_matrix(ramp(&[1, 1, 1]).view()).is_err());
        assert!(view.from_matrix(Array3::<i16>::zeros((9, 9, 9)).view()).is_err());
    }
}

#[test]
fn chunks_that_are_taken_are_spread_and_complete_each_other() {
    let conv = |kernel: Vec<usize>| {
        MatrixView::Conv(ConvGeometry {
            groups: 1,
            out_channels: 1,
            in_channels: 2,
            strides: vec![1, 1],
            dilations: vec![1, 1],
            kernel,
            padding: Padding::SameUpper,
        })
    };
    let dense = MatrixView::Dense { inputs: 7, outputs: 1, transposed: false };
    for (view, shape) in [(conv(vec![1, 1]), [3, 2, 6, 7]), (conv(vec![3, 3]), [3, 2, 6, 7]), (dense, [3, 2, 6, 7])] {
        let input = ramp(&shape);
        let all = rows_of(&view, &input, 0, 1);
        assert_eq!(view.rows(&shape).unwrap(), all.nrows());
        let mut parts = 0;
        for phase in 0..5 {
            let chunks = Chunks::all(4).one_of(5, phase + 10);
            view.for_each_rows(input.view(), 0, chunks, &mut |rows| {
                parts += rows.nrows();
                assert!(rows.outer_iter().all(|row| all.outer_iter().any(|found| found == row)));
            })
            .unwrap();
        }
        assert_eq!(parts, all.nrows(), "{view:?}");
    }
}
