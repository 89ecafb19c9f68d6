//! Every form of every operator that may lie between layers on codes: the file loads, and does what was told.
//!
//! Each network is `x -> Conv -> Relu = h -> form = m -> layer -> y`, small and with weights that look random. It is
//! quantized with fixed scales everywhere, loaded in ONNX Runtime at every level of optimization, and run with and
//! without it.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Tensor, write_captures};
use onnxquant_ir::onnx::{AttributeProto, ModelProto, NodeProto};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, tensor, text_attribute};
use serde_json::Value;

use crate::support::{Failures, Job, Measured, Net, agree, folder, measure, node, report, write};

/// The first that knows all forms, 16-bit codes included.
const OPSET: i64 = 21;
/// Of `x` and of `h`.
const PICTURE: [usize; 4] = [1, 8, 11, 11];
const SAMPLES: usize = 48;
/// The middle of each quarter of the samples.
const HELD_OUT: [usize; 4] = [6, 18, 30, 42];
/// The least that any form keeps, in dB.
const LEAST_DB: f64 = 18.0;
/// Tract and ONNX Runtime round near ties differently.
const TOLD_MARGIN_DB: f64 = 2.0;

/// What lies between the layers.
struct Form {
    name: String,
    /// Adds what makes `m` of `h`.
    add: Box<dyn Fn(&mut Net)>,
    /// Of `m`.
    shape: Vec<usize>,
}

fn form(name: impl Into<String>, shape: &[usize], add: impl Fn(&mut Net) + 'static) -> Form {
    Form { name: name.into(), add: Box::new(add), shape: shape.to_vec() }
}

/// One operator that makes `m` of `h` with these attributes.
fn operator(op_type: &'static str, attributes: Vec<AttributeProto>, shape: &[usize]) -> Form {
    let written: Vec<String> = attributes.iter().map(text).collect();
    let name = format!("{op_type} {}", written.join(" "));
    form(name, shape, move |net| {
        net.node(op_type, &["h"], "m", &attributes);
    })
}

fn text(attribute: &AttributeProto) -> String {
    let number = attribute.i.map(|i| i.to_string()).or_else(|| attribute.f.map(|f| f.to_string()));
    let words = attribute.s.as_ref().map(|s| String::from_utf8_lossy(s).into_owned());
    format!("{}={}", attribute.name(), number.or(words).unwrap_or_else(|| format!("{:?}", attribute.ints)))
}

fn int(name: &str, number: i64) -> AttributeProto {
    int_attribute(name, number)
}

fn ints(name: &str, numbers: &[i64]) -> AttributeProto {
    ints_attribute(name, numbers)
}

/// Both kinds of pools.
fn pools() -> Vec<Form> {
    let window = |kernel: [i64; 2], more: Vec<AttributeProto>| [vec![ints("kernel_shape", &kernel)], more].concat();
    let strides = |by| ints("strides", &[by; 2]);
    let pads = || ints("pads", &[1; 4]);
    let ceil = || int("ceil_mode", 1);
    let counted = || int("count_include_pad", 1);
    let both = [
        (window([3, 3], vec![]), 9),
        (window([1, 1], vec![]), 11),
        (window([2, 2], vec![strides(2)]), 5),
        (window([2, 2], vec![strides(2), ceil()]), 6),
        (window([3, 3], vec![strides(3), ceil(), pads()]), 5),
        (window([3, 3], vec![strides(2), pads()]), 6),
        (window([3, 3], vec![ints("pads", &[0, 0, 1, 1])]), 10),
        (window([3, 3], vec![strides(2), text_attribute("auto_pad", "SAME_UPPER")]), 6),
        (window([2, 2], vec![text_attribute("auto_pad", "SAME_LOWER")]), 11),
        (window([3, 3], vec![text_attribute("auto_pad", "VALID"), strides(2)]), 5),
        (window([3, 3], vec![ints("dilations", &[2, 2])]), 7),
        (window([3, 3], vec![ints("dilations", &[2, 2]), strides(2), pads()]), 5),
    ];
    let average = [
        (window([3, 3], vec![pads(), counted()]), 11),
        (window([2, 2], vec![strides(2), ceil(), counted()]), 6),
        (window([3, 3], vec![strides(2), ceil(), pads(), counted()]), 6),
        (window([3, 3], vec![ints("dilations", &[2, 2]), pads(), counted()]), 9),
    ];
    let of = |op_type, (attributes, size): &(Vec<AttributeProto>, usize)| {
        operator(op_type, attributes.clone(), &[1, 8, *size, *size])
    };
    let in_both = both.iter().flat_map(|row| [of("AveragePool", row), of("MaxPool", row)]);
    in_both.chain(average.iter().map(|row| of("AveragePool", row))).collect()
}

/// Pools along one axis and three.
fn pools_of_other_ranks() -> Vec<Form> {
    let reshaped = |op_type: &'static str, dims: &'static [i64], kernel: &'static [i64], shape: &[usize]| {
        form(format!("{op_type} of {dims:?}"), shape, move |net| {
            net.integers("dims", dims).node("Reshape", &["h", "dims"], "t", &[]);
            net.node(op_type, &["t"], "m", &[ints("kernel_shape", kernel)]);
        })
    };
    let mut forms = Vec::new();
    for op_type in ["AveragePool", "MaxPool"] {
        forms.push(reshaped(op_type, &[1, 8, 121], &[4], &[1, 8, 118]));
        forms.push(reshaped(op_type, &[1, 4, 2, 11, 11], &[2, 3, 3], &[1, 4, 1, 9, 9]));
    }
    forms
}

/// Averages over whole pictures, also of what has no mean: there the scales are far apart.
fn global_pools() -> Vec<Form> {
    let normalized = form("InstanceNormalization, GlobalAveragePool", &[1, 8, 1, 1], |net| {
        net.constant("gain", tensor::from_f32(&[8], &[1.0; 8])).random("shift", &[8], 0.002);
        net.node("InstanceNormalization", &["h", "gain", "shift"], "t", &[]);
        // What is not normalized, so that the outputs have a signal.
        net.node("GlobalAveragePool", &["t"], "flat", &[]).node("GlobalMaxPool", &["h"], "most", &[]);
        net.node("Add", &["flat", "most"], "m", &[]);
    });
    let pools = ["GlobalAveragePool", "GlobalMaxPool"].map(|op_type| operator(op_type, vec![], &[1, 8, 1, 1]));
    pools.into_iter().chain([normalized]).collect()
}

/// Convolutions in all their forms.
fn convolutions() -> Vec<Form> {
    let conv = |weight: [usize; 4], attributes: Vec<AttributeProto>, shape: [usize; 4]| {
        let written: Vec<String> = attributes.iter().map(text).collect();
        form(format!("Conv {weight:?} {}", written.join(" ")), &shape, move |net| {
            net.random("k", &weight, 0.4).random("b", &weight[..1], 0.3);
            net.node("Conv", &["h", "k", "b"], "m", &attributes);
        })
    };
    let strides = || ints("strides", &[2, 2]);
    let same = |kind: &str| text_attribute("auto_pad", kind);
    let line = form("Conv of a line", &[1, 6, 119], |net| {
        net.integers("dims", &[1, 8, 121]).node("Reshape", &["h", "dims"], "t", &[]);
        net.random("k", &[6, 8, 3], 0.4).node("Conv", &["t", "k"], "m", &[]);
    });
    let depth = form("Conv of a volume", &[1, 6, 1, 9, 9], |net| {
        net.integers("dims", &[1, 4, 2, 11, 11]).node("Reshape", &["h", "dims"], "t", &[]);
        net.random("k", &[6, 4, 2, 3, 3], 0.4).node("Conv", &["t", "k"], "m", &[]);
    });
    vec![
        conv([6, 8, 1, 1], vec![], [1, 6, 11, 11]),
        conv([6, 8, 3, 3], vec![ints("pads", &[0, 1, 1, 0])], [1, 6, 10, 10]),
        conv([6, 8, 3, 3], vec![ints("dilations", &[2, 2]), ints("pads", &[2; 4])], [1, 6, 11, 11]),
        conv([6, 8, 5, 1], vec![strides(), ints("pads", &[2, 0, 2, 0])], [1, 6, 6, 6]),
        conv([6, 8, 3, 3], vec![strides(), same("SAME_UPPER")], [1, 6, 6, 6]),
        conv([6, 8, 2, 2], vec![same("SAME_LOWER")], [1, 6, 11, 11]),
        conv([6, 4, 3, 3], vec![int("group", 2), same("VALID")], [1, 6, 9, 9]),
        conv([8, 1, 3, 3], vec![int("group", 8), ints("pads", &[1; 4])], [1, 8, 11, 11]),
        line,
        depth,
    ]
}

/// What turns maps into larger ones. The channels that a group makes are `uneven` times as large, by turns, and as small,
/// which one scale for all of a weight would ruin.
fn transposed_convolutions(uneven: f32) -> Vec<Form> {
    let conv = |weight: [usize; 4], attributes: Vec<AttributeProto>, shape: [usize; 4]| {
        let written: Vec<String> = attributes.iter().map(text).collect();
        form(format!("ConvTranspose {weight:?} {}", written.join(" ")), &shape, move |net| {
            let mut numbers = vec![0.1; weight.iter().product()];
            let (window, outputs) = (weight[2] * weight[3], weight[1]);
            for (at, number) in numbers.iter_mut().enumerate() {
                *number *=
                    ((at * 37 % 19) as f32 - 9.0) * if at / window % outputs == 0 { uneven } else { 1.0 / uneven };
            }
            net.constant("k", tensor::from_f32(&weight, &numbers)).random("b", &[shape[1]], 0.3);
            net.node("ConvTranspose", &["h", "k", "b"], "t", &attributes);
            let even: Vec<f32> =
                (0..shape[1]).map(|at| if at % outputs == 0 { 1.0 / uneven } else { uneven }).collect();
            net.constant("even", tensor::from_f32(&[1, shape[1], 1, 1], &even));
            net.node("Mul", &["t", "even"], "m", &[]);
        })
    };
    vec![
        conv([8, 4, 2, 2], vec![ints("strides", &[2, 2])], [1, 4, 22, 22]),
        conv([8, 2, 3, 3], vec![int("group", 2), ints("pads", &[1; 4])], [1, 4, 11, 11]),
        conv(
            [8, 4, 3, 3],
            vec![ints("strides", &[2, 2]), ints("pads", &[1; 4]), ints("output_padding", &[1, 1])],
            [1, 4, 22, 22],
        ),
    ]
}

/// Gemm and MatMul.
fn products() -> Vec<Form> {
    let gemm = |weight: [usize; 2], bias: &'static [usize], attributes: Vec<AttributeProto>| {
        let written: Vec<String> = attributes.iter().map(text).collect();
        form(format!("Gemm {weight:?} + {bias:?} {}", written.join(" ")), &[1, 10], move |net| {
            net.node("Flatten", &["h"], "t", &[]).random("k", &weight, 0.05).random("b", bias, 0.3);
            net.node("Gemm", &["t", "k", "b"], "m", &attributes);
        })
    };
    let bare = form("Gemm without a bias", &[1, 10], |net| {
        net.node("Flatten", &["h"], "t", &[]).random("k", &[968, 10], 0.05).node("Gemm", &["t", "k"], "m", &[]);
    });
    let matmul = form("MatMul of a matrix", &[1, 8, 11, 6], |net| {
        net.random("k", &[11, 6], 0.4).node("MatMul", &["h", "k"], "m", &[]);
    });
    let added = form("MatMul, Add", &[1, 8, 11, 6], |net| {
        net.random("k", &[11, 6], 0.4).random("b", &[6], 0.4);
        net.node("MatMul", &["h", "k"], "t", &[]).node("Add", &["t", "b"], "m", &[]);
    });
    let two = form("MatMul of activations", &[1, 8, 11, 11], |net| {
        net.node("Transpose", &["h"], "t", &[ints("perm", &[0, 1, 3, 2])]).node("MatMul", &["h", "t"], "m", &[]);
    });
    vec![
        gemm([968, 10], &[10], vec![]),
        gemm([10, 968], &[10], vec![int("transB", 1)]),
        gemm([968, 10], &[1, 10], vec![float_attribute("alpha", 0.5)]),
        gemm([968, 10], &[1], vec![float_attribute("beta", 2.0)]),
        bare,
        matmul,
        added,
        two,
    ]
}

/// Operators of two operands.
fn elementwise() -> Vec<Form> {
    let mut forms = Vec::new();
    for op_type in ["Add", "Mul"] {
        for dims in [&[][..], &[1], &[8, 1, 1], &[1, 1, 11, 11], &[1, 8, 11, 11]] {
            forms.push(form(format!("{op_type} {dims:?}"), &PICTURE, move |net| {
                net.random("c", dims, 0.8).node(op_type, &["h", "c"], "m", &[]);
            }));
        }
        forms.push(form(format!("{op_type} of itself"), &PICTURE, move |net| {
            net.node(op_type, &["h", "h"], "m", &[]);
        }));
        forms.push(form(format!("{op_type} of a map and its mean"), &PICTURE, move |net| {
            net.node("GlobalAveragePool", &["h"], "t", &[]).node(op_type, &["t", "h"], "m", &[]);
        }));
    }
    for (axis, shape) in [(1, [1, 16, 11, 11]), (-1, [1, 8, 11, 22])] {
        forms.push(form(format!("Concat {axis}"), &shape, move |net| {
            net.node("Sigmoid", &["h"], "t", &[]).node("Concat", &["h", "t"], "m", &[int("axis", axis)]);
        }));
    }
    forms
}

/// Operators of one operand that work element by element or along an axis.
fn unary() -> Vec<Form> {
    let mut forms: Vec<Form> = ["Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "Elu", "Identity"]
        .map(|op| operator(op, vec![], &PICTURE))
        .into();
    forms.push(operator("LeakyRelu", vec![float_attribute("alpha", 0.3)], &PICTURE));
    forms.extend([1, -1].map(|axis| operator("Softmax", vec![int("axis", axis)], &PICTURE)));
    for (low, high) in [(0.0, 1.0), (0.1, 0.6)] {
        forms.push(form(format!("Clip {low} {high}"), &PICTURE, move |net| {
            net.constant("low", tensor::from_f32(&[], &[low])).constant("high", tensor::from_f32(&[], &[high]));
            net.node("Clip", &["h", "low", "high"], "m", &[]);
        }));
    }
    for op_type in ["ReduceMean", "ReduceMax", "ReduceSum"] {
        forms.push(form(op_type, &[1, 8, 1, 1], move |net| {
            net.integers("axes", &[2, 3]).node(op_type, &["h", "axes"], "m", &[]);
        }));
    }
    forms
}

/// Operators that move elements.
fn movements() -> Vec<Form> {
    let with = |name: &'static str, op_type: &'static str, inputs: &'static [&'static [i64]], shape: &[usize]| {
        form(name, shape, move |net| {
            let names = ["a", "b", "c", "d"];
            for (name, numbers) in names.iter().zip(inputs).filter(|(_, numbers)| !numbers.is_empty()) {
                net.integers(name, numbers);
            }
            let given = names.iter().zip(inputs).map(|(name, numbers)| if numbers.is_empty() { "" } else { *name });
            let inputs: Vec<&str> = std::iter::once("h").chain(given).collect();
            net.node(op_type, &inputs, "m", &[]);
        })
    };
    let split = |used: &'static [&'static str], name: &'static str, shape: &[usize]| {
        form(name, shape, move |net| {
            net.integers("parts", &[3, 5]);
            net.push(NodeProto { attribute: vec![int("axis", 1)], ..node("Split", &["h", "parts"], &["p", "q"]) });
            net.node("Concat", used, "m", &[int("axis", 1)]);
        })
    };
    let nested = form("Unsqueeze, Squeeze", &PICTURE, |net| {
        net.integers("at", &[0]).node("Unsqueeze", &["h", "at"], "t", &[]).node("Squeeze", &["t", "at"], "m", &[]);
    });
    let gathered = form("Gather", &[1, 3, 11, 11], |net| {
        net.integers("at", &[5, 0, 2]).node("Gather", &["h", "at"], "m", &[int("axis", 1)]);
    });
    let expanded = form("Expand", &[1, 8, 3, 11], |net| {
        net.integers("axes", &[2]).node("ReduceMax", &["h", "axes"], "t", &[]);
        net.integers("dims", &[1, 8, 3, 11]).node("Expand", &["t", "dims"], "m", &[]);
    });
    let blocks = |mode: &'static str| {
        form(format!("DepthToSpace {mode}"), &[1, 2, 22, 22], move |net| {
            net.node("DepthToSpace", &["h"], "m", &[int("blocksize", 2), text_attribute("mode", mode)]);
        })
    };
    let scaled = |name: &'static str, factor: f32, op_type: &'static str| {
        form(name, &PICTURE, move |net| {
            net.constant("factor", tensor::from_f32(&[], &[factor])).node(op_type, &["h", "factor"], "m", &[]);
        })
    };
    vec![
        with("Reshape", "Reshape", &[&[0, -1, 11]], &[1, 88, 11]),
        with("Slice", "Slice", &[&[1, 0], &[9, 11], &[2, 3], &[2, 3]], &[1, 8, 4, 4]),
        with("Slice backwards", "Slice", &[&[-1], &[-12], &[3], &[-1]], &PICTURE),
        with("Tile", "Tile", &[&[1, 2, 1, 1]], &[1, 16, 11, 11]),
        with("Pad", "Pad", &[&[0, 0, 1, 2, 0, 0, 1, 2]], &[1, 8, 13, 15]),
        operator("Transpose", vec![ints("perm", &[0, 2, 3, 1])], &[1, 11, 11, 8]),
        operator("Flatten", vec![int("axis", 2)], &[8, 121]),
        split(&["q", "p"], "Split", &PICTURE),
        split(&["q", "q"], "Split, one part", &[1, 10, 11, 11]),
        nested,
        gathered,
        expanded,
        blocks("DCR"),
        blocks("CRD"),
        scaled("Mul by a number", 0.37, "Mul"),
        scaled("Div by a number", 3.1, "Div"),
    ]
}

/// Pictures made larger, in every mode.
fn resizes() -> Vec<Form> {
    let resize = |mode: &'static str, coordinates: &'static str, rounding: Option<&'static str>| {
        let name = format!("Resize {mode} {coordinates} {}", rounding.unwrap_or(""));
        form(name, &[1, 8, 22, 22], move |net| {
            net.constant("scales", tensor::from_f32(&[4], &[1.0, 1.0, 2.0, 2.0]));
            let mut attributes =
                vec![text_attribute("mode", mode), text_attribute("coordinate_transformation_mode", coordinates)];
            attributes.extend(rounding.map(|rounding| text_attribute("nearest_mode", rounding)));
            net.node("Resize", &["h", "", "scales"], "m", &attributes);
        })
    };
    vec![
        resize("nearest", "half_pixel", None),
        resize("nearest", "asymmetric", Some("floor")),
        resize("nearest", "align_corners", Some("round_prefer_ceil")),
        resize("linear", "half_pixel", None),
        resize("linear", "asymmetric", None),
        resize("cubic", "half_pixel", None),
    ]
}

/// The network around a form.
fn network(form: &Form) -> ModelProto {
    let mut net = Net::default();
    net.random("w1", &[8, 8, 3, 3], 0.3).random("b1", &[8], 0.4);
    net.node("Conv", &["x", "w1", "b1"], "before", &[ints("pads", &[1; 4])]).node("Relu", &["before"], "h", &[]);
    (form.add)(&mut net);
    let rank = match form.shape.as_slice() {
        // As maps are read in a network of convolutions.
        [1, channels, height, width] if height * width > 1 => {
            net.random("w2", &[4, *channels, 1, 1], 0.5).node("Conv", &["m", "w2"], "y", &[]);
            4
        }
        shape => {
            let inputs = shape[1..].iter().product();
            net.node("Flatten", &["m"], "row", &[]).random("w2", &[inputs, 4], (3.0 / inputs as f32).sqrt());
            net.node("Gemm", &["row", "w2"], "y", &[]);
            2
        }
    };
    net.model(OPSET, &PICTURE.map(|dim| dim as i64), rank)
}

/// Writes samples of `x` and returns those that are held out.
fn samples(folder: &Path) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("the folder can be made");
    let path = |sample: usize| {
        let path = folder.join(format!("{sample:04}.npz"));
        let number = |at: usize| ((sample * 131 + at * at * 17 + at) as f32 * 0.61).sin() * 1.5;
        let numbers = (0..PICTURE.iter().product()).map(number).collect();
        let array = ArrayD::from_shape_vec(IxDyn(&PICTURE), numbers).expect("as many as the shape says");
        write_captures(&path, &["x".to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
        path
    };
    let all: Vec<PathBuf> = (0..SAMPLES).map(path).collect();
    HELD_OUT.map(|at| all[at].clone()).to_vec()
}

/// Quantizes the networks of all forms and checks what ONNX Runtime makes of them.
fn check(forms: Vec<Form>, args: &[&str]) {
    let folder = folder();
    let calib = folder.path().join("calib");
    let samples = samples(&calib);
    let (mut jobs, mut told) = (Vec::new(), Vec::new());
    for (at, form) in forms.iter().enumerate() {
        let (input, output) =
            (folder.path().join(format!("{at}.onnx")), folder.path().join(format!("{at}_quantized.onnx")));
        write(&network(form), &input);
        told.push(report(&input, &output, args, Some(&calib)));
        jobs.push(Job::compare(&output, &input, &samples));
    }
    let mut failures = Failures::default();
    for ((form, told), found) in forms.iter().zip(&told).zip(measure(&jobs)) {
        let problem = problem(told, &found);
        failures.check(problem.is_none(), || format!("{}: {}", form.name, problem.unwrap_or_default()));
    }
    failures.finish();
}

/// What is wrong with a written file, or nothing.
fn problem(told: &Value, found: &Measured) -> Option<String> {
    let told_db = told["held_out"]["sqnr_db"].as_f64()?;
    let faults = found.faults();
    if !faults.is_empty() {
        return Some(faults);
    }
    if told["integers"]["static_layers"].as_u64() == Some(0) {
        return Some("nothing runs on codes".to_owned());
    }
    let as_told =
        |db: &Option<f64>| db.is_some_and(|db| db >= LEAST_DB && (db >= told_db || agree(db, told_db, TOLD_MARGIN_DB)));
    let fine = as_told(&found.sqnr_db) && as_told(&found.default_sqnr_db);
    (!fine).then(|| format!("told {told_db:.1} dB, plain {:?}, optimized {:?}", found.sqnr_db, found.default_sqnr_db))
}

const STRICT: [&str; 6] = ["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq"];

#[test]
fn pools_between_layers_on_codes_do_what_was_told() {
    check([pools(), pools_of_other_ranks(), global_pools()].into_iter().flatten().collect(), &STRICT);
}

#[test]
fn layers_between_layers_on_codes_do_what_was_told() {
    check([convolutions(), transposed_convolutions(1.0), products()].into_iter().flatten().collect(), &STRICT);
}

#[test]
fn other_operators_between_layers_on_codes_do_what_was_told() {
    check([elementwise(), unary(), movements(), resizes()].into_iter().flatten().collect(), &STRICT);
}

#[test]
fn layers_that_stay_in_float_do_what_was_told_between_codes_of_16_bits() {
    let args = [&STRICT[..], &["--activation-bits", "16"]].concat();
    check(transposed_convolutions(10.0), &args);
}

/// The layer in the middle has channels of very different size, which one scale would ruin.
#[test]
fn an_excluded_layer_does_no_harm() {
    let mut net = Net::default();
    let even = |at: usize| if at == 0 { 100.0 } else { 1.0 };
    let noise: Vec<f32> = (0..16 * 16 * 9).map(|at| ((at * 73 % 101) as f32 - 50.0) / 400.0).collect();
    let of_output = noise.iter().enumerate().map(|(at, x)| x * even(at / 144));
    let of_input = noise.iter().enumerate().map(|(at, x)| x / even(at / 9 % 16));
    let [uneven, evening] = [of_output.collect::<Vec<f32>>(), of_input.collect()];
    net.random("w0", &[16, 8, 3, 3], 0.2).random("b0", &[16], 0.2).random("b1", &[16], 0.2).random(
        "w3",
        &[10, 16, 1, 1],
        0.3,
    );
    net.constant("w1", tensor::from_f32(&[16, 16, 3, 3], &uneven));
    net.constant("w2", tensor::from_f32(&[16, 16, 3, 3], &evening));
    let pads = [ints("pads", &[1; 4])];
    net.node("Conv", &["x", "w0", "b0"], "first", &pads).node("Relu", &["first"], "r0", &[]);
    net.node("Conv", &["r0", "w1", "b1"], "keep", &pads).node("Relu", &["keep"], "r1", &[]);
    net.node("Conv", &["r1", "w2"], "third", &pads).node("Relu", &["third"], "r2", &[]);
    net.node("Conv", &["r2", "w3"], "y", &[]);
    let (folder, model) = (folder(), net.model(OPSET, &PICTURE.map(|dim| dim as i64), 4));
    let (calib, input) = (folder.path().join("calib"), folder.path().join("in.onnx"));
    let samples = samples(&calib);
    write(&model, &input);
    let written = ["all", "but_one"].map(|name| folder.path().join(format!("{name}.onnx")));
    let exclude = ["--exclude", "keep"];
    let args = [STRICT.to_vec(), [&STRICT[..], &exclude].concat()];
    let told: Vec<Value> =
        written.iter().zip(&args).map(|(output, args)| report(&input, output, args, Some(&calib))).collect();
    let jobs: Vec<Job> =
        written.iter().map(|output| Job { nodes: true, ..Job::compare(output, &input, &samples) }).collect();
    let found = measure(&jobs);
    let mut failures = Failures::default();
    for (told, found) in told.iter().zip(&found) {
        let problem = problem(told, found);
        failures.check(problem.is_none(), || problem.unwrap_or_default());
    }
    let [with, without] = [&found[0], &found[1]].map(|found| found.default_sqnr_db);
    let harmless = with.zip(without).is_some_and(|(with, without)| without >= with - 0.5);
    failures.check(harmless, || format!("{with:?} dB with the layer on codes, {without:?} dB without"));
    failures.check(found[1].count("QLinearConv") == 3, || format!("{:?}", found[1].nodes));
    failures.finish();
}
