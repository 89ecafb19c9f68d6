//! The ONNX backend tests, run by the engine: what it accepts it computes right.
//!
//! `cargo xtask test` makes models and data, by `tests/python/make_node_models.py`. Each test is run in several forms, for
//! the engine takes other ways with constants, without optimizing, and with lengths that it does not know.

use std::path::{Path, PathBuf};

use half::f16;
use onnxquant_proto::onnx::{GraphProto, ModelProto, TensorProto};
use prost::Message;
use rayon::prelude::*;

use super::adapt::adapt;
use super::misread::RULES;
use super::model::{engine_model, rewritten};
use super::session::{Tract, TractSession};
use super::shapes::KEPT_PLANS;
use crate::data::{Sample, to_tensor};
use crate::engine::blocked::PANICKED;
use crate::engine::contract::{Engine, Feed, Given, Session, Shapes};
use crate::engine::cut::cut;
use crate::error::CalibError;
use crate::graph::{all_nodes, inline_functions};
use crate::tensor::{ElementType, Tensor, with_array};

/// Tests that come out right in one form at least.
const RIGHT: usize = 1490;
/// Tests on which the engine panics in one form: it says so, and the run goes on behind the node.
const PANICS: [&str; 1] = ["test_onehot_out_of_range_indices"];

const FLOAT16: i32 = 10;
const BFLOAT16: i32 = 16;

/// Which inputs of a test are constants of the model instead.
#[derive(Clone, Copy, Debug)]
enum Constants {
    None,
    /// What is no float: lengths, axes, indices.
    Integers,
    ButFirst,
}

/// How the engine makes its plan.
#[derive(Clone, Copy, Debug)]
enum Plans {
    Optimized,
    /// As for networks that quantize activations.
    AsItIs,
    /// As for samples whose first axes vary.
    Symbolic,
}

const FORMS: [(Constants, Plans); 7] = [
    (Constants::None, Plans::Optimized),
    (Constants::Integers, Plans::Optimized),
    (Constants::ButFirst, Plans::Optimized),
    (Constants::None, Plans::AsItIs),
    (Constants::ButFirst, Plans::AsItIs),
    (Constants::None, Plans::Symbolic),
    (Constants::ButFirst, Plans::Symbolic),
];

#[derive(Debug, PartialEq)]
enum Outcome {
    Right,
    /// Nothing can be compared, for a reason that users are told or because of types that no sample has.
    NotRun,
    Panicked,
    Wrong(String),
}

/// A test's model and data.
struct Case {
    name: String,
    model: ModelProto,
    inputs: Vec<TensorProto>,
    outputs: Vec<TensorProto>,
}

fn cases() -> Vec<Case> {
    let folder = std::env::var("ONNXQUANT_NODE_MODELS")
        .expect("ONNXQUANT_NODE_MODELS is not set: run `cargo xtask test`, which sets it up");
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let mut folders: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().map(|path| read(path)).collect()
}

fn read(folder: &Path) -> Case {
    let tensors = |side: &str| -> Vec<TensorProto> {
        let path = |number| folder.join(format!("{side}_{number}.pb"));
        let bytes = (0..).map(path).map_while(|path| std::fs::read(path).ok());
        bytes.map(|bytes| TensorProto::decode(bytes.as_slice()).expect("a tensor was written")).collect()
    };
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.split_once('_').map_or(name.as_str(), |(_, name)| name).to_owned();
    let model = onnxquant_proto::read_model(&folder.with_extension("onnx")).expect("a model was written");
    let model = inline_functions(&model).expect("its functions are sound");
    Case { name, model, inputs: tensors("input"), outputs: tensors("output") }
}

impl Case {
    /// Runs a form of the test, without the rules if `checks` is false.
    fn run(&self, form: (Constants, Plans), checks: bool) -> Outcome {
        let outcome = self.compare(form, checks);
        outcome.unwrap_or_else(|error| match error {
            CalibError::Load { detail, .. } | CalibError::Run { detail, .. } if detail.contains(PANICKED) => {
                Outcome::Panicked
            }
            _ => Outcome::NotRun,
        })
    }

    fn compare(&self, (constants, plans): (Constants, Plans), checks: bool) -> Result<Outcome, CalibError> {
        let Some((model, sample)) = self.in_form(constants) else { return Ok(Outcome::NotRun) };
        let Some(expected) = self.outputs.iter().map(comparable).collect::<Option<Vec<_>>>() else {
            return Ok(Outcome::NotRun);
        };
        let graph = model.graph.as_ref().expect("a test has a graph");
        let wanted: Vec<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
        let given = Given {
            feeds: sample.iter().map(|(name, _)| Feed { name: name.clone(), element_type: None }).collect(),
            shapes: shapes(&sample, plans),
        };
        let make = |computed: &[String]| {
            let mut made = match checks {
                true => engine_model(&model, computed, &given.feeds)?,
                false => rewritten(cut(&model, computed, &given.feeds)?, computed)?,
            };
            made.quantizes |= matches!(plans, Plans::AsItIs);
            Ok(made)
        };
        let found = TractSession::with(&wanted, &given, make)?.run(&sample)?;
        let mut faults = wanted.iter().zip(&expected).zip(&found).filter_map(|((name, expected), found)| {
            difference(expected, found).map(|difference| format!("{name}: {difference}"))
        });
        Ok(faults.next().map_or(Outcome::Right, Outcome::Wrong))
    }

    /// The model and what it is given, if samples can have these types.
    fn in_form(&self, constants: Constants) -> Option<(ModelProto, Sample)> {
        let mut model = self.model.clone();
        let graph = model.graph.as_mut()?;
        let mut sample = Sample::new();
        for (position, (input, tensor)) in graph.input.clone().iter().zip(&self.inputs).enumerate() {
            let is_float = ElementType::from_onnx(tensor.data_type()).is_some_and(ElementType::is_float);
            let is_constant = match constants {
                // No sample has this type, but constants do.
                _ if tensor.data_type() == BFLOAT16 => true,
                Constants::None => false,
                Constants::Integers => !is_float,
                Constants::ButFirst => position > 0,
            };
            if is_constant {
                graph.input.retain(|other| other.name() != input.name());
                graph.initializer.push(TensorProto { name: input.name.clone(), ..tensor.clone() });
            } else {
                sample.push((input.name().to_owned(), to_tensor(tensor).ok()?));
            }
        }
        Some((model, sample))
    }
}

/// The shapes of a sample, and, for a plan with symbols, those of others with longer first axes.
fn shapes(sample: &Sample, plans: Plans) -> Vec<Shapes> {
    let n_shapes = if matches!(plans, Plans::Symbolic) { KEPT_PLANS + 1 } else { 1 };
    let longer = |shape: &[usize], more: usize| {
        let first = shape.iter().take(1).map(|length| length + more);
        first.chain(shape.iter().skip(1).copied()).collect()
    };
    (0..n_shapes).map(|more| sample.iter().map(|(_, tensor)| longer(tensor.shape(), more)).collect()).collect()
}

/// What is expected, and how exact.
struct Expected {
    value: Tensor,
    tolerance: f64,
    is_half: bool,
}

fn comparable(tensor: &TensorProto) -> Option<Expected> {
    // Half precision is computed in single precision, and what is expected rounded: an ulp of it, where steps before
    // were rounded as well.
    let (tensor, tolerance) = match tensor.data_type() {
        BFLOAT16 => (widened(tensor)?, 1.0 / 128.0),
        FLOAT16 => (tensor.clone(), 1.0 / 1024.0),
        _ => (tensor.clone(), 1e-4),
    };
    let is_half = tensor.data_type() == FLOAT16;
    Some(Expected { value: to_tensor(&tensor).ok()?, tolerance, is_half })
}

/// A bfloat16 tensor in float32.
fn widened(tensor: &TensorProto) -> Option<TensorProto> {
    let graph = GraphProto { initializer: vec![tensor.clone()], ..GraphProto::default() };
    let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
    adapt(&mut model).ok()?;
    model.graph?.initializer.pop()
}

fn difference(expected: &Expected, found: &Tensor) -> Option<String> {
    let Expected { value, tolerance, is_half } = expected;
    if found.shape() != value.shape() {
        return Some(format!("shape {:?}, expected {:?}", found.shape(), value.shape()));
    }
    let (found_type, expected_type) = (found.element_type(), value.element_type());
    if found_type != expected_type && !(*is_half && found_type == ElementType::F32) {
        return Some(format!("{found_type}, expected {expected_type}"));
    }
    let is_close = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * (1.0 + b.abs());
    let (found, value) = (numbers(found), numbers(value));
    let mut pairs = found.iter().zip(&value).enumerate();
    pairs.find(|(_, (a, b))| !is_close(**a, **b)).map(|(at, (a, b))| format!("{a} at {at}, expected {b}"))
}

trait Number: Copy {
    fn number(self) -> f64;
}

macro_rules! numbers {
    ($($number:ty => $convert:expr),*) => {
        $(impl Number for $number {
            fn number(self) -> f64 {
                $convert(self)
            }
        })*
    };
}

#[expect(clippy::cast_precision_loss, reason = "numbers of tests are small")]
fn of_i64(number: i64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "numbers of tests are small")]
fn of_u64(number: u64) -> f64 {
    number as f64
}

numbers!(
    f32 => f64::from, f64 => std::convert::identity, f16 => f16::to_f64, bool => |bit| f64::from(u8::from(bit)),
    i64 => of_i64, i32 => f64::from, i16 => f64::from, i8 => f64::from,
    u64 => of_u64, u32 => f64::from, u16 => f64::from, u8 => f64::from
);

fn numbers(tensor: &Tensor) -> Vec<f64> {
    with_array!(tensor, array => array.iter().map(|number| number.number()).collect())
}

#[test]
fn what_the_engine_accepts_of_the_backend_tests_is_right() {
    let outcomes = |case: &Case| FORMS.map(|form| case.run(form, true));
    let cases = cases();
    let outcomes: Vec<[Outcome; FORMS.len()]> = cases.par_iter().map(outcomes).collect();
    let (mut wrong, mut panics, mut right) = (Vec::new(), Vec::new(), 0);
    for (case, outcomes) in cases.iter().zip(outcomes) {
        right += usize::from(outcomes.contains(&Outcome::Right));
        panics.extend(outcomes.contains(&Outcome::Panicked).then_some(case.name.as_str()));
        for (form, outcome) in FORMS.iter().zip(outcomes) {
            if let Outcome::Wrong(difference) = outcome {
                wrong.push(format!("{} {form:?}: {difference}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "computed otherwise, and no rule says so:\n{}", wrong.join("\n"));
    assert_eq!((right, panics), (RIGHT, PANICS.to_vec()));
}

/// No rule blocks what the engine has learnt.
#[test]
fn engine_is_wrong_where_a_rule_applies() {
    let cases = cases();
    for rule in &RULES {
        let applies = |case: &&Case| case.model.graph.iter().flat_map(all_nodes).any(|node| rule.applies_to(node));
        let outcomes = cases.par_iter().filter(applies).flat_map_iter(|case| FORMS.map(|form| case.run(form, false)));
        let is_wrong = outcomes.any(|outcome| matches!(outcome, Outcome::Wrong(_) | Outcome::Panicked));
        assert!(is_wrong, "no test is wrong without the rule that says: {}", rule.reason);
    }
}

/// The table of rules is what keeps the engine from running a node.
#[test]
fn engine_says_why_it_does_not_run_what_it_would_misread() {
    let applies = |node: &_| RULES.iter().find(|rule| rule.applies_to(node)).map(|rule| rule.reason);
    let cases = cases();
    let nodes = cases.iter().flat_map(|case| case.model.graph.iter().flat_map(all_nodes));
    let blocked: Vec<_> = nodes.filter_map(|node| Some((node, applies(node)?))).collect();
    assert!(blocked.len() >= RULES.len());
    for (node, reason) in blocked {
        assert_eq!(Tract.unknown(node), Some(reason));
    }
}
