//! `GroupQueryAttention` in the embedded engine, against ONNX Runtime.

use ndarray::{ArrayD, IxDyn};
use onnxquant_calib::{Engine, Feed, Given, Sample, Tensor, engine};
use onnxquant_proto::onnx::attribute_proto::AttributeType;
use onnxquant_proto::onnx::{AttributeProto, ModelProto, OperatorSetIdProto};

use crate::engines::ort;
use crate::models::{array, model, node, noise, tensor, typed_input};

const HEADS: usize = 4;
const KV: usize = 2;
const SIZE: usize = 32;
const PLACES: i64 = 16;
/// Codes of `TensorProto.DataType`.
const TYPES: [i32; 3] = [1, 6, 3];
const OPERATOR: &str = "GroupQueryAttention";

/// A form of the operator.
#[derive(Clone, Copy, Debug)]
struct Form {
    what: &'static str,
    batch: usize,
    past: usize,
    new: usize,
    /// Tokens of each sequence, past and new.
    lengths: &'static [i32],
    packed: bool,
    /// Pairs of channels that are rotated.
    rotated: i64,
    codes: bool,
    sink: bool,
    bias: bool,
    attributes: &'static [(&'static str, f32)],
}

const PLAIN: Form = Form {
    what: "plain",
    batch: 1,
    past: 0,
    new: 5,
    lengths: &[5],
    packed: false,
    rotated: 0,
    codes: false,
    sink: false,
    bias: false,
    attributes: &[],
};

const FORMS: [Form; 15] = [
    PLAIN,
    Form { what: "packed", packed: true, ..PLAIN },
    Form { what: "one token", packed: true, past: 3, new: 1, lengths: &[4], ..PLAIN },
    Form { what: "several tokens behind a past", packed: true, past: 6, new: 3, lengths: &[9], rotated: 16, ..PLAIN },
    Form { what: "rotation", rotated: 16, ..PLAIN },
    Form { what: "rotation of packed ones", rotated: 16, packed: true, past: 2, new: 1, lengths: &[3], ..PLAIN },
    Form { what: "neighbours", rotated: 16, attributes: &[("rotary_interleaved", 1.0)], ..PLAIN },
    Form { what: "partial rotation", rotated: 8, packed: true, ..PLAIN },
    Form { what: "softcap", attributes: &[("softcap", 2.5)], ..PLAIN },
    Form { what: "scale", attributes: &[("scale", 0.7)], ..PLAIN },
    Form { what: "window", past: 4, new: 3, lengths: &[7], attributes: &[("local_window_size", 2.0)], ..PLAIN },
    Form { what: "smooth", attributes: &[("smooth_softmax", 1.0)], ..PLAIN },
    Form { what: "sink and bias", sink: true, bias: true, attributes: &[("softcap", 2.0)], ..PLAIN },
    Form { what: "codes", packed: true, rotated: 16, past: 4, new: 3, lengths: &[7], codes: true, ..PLAIN },
    Form { what: "batch", batch: 2, past: 6, new: 1, lengths: &[7, 4], rotated: 16, codes: true, ..PLAIN },
];

impl Form {
    fn sample(&self) -> Sample {
        let packed = if self.packed { HEADS + 2 * KV } else { HEADS };
        let floats = |seed, heads: usize| Tensor::F32(array(seed, &[self.batch, self.new, heads * SIZE]));
        let mut sample = vec![("q".to_owned(), floats(1, packed))];
        if !self.packed {
            sample.push(("k".to_owned(), floats(2, KV)));
            sample.push(("v".to_owned(), floats(3, KV)));
        }
        for (seed, name) in [(4, "past_k"), (5, "past_v")] {
            let past = array(seed, &[self.batch, KV, self.past, SIZE]);
            let past = if self.codes { Tensor::I8(past.mapv(|x| (x * 60.0) as i8)) } else { Tensor::F32(past) };
            sample.push((name.to_owned(), past));
        }
        let lengths: Vec<i32> = self.lengths.iter().map(|length| length - 1).collect();
        let integers = |shape: &[usize], numbers| ArrayD::from_shape_vec(IxDyn(shape), numbers).unwrap();
        sample.push(("lengths".to_owned(), Tensor::I32(integers(&[self.batch], lengths))));
        sample.push(("total".to_owned(), Tensor::I32(integers(&[], vec![(self.past + self.new) as i32]))));
        sample
    }

    fn model(&self) -> ModelProto {
        let [float, int32, int8] = TYPES;
        let kept = if self.codes { int8 } else { float };
        let given = |name: &'static str, is_given: bool| if is_given { name } else { "" };
        let inputs = [
            "q",
            given("k", !self.packed),
            given("v", !self.packed),
            "past_k",
            "past_v",
            "lengths",
            "total",
            given("cos", self.rotated > 0),
            given("sin", self.rotated > 0),
            "",
            given("bias", self.bias),
            given("sink", self.sink),
            given("scale_k", self.codes),
            given("scale_v", self.codes),
        ];
        let mut attention = node(OPERATOR, &inputs, &["y", "now_k", "now_v"]);
        attention.domain = Some("com.microsoft".into());
        let counts = [("num_heads", HEADS as f32), ("kv_num_heads", KV as f32)];
        let rotates = (self.rotated > 0).then_some(("do_rotary", 1.0));
        let codes = self.codes.then_some(("kv_cache_bit_width", 8.0));
        let numbers = counts.into_iter().chain(rotates).chain(codes).chain(self.attributes.iter().copied());
        attention.attribute.extend(numbers.map(|(name, number)| attribute(name, number)));
        if self.codes {
            attention.attribute.extend(["k_quant_type", "v_quant_type"].map(text));
        }
        let mut declared = vec![typed_input("q", &[-1, -2, -3], float)];
        if !self.packed {
            declared.extend(["k", "v"].map(|name| typed_input(name, &[-1, -2, -4], float)));
        }
        declared.extend(["past_k", "past_v"].map(|name| typed_input(name, &[-1, KV as i64, -5, SIZE as i64], kept)));
        declared.push(typed_input("lengths", &[-1], int32));
        declared.push(typed_input("total", &[], int32));
        let all = (self.past + self.new) as i64;
        let mut constants = Vec::new();
        let angles = noise(6, (PLACES * self.rotated) as usize);
        for (name, turn) in [("cos", f32::cos as fn(f32) -> f32), ("sin", f32::sin)] {
            let numbers: Vec<f32> = angles.iter().map(|angle| turn(3.0 * angle)).collect();
            constants.push(tensor(name, &[PLACES, self.rotated], &numbers));
        }
        constants.push(tensor("bias", &[1, 1, self.new as i64, all], &noise(7, self.new * all as usize)));
        constants.push(tensor("sink", &[HEADS as i64], &noise(8, HEADS)));
        for (seed, name) in [(9, "scale_k"), (10, "scale_v")] {
            let numbers: Vec<f32> = noise(seed, KV * SIZE).iter().map(|x| 0.01 + 0.01 * x.abs()).collect();
            constants.push(tensor(name, &[KV as i64, 1, SIZE as i64], &numbers));
        }
        constants.retain(|constant| inputs.contains(&constant.name()));
        let mut model = model(declared, vec![attention], constants);
        let import = OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) };
        model.opset_import.push(import);
        model
    }

    fn given(&self) -> Given {
        let sample = self.sample();
        let feed = |(name, _): &(String, Tensor)| Feed { name: name.clone(), element_type: None };
        let shapes = sample.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect();
        Given { feeds: sample.iter().map(feed).collect(), shapes: vec![shapes] }
    }

    fn results(&self, engine: &dyn Engine) -> Vec<Tensor> {
        let (sample, wanted) = (self.sample(), ["y", "now_k", "now_v"].map(str::to_owned));
        let given = self.given();
        let session = engine.open(&self.model(), &wanted, &given);
        let session = session.unwrap_or_else(|error| panic!("{}: {error}", self.what));
        session.run(&sample).unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }
}

fn attribute(name: &str, number: f32) -> AttributeProto {
    let is_float = matches!(name, "scale" | "softcap");
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(if is_float { AttributeType::Float } else { AttributeType::Int }.into()),
        f: is_float.then_some(number),
        i: (!is_float).then_some(number as i64),
        ..AttributeProto::default()
    }
}

fn text(name: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::String.into()),
        s: Some(b"PER_CHANNEL".to_vec()),
        ..AttributeProto::default()
    }
}

/// Rows that fill a cache up, behind the tokens of a sequence, hold anything.
fn is_filling(form: &Form, result: usize, index: &IxDyn) -> bool {
    result > 0 && index[2] >= form.lengths[index[0]] as usize
}

#[test]
fn every_form_is_what_onnx_runtime_computes() {
    let Some(ort) = ort() else { return };
    for form in FORMS {
        for (at, (own, theirs)) in form.results(engine()).iter().zip(&form.results(ort)).enumerate() {
            assert_eq!(own.element_type(), theirs.element_type(), "{}, result {at}", form.what);
            let (own, theirs) =
                (own.to_f32().unwrap_or_else(|| codes(own)), theirs.to_f32().unwrap_or_else(|| codes(theirs)));
            assert_eq!(own.shape(), theirs.shape(), "{}, result {at}", form.what);
            let pairs = own.indexed_iter().zip(&theirs).filter(|((index, _), _)| !is_filling(&form, at, index));
            let worst = pairs.map(|((_, own), theirs)| (own - theirs).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{}, result {at}: {worst}", form.what);
        }
    }
}

fn codes(tensor: &Tensor) -> ArrayD<f32> {
    let Tensor::I8(codes) = tensor else { panic!("{}", tensor.element_type()) };
    codes.mapv(f32::from)
}

#[test]
fn what_is_not_computed_is_told() {
    for (name, wanted) in [("causal", "both directions"), ("sliding_window_cache", "windows"), ("qk_output", "scores")]
    {
        let mut model = PLAIN.model();
        let number = if name == "causal" { 0.0 } else { 1.0 };
        model.graph.as_mut().unwrap().node[0].attribute.push(attribute(name, number));
        let Err(error) = engine().open(&model, &["y".to_owned()], &PLAIN.given()) else { panic!("{name} is computed") };
        assert!(error.to_string().contains(wanted), "{error}");
    }
}
