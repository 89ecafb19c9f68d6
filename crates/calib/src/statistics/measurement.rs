//! A figure that was measured, or why it was not.
//!
//! What nobody has looked at is neither good nor bad. A type that has a place for the reason keeps it from passing for
//! a perfect figure.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A figure, or why there is none.
///
/// In a report the figure stands as it is; where there is none, `not_measured` says why.
#[derive(Clone, Debug, PartialEq)]
pub enum Measurement<T> {
    /// What was found.
    Measured(T),
    /// Why nothing could be found.
    NotMeasured(NotMeasured),
}

/// Why something was not measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMeasured {
    /// There are no samples to run.
    NoSamples,
    /// It depends on a node that the engine cannot run.
    NotRun {
        /// The node.
        node: String,
    },
    /// The two networks give other shapes or types.
    Incomparable {
        /// Samples of which that holds.
        incomparable: usize,
        /// Samples in all.
        samples: usize,
    },
    /// It has no elements in any of the samples.
    NoElements {
        /// How many there are.
        samples: usize,
    },
    /// There is nothing that could be compared.
    NoOutputs,
    /// The engine fails on what computes it.
    Failed {
        /// Its message.
        problem: String,
    },
    /// ONNX Runtime did not load or run one of the files.
    Runtime {
        /// Its message, and of which file.
        problem: String,
    },
}

impl<T> Measurement<T> {
    /// The figure, where there is one.
    pub fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(found) => Some(found),
            Self::NotMeasured(_) => None,
        }
    }

    /// Why there is none, where that is so.
    pub fn why_not(&self) -> Option<&NotMeasured> {
        match self {
            Self::Measured(_) => None,
            Self::NotMeasured(why) => Some(why),
        }
    }

    /// What `of` makes of the figure.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Measurement<U> {
        match self {
            Self::Measured(found) => Measurement::Measured(of(found)),
            Self::NotMeasured(why) => Measurement::NotMeasured(why),
        }
    }
}

impl fmt::Display for NotMeasured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSamples => f.write_str("no samples were given"),
            Self::NotRun { node } => write!(f, "it depends on {node}, which the calibration engine cannot run"),
            Self::Incomparable { incomparable, samples } => {
                write!(
                    f,
                    "its shape follows from values, and differs from the float one in {incomparable} of {samples} samples"
                )
            }
            Self::NoElements { samples } => write!(f, "it has no elements in any of the {samples} samples"),
            Self::Failed { problem } | Self::Runtime { problem } => f.write_str(problem),
            Self::NoOutputs => {
                f.write_str("the calibration engine can compute nothing that depends on a quantized layer")
            }
        }
    }
}

impl<T: JsonSchema> JsonSchema for Measurement<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Measurement_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let none = json_schema!({
            "description": "Why there is no figure.",
            "type": "object",
            "properties": { "not_measured": { "type": "string" } },
            "required": ["not_measured"],
        });
        json_schema!({ "anyOf": [generator.subschema_for::<T>(), none] })
    }
}

impl<T: Serialize> Serialize for Measurement<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Measured(found) => found.serialize(serializer),
            Self::NotMeasured(why) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("not_measured", &why.to_string())?;
                map.end()
            }
        }
    }
}

/// Signal-to-quantization-noise ratio in dB.
pub(crate) fn sqnr_db(signal: f64, error: f64) -> f64 {
    if error == 0.0 { f64::INFINITY } else { 10.0 * (signal / error).log10() }
}
