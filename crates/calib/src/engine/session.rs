//! A model ready to be run by tract, with values inside it observed.

use std::sync::{Mutex, PoisonError};

use onnxquant_proto::onnx::ModelProto;
use tract_onnx::prelude::{InferenceModel, IntoTensor, TValue, TractResult};

use super::Engine;
use super::convert::{from_tract, to_tract};
use super::graph::engine_model;
use super::plan::{Plan, PlanShapes, guarded, parse, prepare};
use super::shapes::{KEPT_PLANS, Shapes, Strategy, choose};
use crate::data::{CalibSet, Sample};
use crate::error::CalibError;
use crate::tensor::Tensor;

/// A model that tract runs.
///
/// Holds one copy of the weights as they are in the model; each plan adds what it repacks.
/// Samples may be run from several threads at once.
pub struct Session {
    parsed: InferenceModel,
    inputs: Vec<String>,
    values: Vec<String>,
    /// Where each value comes from.
    origins: Vec<Origin>,
    symbolic: Option<Plan>,
    /// Least recently used first.
    plans: Mutex<Vec<(Shapes, Plan)>>,
    groups: bool,
}

/// Where an observed value comes from.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// An input of the graph: the sample itself has it.
    Sample(usize),
    /// An output of the engine.
    Engine(usize),
}

/// Origins of `values`, and the distinct ones among them that the engine computes.
fn origins(values: &[String], fed: &[&str]) -> (Vec<Origin>, Vec<String>) {
    let mut computed: Vec<String> = Vec::new();
    let origin = |value: &String| match fed.iter().position(|f| f == value) {
        Some(input) => Origin::Sample(input),
        None => Origin::Engine(computed.iter().position(|c| c == value).unwrap_or_else(|| {
            computed.push(value.clone());
            computed.len() - 1
        })),
    };
    let origins = values.iter().map(origin).collect();
    (origins, computed)
}

impl Session {
    /// Prepares a model to be run on the samples of `data`, observing `values` (ONNX names of
    /// values of the main graph: graph outputs and inputs as well as anything between).
    ///
    /// Weights must be in the model (`raw_data` or the typed fields), not in external files,
    /// and local functions must have been inlined, see [`crate::inline_functions`].
    pub fn new(model: &ModelProto, values: &[String], data: &CalibSet) -> Result<Self, CalibError> {
        let fed: Vec<&str> = data.inputs().iter().map(|i| i.name.as_str()).collect();
        let (origins, computed) = origins(values, &fed);
        let engine_model = engine_model(model, &computed, &fed)?;
        let inputs = engine_model.inputs.clone();
        let has_convolutions = engine_model.has_convolutions;
        let positions: Vec<usize> = inputs.iter().filter_map(|i| fed.iter().position(|f| f == i)).collect();
        let samples: Vec<Shapes> =
            (0..data.len()).map(|s| positions.iter().map(|&p| data.shapes(s)[p].clone()).collect()).collect();
        let parsed = parse(engine_model)?;
        let mut session = Self {
            parsed,
            inputs,
            values: values.to_vec(),
            origins,
            symbolic: None,
            plans: Mutex::default(),
            groups: false,
        };
        session.choose_plans(&samples, has_convolutions)?;
        Ok(session)
    }

    /// Makes the first plan, so that models which the engine cannot run fail early.
    fn choose_plans(&mut self, samples: &[Shapes], has_convolutions: bool) -> Result<(), CalibError> {
        let Some(first) = samples.first() else { return Ok(()) };
        if self.parsed.outputs.is_empty() {
            return Ok(());
        }
        if let Strategy::Symbolic(symbols) = choose(samples, has_convolutions) {
            self.symbolic = prepare(&self.parsed, &PlanShapes::Symbolic(first, &symbols)).ok();
        }
        if self.symbolic.is_none() {
            let distinct: std::collections::BTreeSet<&Shapes> = samples.iter().collect();
            self.groups = distinct.len() > KEPT_PLANS;
            self.concrete_plan(first)?;
        }
        Ok(())
    }

    /// The plan for these shapes, kept or made.
    fn concrete_plan(&self, shapes: &Shapes) -> Result<Plan, CalibError> {
        // Held while a plan is made: other threads most likely wait for the same one.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = plans.iter().position(|(s, _)| s == shapes).map(|i| plans.remove(i));
        let entry = match kept {
            Some(entry) => entry,
            None => {
                if plans.len() >= KEPT_PLANS {
                    plans.remove(0);
                }
                (shapes.clone(), prepare(&self.parsed, &PlanShapes::Concrete(shapes))?)
            }
        };
        let plan = entry.1.clone();
        plans.push(entry);
        Ok(plan)
    }

    fn inputs<'a>(&self, sample: &'a Sample) -> Result<Vec<&'a Tensor>, CalibError> {
        let find = |name: &String| sample.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
        let missing = |name: &String| CalibError::BadModel(format!("the sample has no value for input `{name}`"));
        self.inputs.iter().map(|name| find(name).ok_or_else(|| missing(name))).collect()
    }
}

impl Engine for Session {
    fn values(&self) -> &[String] {
        &self.values
    }

    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        let mut computed: Vec<Option<Tensor>> = self.compute(sample)?.into_iter().map(Some).collect();
        let mut values = Vec::with_capacity(self.origins.len());
        for (position, origin) in self.origins.iter().enumerate() {
            let later = &self.origins[position + 1..];
            values.push(match *origin {
                Origin::Sample(input) => sample.get(input).map(|(_, tensor)| tensor.clone()),
                // A value asked for twice is handed over the second time.
                Origin::Engine(k) if later.iter().any(|o| matches!(o, Origin::Engine(l) if *l == k)) => computed[k].clone(),
                Origin::Engine(k) => computed[k].take(),
            });
        }
        let complete: Option<Vec<Tensor>> = values.into_iter().collect();
        complete.ok_or_else(|| CalibError::BadModel("a sample lacks one of its inputs".into()))
    }

    fn prefers_grouping(&self) -> bool {
        self.groups
    }
}

impl Session {
    /// The values that the engine computes for a sample.
    fn compute(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        if !self.origins.iter().any(|o| matches!(o, Origin::Engine(_))) {
            return Ok(vec![]);
        }
        let inputs = self.inputs(sample)?;
        if let Some(plan) = &self.symbolic
            && let Ok(values) = guarded(|| run_plan(plan, &inputs))
        {
            return Ok(values);
        }
        let shapes: Shapes = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let plan = self.concrete_plan(&shapes)?;
        guarded(|| run_plan(&plan, &inputs)).map_err(|detail| {
            let words: Vec<String> = self.inputs.iter().zip(&shapes).map(|(n, s)| format!("`{n}` {s:?}")).collect();
            CalibError::Run { sample: format!("a sample with inputs {}", words.join(", ")), detail }
        })
    }
}

fn run_plan(plan: &Plan, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
    let mut fed = Vec::with_capacity(inputs.len());
    for (index, tensor) in inputs.iter().enumerate() {
        let datum_type = plan.model().input_fact(index)?.datum_type;
        fed.push(TValue::from(to_tract(tensor, datum_type)?));
    }
    let outputs = plan.run(fed.into_iter().collect())?;
    outputs.into_iter().map(|value| from_tract(value.into_tensor())).collect()
}
