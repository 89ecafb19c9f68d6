//! The forms of each operator.

use onnxquant_ir::onnx::{AttributeProto, NodeProto};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, tensor, text_attribute};

use crate::support::{Net, node};

/// The shape of `x` and of `h`.
pub(super) const PICTURE: [usize; 4] = [1, 8, 11, 11];

/// What lies between the layers.
pub(super) struct Form {
    pub(super) name: String,
    /// Adds what makes `m` of `h`.
    pub(super) add: Box<dyn Fn(&mut Net)>,
    /// Of `m`.
    pub(super) shape: Vec<usize>,
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

pub(super) fn ints(name: &str, numbers: &[i64]) -> AttributeProto {
    ints_attribute(name, numbers)
}

/// Both kinds of pools.
pub(super) fn pools() -> Vec<Form> {
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
pub(super) fn pools_of_other_ranks() -> Vec<Form> {
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
pub(super) fn global_pools() -> Vec<Form> {
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
pub(super) fn convolutions() -> Vec<Form> {
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
pub(super) fn transposed_convolutions(uneven: f32) -> Vec<Form> {
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
pub(super) fn products() -> Vec<Form> {
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
pub(super) fn elementwise() -> Vec<Form> {
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
pub(super) fn unary() -> Vec<Form> {
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
pub(super) fn movements() -> Vec<Form> {
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
pub(super) fn resizes() -> Vec<Form> {
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
