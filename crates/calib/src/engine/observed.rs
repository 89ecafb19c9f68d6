//! Which of the values asked for an engine computes, and which a sample has already.

use super::contract::{Feed, Shapes};
use crate::data::Sample;
use crate::error::CalibError;
use crate::tensor::Tensor;

/// The values that a session hands over.
#[derive(Debug)]
pub(super) struct Observed {
    values: Vec<String>,
    origins: Vec<Origin>,
    /// The distinct ones that the engine computes.
    computed: Vec<String>,
}

/// Where an observed value comes from.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// An input of the graph: the sample itself has it.
    Sample(usize),
    /// An output of the engine.
    Engine(usize),
}

impl Observed {
    pub(super) fn new(values: &[String], feeds: &[Feed]) -> Self {
        let mut computed: Vec<String> = Vec::new();
        let origin = |value: &String| match feeds.iter().position(|feed| feed.name == *value) {
            Some(input) => Origin::Sample(input),
            None => Origin::Engine(computed.iter().position(|c| c == value).unwrap_or_else(|| {
                computed.push(value.clone());
                computed.len() - 1
            })),
        };
        let origins = values.iter().map(origin).collect();
        Self { values: values.to_vec(), origins, computed }
    }

    pub(super) fn values(&self) -> &[String] {
        &self.values
    }

    pub(super) fn computed(&self) -> &[String] {
        &self.computed
    }

    /// All values, of which the engine has computed those that it computes.
    pub(super) fn hand_over(&self, sample: &Sample, computed: Vec<Tensor>) -> Result<Vec<Tensor>, CalibError> {
        let mut computed: Vec<Option<Tensor>> = computed.into_iter().map(Some).collect();
        let mut values = Vec::with_capacity(self.origins.len());
        for (position, origin) in self.origins.iter().enumerate() {
            let later = &self.origins[position + 1..];
            values.push(match *origin {
                Origin::Sample(input) => sample.get(input).map(|(_, tensor)| tensor.clone()),
                // A value asked for twice is handed over the second time.
                Origin::Engine(k) if later.iter().any(|o| matches!(o, Origin::Engine(l) if *l == k)) => {
                    computed.get(k).cloned().flatten()
                }
                Origin::Engine(k) => computed.get_mut(k).and_then(Option::take),
            });
        }
        let complete: Option<Vec<Tensor>> = values.into_iter().collect();
        complete.ok_or_else(|| CalibError::BadModel("a sample lacks one of its inputs".into()))
    }

    /// Whether a value of the sample is handed over as it is.
    pub(super) fn copies(&self, feed: &str) -> bool {
        let mut observes = self.values.iter().zip(&self.origins);
        observes.any(|(value, origin)| matches!(origin, Origin::Sample(_)) && value == feed)
    }
}

/// The sample's values of these names.
pub(super) fn fed<'a>(inputs: &[String], sample: &'a Sample) -> Result<Vec<&'a Tensor>, CalibError> {
    let find = |name: &String| sample.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
    let missing = |name: &String| CalibError::BadModel(format!("the sample has no value for input `{name}`"));
    inputs.iter().map(|name| find(name).ok_or_else(|| missing(name))).collect()
}

/// What a run on these inputs failed with.
pub(super) fn failed(inputs: &[String], shapes: &Shapes, detail: String) -> CalibError {
    let words: Vec<String> = inputs.iter().zip(shapes).map(|(name, shape)| format!("`{name}` {shape:?}")).collect();
    CalibError::Run { sample: format!("a sample with inputs {}", words.join(", ")), detail }
}
