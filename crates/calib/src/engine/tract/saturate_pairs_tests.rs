use ndarray::{Array2, Array4, ArrayD, IxDyn};
use onnxquant_proto::onnx::attribute_proto::AttributeType;
use onnxquant_proto::onnx::{AttributeProto, NodeProto as Message};
use onnxquant_quant::PairRule;
use prost::Message as _;

use super::*;
use crate::testing::node;

const SCALE: f32 = 0.5;
const ZERO_POINT: i32 = 100;

/// Numbers from `low` to `high` that look random, the ends among them.
fn integers(seed: u32, count: usize, low: i32, high: i32) -> Vec<i32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = low + (state >> 8) as i32 % (high - low + 1);
        if state >> 30 == 3 { high } else { number }
    };
    (0..count).map(|_| next()).collect()
}

fn ints(name: &str, numbers: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Ints.into()),
        ints: numbers.to_vec(),
        ..AttributeProto::default()
    }
}

fn parsed(attributes: Vec<AttributeProto>) -> TractResult<SaturatePairs> {
    let message = Message { attribute: attributes, ..node(SATURATE_PAIRS, &["y"], "z") };
    SaturatePairs::parse(&NodeProto::decode(message.encode_to_vec().as_slice())?)
}

/// The attribute of all pairs that break the rule; codes by output and input.
fn pairs(rule: PairRule, codes: &Array2<i32>) -> Vec<i64> {
    let mut pairs = Vec::new();
    for ((output, first), &code) in codes.indexed_iter() {
        let Some(second) = rule.partner(first).filter(|&second| second > first) else { continue };
        let other = codes[[output, second]];
        if !PairRule::allows(code as i16, other as i16) {
            pairs.extend([output as i64, first as i64, second as i64, code.into(), other.into()]);
        }
    }
    assert!(!pairs.is_empty(), "nothing saturates");
    pairs
}

/// The sum of products as kernels form it: of neighbours in 16 bits.
fn saturated(products: &[i32]) -> i32 {
    products.chunks(2).map(|pair| pair.iter().sum::<i32>().clamp(-32768, 32767)).sum()
}

/// What the operator makes of exact results `y`, given as steps from the zero point.
fn evaluated(operator: &SaturatePairs, y: Tensor, x: &ArrayD<i32>) -> Tensor {
    let x: Tensor = x.mapv(|steps| steps as f32 * SCALE).into();
    let scalar = |number: f32| TValue::from(Tensor::from(ndarray::arr0(number).into_dyn()));
    let scales = Tensor::from(ArrayD::from_elem(IxDyn(&[operator.pairs.len()]), 2.0f32));
    let inputs = tvec!(y.into(), x.into(), scalar(SCALE), scalar(-ZERO_POINT as f32), scales.into());
    operator.eval_out_of_plan(inputs).unwrap().unwrap().remove(0).into_tensor()
}

#[test]
fn products_saturate_as_in_a_loop_over_integers() {
    let (rows, inputs, outputs) = (5, 7, 3);
    let codes = Array2::from_shape_vec((outputs, inputs), integers(1, outputs * inputs, -127, 127)).unwrap();
    let steps = integers(2, rows * inputs, -ZERO_POINT, 255 - ZERO_POINT);
    let steps = ArrayD::from_shape_vec(vec![1, rows, inputs], steps).unwrap();
    let shape = ints("weight_shape", &[inputs as i64, outputs as i64]);
    let operator = parsed(vec![shape, ints("pairs", &pairs(PairRule::dense(inputs), &codes))]).unwrap();
    let result = |sum: &dyn Fn(&[i32]) -> i32| {
        ArrayD::from_shape_fn(IxDyn(&[1, rows, outputs]), |at| {
            let unsigned = |k: usize| steps[[0, at[1], k]] + ZERO_POINT;
            let products: Vec<i32> = (0..inputs).map(|k| unsigned(k) * codes[[at[2], k]]).collect();
            let shift: i32 = (0..inputs).map(|k| ZERO_POINT * codes[[at[2], k]]).sum();
            (sum(&products) - shift) as f32
        })
    };
    let (exact, cut) = (result(&|products| products.iter().sum()), result(&saturated));
    assert_ne!(exact, cut);
    let found = evaluated(&operator, exact.clone().into(), &steps).into_plain_array::<f32>().unwrap();
    assert_eq!(found, cut, "scales of the input and the weight cancel");
    let found = evaluated(&operator, exact.mapv(|y| y as i32).into(), &steps).into_plain_array::<i32>().unwrap();
    assert_eq!(found, cut.mapv(|y| y as i32));
}

/// Two groups of three channels, windows of 3x2 with strides, dilations and uneven padding.
struct Geometry {
    shape: [usize; 4],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
    groups: usize,
    output: [usize; 2],
}

impl Geometry {
    fn attributes(&self) -> Vec<AttributeProto> {
        let list = |name: &str, sizes: &[usize]| ints(name, &sizes.iter().map(|&size| size as i64).collect::<Vec<_>>());
        let group = AttributeProto {
            name: Some("group".into()),
            r#type: Some(AttributeType::Int.into()),
            i: Some(self.groups as i64),
            ..AttributeProto::default()
        };
        let auto_pad = AttributeProto {
            name: Some("auto_pad".into()),
            r#type: Some(AttributeType::String.into()),
            s: Some(b"NOTSET".to_vec()),
            ..AttributeProto::default()
        };
        let lists = [
            list("weight_shape", &self.shape),
            list("strides", &self.strides),
            list("dilations", &self.dilations),
            list("pads", &self.pads),
        ];
        lists.into_iter().chain([group, auto_pad]).collect()
    }

    /// Unsigned codes and weights of one result, kernel positions first, of each the channels; outside are zero points.
    fn products(&self, steps: &ArrayD<i32>, weight: &Array4<i32>, at: &IxDyn) -> Vec<(i32, i32)> {
        let [outputs, channels, height, width] = self.shape;
        let group = at[1] / (outputs / self.groups);
        let mut products = Vec::new();
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
            let place = |axis: usize, offset: usize| {
                (at[2 + axis] * self.strides[axis] + offset * self.dilations[axis]).checked_sub(self.pads[axis])
            };
            for channel in 0..channels {
                let inside = place(0, row)
                    .zip(place(1, column))
                    .and_then(|(row, column)| steps.get(IxDyn(&[at[0], group * channels + channel, row, column])));
                products.push((inside.copied().unwrap_or(0) + ZERO_POINT, weight[[at[1], channel, row, column]]));
            }
        }
        products
    }
}

#[test]
fn convolutions_saturate_as_in_a_loop_over_integers() {
    let geometry = Geometry {
        shape: [4, 3, 3, 2],
        strides: [2, 1],
        dilations: [1, 2],
        pads: [1, 2, 0, 1],
        groups: 2,
        output: [3, 5],
    };
    let [outputs, channels, height, width] = geometry.shape;
    let weight = integers(3, geometry.shape.iter().product(), -127, 127);
    let weight = Array4::from_shape_vec(geometry.shape, weight).unwrap();
    let codes = weight.to_shape((outputs, channels * height * width)).unwrap().to_owned();
    let steps = integers(4, 2 * 6 * 6 * 4, -ZERO_POINT, 255 - ZERO_POINT);
    let steps = ArrayD::from_shape_vec(vec![2, 6, 6, 4], steps).unwrap();
    let rule = PairRule::convolution(channels, height * width, channels);
    let attributes = [geometry.attributes(), vec![ints("pairs", &pairs(rule, &codes))]].concat();
    let operator = parsed(attributes).unwrap();
    let result = |sum: &dyn Fn(&[i32]) -> i32| {
        ArrayD::from_shape_fn(IxDyn(&[2, outputs, geometry.output[0], geometry.output[1]]), |at| {
            let products = geometry.products(&steps, &weight, &at);
            let shift: i32 = products.iter().map(|(_, code)| ZERO_POINT * code).sum();
            (sum(&products.iter().map(|(a, code)| a * code).collect::<Vec<_>>()) - shift) as f32
        })
    };
    let (exact, cut) = (result(&|products| products.iter().sum()), result(&saturated));
    assert_ne!(exact, cut);
    assert_eq!(evaluated(&operator, exact.into(), &steps).into_plain_array::<f32>().unwrap(), cut);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let dense = |pairs: &[i64]| parsed(vec![ints("weight_shape", &[4, 2]), ints("pairs", pairs)]);
    assert!(dense(&[1, 2, 3, 127, 127]).is_ok());
    for pair in [[2, 0, 1, 127, 127], [-1, 0, 1, 127, 127], [0, 3, 4, 127, 127], [0, -1, 0, 127, 127]] {
        assert!(dense(&pair).is_err(), "{pair:?}");
    }
    assert!(parsed(vec![ints("weight_shape", &[4]), ints("pairs", &[])]).is_err());
    assert!(parsed(vec![ints("weight_shape", &[4, 2, 3]), ints("pairs", &[])]).is_err(), "no geometry");
}
