//! A model ready to be run by tract, with values inside it observed.

use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use onnxquant_proto::onnx::{ModelProto, NodeProto};
use tract_onnx::prelude::{InferenceModel, IntoTensor, TValue, TractResult};

use super::contrib::lowering;
use super::convert::{from_tract, to_tract};
use super::misread::misread;
use super::model::{EngineModel, engine_model};
use super::plan::{Operators, Plan, PlanShapes, guarded, operators, parse, prepare};
use super::shapes::{KEPT_PLANS, Strategy, choose, distinct};
use crate::data::Sample;
use crate::engine::contract::{Engine, Given, Session, Shapes};
use crate::engine::observed::{Observed, failed, fed};
use crate::error::CalibError;
use crate::tensor::Tensor;

/// tract.
pub(super) struct Tract;

/// The operators that it has.
static OPERATORS: LazyLock<Operators> = LazyLock::new(operators);

impl Engine for Tract {
    fn name(&self) -> &str {
        "tract 0.23.9"
    }

    fn unknown(&self, node: &NodeProto) -> Option<&'static str> {
        match lowering(node) {
            Some(lowering) => (lowering.refused)(node),
            None => misread(node).or_else(|| OPERATORS.unknown(node)),
        }
    }

    fn open(&self, model: &ModelProto, wanted: &[String], given: &Given) -> Result<Box<dyn Session>, CalibError> {
        Ok(Box::new(TractSession::new(model, wanted, given)?))
    }
}

/// A model that tract runs.
///
/// Plans hold the weights as they need them. The weights as they are in the model are copied
/// only while plans are made, unless there are so many shapes that plans come and go.
/// Samples may be run from several threads at once.
pub(super) struct TractSession {
    model: EngineModel,
    observed: Observed,
    symbolic: Option<Plan>,
    parsed: Mutex<Option<Arc<InferenceModel>>>,
    /// Least recently used first.
    plans: Mutex<Vec<(Shapes, Arc<PlanCell>)>>,
    groups: bool,
}

/// A plan once it is made: threads that need the same one wait for it, others do not.
type PlanCell = OnceLock<Result<Plan, String>>;

impl TractSession {
    fn new(model: &ModelProto, values: &[String], given: &Given) -> Result<Self, CalibError> {
        Self::with(values, given, |computed| engine_model(model, computed, &given.feeds))
    }

    /// A session of what `make` prepares to compute the values named to it.
    pub(super) fn with(
        values: &[String],
        given: &Given,
        make: impl FnOnce(&[String]) -> Result<EngineModel, CalibError>,
    ) -> Result<Self, CalibError> {
        let Given { feeds, shapes: samples } = given;
        let names: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
        let observed = Observed::new(values, feeds);
        let engine_model = make(observed.computed())?;
        let positions = engine_model.inputs.iter().filter_map(|i| names.iter().position(|name| name == i));
        let positions: Vec<usize> = positions.collect();
        let samples: Vec<Shapes> =
            samples.iter().map(|shapes| positions.iter().map(|&p| shapes[p].clone()).collect()).collect();
        let mut session = Self {
            model: engine_model,
            observed,
            symbolic: None,
            parsed: Mutex::default(),
            plans: Mutex::default(),
            groups: false,
        };
        if !session.observed.computed().is_empty() {
            session.choose_plans(&samples)?;
        }
        Ok(session)
    }

    /// Makes the plans that will be kept, or the first of many, so that models which the engine
    /// cannot run fail early.
    fn choose_plans(&mut self, samples: &[Shapes]) -> Result<(), CalibError> {
        let Some(first) = samples.first() else { return Ok(()) };
        if let Strategy::Symbolic(symbols) = choose(samples, self.model.has_convolutions) {
            self.symbolic =
                prepare(&*self.parsed()?, &PlanShapes::Symbolic(first, &symbols), self.model.quantizes).ok();
        }
        if self.symbolic.is_none() {
            let distinct = distinct(samples);
            self.groups = distinct.len() > KEPT_PLANS;
            for shapes in distinct.into_iter().take(KEPT_PLANS) {
                self.concrete_plan(shapes)?;
            }
        }
        if !self.groups {
            *self.parsed.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(())
    }

    fn parsed(&self) -> Result<Arc<InferenceModel>, CalibError> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*parsed {
            Some(model) => Ok(model.clone()),
            None => Ok(parsed.insert(Arc::new(parse(&self.model)?)).clone()),
        }
    }

    /// The plan for these shapes, kept or made.
    fn concrete_plan(&self, shapes: &Shapes) -> Result<Plan, CalibError> {
        let cell = self.plan_cell(shapes);
        if cell.get().is_none() {
            let parsed = self.parsed()?;
            cell.get_or_init(|| prepare(&parsed, &PlanShapes::Concrete(shapes), self.model.quantizes));
        }
        let made = cell.get().expect("set above").clone();
        made.map_err(|detail| CalibError::Load { place: "optimising the graph".into(), detail })
    }

    /// The place of the plan for these shapes, which becomes the most recently used.
    fn plan_cell(&self, shapes: &Shapes) -> Arc<PlanCell> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = plans.iter().position(|(s, _)| s == shapes).map(|i| plans.remove(i));
        let entry = kept.unwrap_or_else(|| {
            if plans.len() >= KEPT_PLANS {
                plans.remove(0);
            }
            (shapes.clone(), Arc::default())
        });
        let cell = entry.1.clone();
        plans.push(entry);
        cell
    }
}

impl Session for TractSession {
    fn values(&self) -> &[String] {
        self.observed.values()
    }

    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        self.observed.hand_over(sample, self.compute(sample)?)
    }

    fn reads(&self, feed: &str) -> bool {
        self.model.inputs.iter().any(|input| input == feed) || self.observed.copies(feed)
    }

    fn prefers_grouping(&self) -> bool {
        self.groups
    }
}

impl TractSession {
    /// The values that the engine computes for a sample.
    fn compute(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        if self.observed.computed().is_empty() {
            return Ok(vec![]);
        }
        let inputs = fed(&self.model.inputs, sample)?;
        if let Some(plan) = &self.symbolic
            && let Ok(values) = guarded(|| run_plan(plan, &inputs))
        {
            return Ok(values);
        }
        let shapes: Shapes = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let plan = self.concrete_plan(&shapes)?;
        guarded(|| run_plan(&plan, &inputs)).map_err(|detail| failed(&self.model.inputs, &shapes, detail))
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
