use super::*;
use crate::layer::view::MatrixView;
use ndarray::{Array2, ArrayD};
use proptest::prelude::*;

fn ramp(shape: &[usize]) -> ArrayD<f32> {
    let mut state = 7u32;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 16) as f32 / 32768.0 - 1.0
    })
}

/// By the definition: every input element adds a multiple of the kernel; what is cut off falls away.
fn naive(transposed: &TransposedConv, input: &ArrayD<f32>, weight: &ArrayD<f32>) -> ArrayD<f32> {
    let conv = &transposed.conv;
    let (inputs, outputs) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
    let cuts = transposed.cuts(input.shape()).unwrap();
    let mut shape = vec![input.shape()[0], conv.out_channels];
    shape.extend(cuts.iter().map(|cut| cut.output));
    let mut result = ArrayD::zeros(IxDyn(&shape));
    for (at, x) in input.indexed_iter() {
        let group = at[1] / inputs;
        for (tap, w) in weight.index_axis(ndarray::Axis(0), at[1]).indexed_iter() {
            let place = |dim: usize| {
                let full = at[dim + 2] * conv.strides[dim] + tap[dim + 1] * conv.dilations[dim];
                full.checked_sub(cuts[dim].head).filter(|place| *place < cuts[dim].output)
            };
            if let Some(places) = (0..cuts.len()).map(place).collect::<Option<Vec<usize>>>() {
                let target = [vec![at[0], group * outputs + tap[0]], places].concat();
                result[IxDyn(&target)] += x * w;
            }
        }
    }
    result
}

fn geometry() -> impl Strategy<Value = (TransposedConv, Vec<usize>)> {
    (1usize..=3).prop_flat_map(|rank| {
        let list = |range: std::ops::RangeInclusive<usize>| prop::collection::vec(range, rank);
        let channels = (1usize..=2, 1usize..=3, 1usize..=3, 1usize..=2);
        let lists = (list(1..=3), list(1..=3), list(1..=2), list(0..=1), list(0..=1));
        let shapes = (list(0..=2), list(4..=9), list(4..=5));
        (channels, lists, shapes, 0usize..5).prop_map(|(channels, lists, (output_padding, shape, size), auto)| {
            let (groups, out, inputs, batch) = channels;
            let (kernel, strides, dilations, begin, end) = lists;
            let padding = match auto {
                1 => Padding::SameUpper,
                2 => Padding::SameLower,
                3 => Padding::Valid,
                _ => Padding::Explicit { begin, end },
            };
            let (out_channels, in_channels) = (groups * out, groups * inputs);
            let conv = ConvGeometry { groups, out_channels, in_channels, kernel, strides, dilations, padding };
            let output_shape = (auto == 4).then_some(shape);
            (TransposedConv { conv, output_padding, output_shape }, [vec![batch, in_channels], size].concat())
        })
    })
}

fn rows_of(view: &MatrixView, input: &ArrayD<f32>, group: usize) -> Array2<f32> {
    let mut all = Array2::zeros((0, view.inputs()));
    let mut append = |rows: ArrayView2<'_, f32>| all.append(ndarray::Axis(0), rows).unwrap();
    view.for_each_rows(input.view(), group, Chunks::all(7), &mut append).unwrap();
    all
}

proptest! {
    #[test]
    fn rows_times_weights_are_what_the_definition_gives((transposed, shape) in geometry()) {
        let view = MatrixView::ConvTranspose(transposed.clone());
        let (input, weight) = (ramp(&shape), ramp(&view.weight_shape()));
        let direct = naive(&transposed, &input, &weight);
        let (batch, channels, m) = (shape[0], transposed.conv.out_channels, view.outputs());
        let positions = direct.len() / batch / channels;
        let direct = direct.to_shape((batch, channels, positions)).unwrap();
        let matrix = view.to_matrix(weight.view()).unwrap();
        prop_assert_eq!(view.rows(&shape).unwrap(), batch * positions);
        for group in 0..view.groups() {
            let result = rows_of(&view, &input, group).dot(&matrix.index_axis(ndarray::Axis(0), group));
            prop_assert_eq!(result.nrows(), batch * positions);
            for ((row, column), value) in result.indexed_iter() {
                let wanted = direct[[row / positions, group * m + column, row % positions]];
                prop_assert!((value - wanted).abs() < 1e-4, "{value} {wanted}");
            }
        }
        prop_assert_eq!(view.from_matrix(matrix.view()).unwrap(), weight);
    }

    #[test]
    fn elements_of_the_weight_are_where_the_matrix_has_them((transposed, _) in geometry()) {
        let view = MatrixView::ConvTranspose(transposed);
        let shape = view.weight_shape();
        let count = shape.iter().product::<usize>();
        let index = ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            shape.iter().enumerate().fold(0, |index, (axis, size)| index * size + at[axis])
        });
        let channels = view.in_channels() / view.groups();
        let mut seen = 0;
        for ((group, k, m), &index) in view.to_matrix(index.view()).unwrap().indexed_iter() {
            let expected = (group * channels + k / view.positions(), group * view.outputs() + m);
            prop_assert_eq!(view.channel_and_output(index), expected);
            seen += 1;
        }
        prop_assert_eq!(seen, count);
    }
}

/// Kernel of 3, stride 2.
fn one_dimension(padding: Padding, added: usize, output_shape: Option<usize>) -> TransposedConv {
    let conv = ConvGeometry {
        groups: 1,
        out_channels: 1,
        in_channels: 1,
        kernel: vec![3],
        strides: vec![2],
        dilations: vec![1],
        padding,
    };
    TransposedConv { conv, output_padding: vec![added], output_shape: output_shape.map(|size| vec![size]) }
}

#[test]
fn what_is_cut_off_is_what_the_standard_says() {
    let none = || Padding::Explicit { begin: vec![0], end: vec![0] };
    let ones = Padding::Explicit { begin: vec![1], end: vec![1] };
    // Of 4 elements: 9 with nothing cut off.
    for (transposed, head, output) in [
        (one_dimension(none(), 0, None), 0, 9),
        (one_dimension(ones, 1, None), 1, 8),
        (one_dimension(Padding::SameUpper, 0, None), 0, 8),
        (one_dimension(Padding::SameLower, 0, None), 1, 8),
        (one_dimension(none(), 0, Some(8)), 1, 8),
        (one_dimension(none(), 0, Some(11)), 0, 11),
        (one_dimension(Padding::SameUpper, 0, Some(6)), 1, 6),
    ] {
        assert_eq!(transposed.cut(0, 4).unwrap(), Cut { head, output }, "{transposed:?}");
    }
}

#[test]
fn geometry_that_cannot_be_is_an_error() {
    let all = Padding::Explicit { begin: vec![6], end: vec![6] };
    let cut = one_dimension(all, 0, None).cut(0, 4);
    assert!(cut.unwrap_err().to_string().contains("9 elements"));
    let mut long = one_dimension(Padding::Valid, 0, None);
    long.output_padding.push(1);
    assert!(long.check().unwrap_err().to_string().contains("output_padding"));
    let mut wide = one_dimension(Padding::Valid, 0, None);
    wide.conv.strides = vec![1 << 24];
    let input = ArrayD::zeros(IxDyn(&[1, 1, 1000]));
    let mut nothing = |_: ArrayView2<'_, f32>| {};
    let rows = wide.for_each_rows(input.view(), 0, Chunks::all(8), &mut nothing);
    assert!(rows.unwrap_err().to_string().contains("zeros in between"));
}
