//! The methods by name.

use crate::error::QuantError;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Where the walls of the paper's kernel walk stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Saturation {
    /// At the largest weight: nothing to tune.
    #[default]
    Max,
    /// At the smallest value that still reproduces the layer on the data
    /// (the solution of least maximum norm).
    Min,
}

/// A way to turn weights into codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Memoryless scalar quantization: the nearest level of every weight.
    Msq,
    /// Kernel walk to the grid's ends, then nearest level.
    MalySaab {
        /// Where the grid's ends stand.
        saturation: Saturation,
    },
    /// Kernel walk inside each weight's quantization cell, then nearest level.
    CellWalk,
    /// Greedy path following: each weight is rounded so that the output's running error stays small.
    Gpfq,
    /// Error feedback along the Cholesky factor of the inputs' covariance.
    Optq,
    /// Error feedback towards the float network's outputs, with scales and codes refined in turn.
    Feedback,
    /// The same from weights of which those beyond the grid were pinned to its ends first.
    Saturate,
}

impl Method {
    /// Every method, in the order in which they are documented.
    pub const ALL: [Method; 8] = [
        Method::Msq,
        Method::MalySaab { saturation: Saturation::Max },
        Method::MalySaab { saturation: Saturation::Min },
        Method::CellWalk,
        Method::Gpfq,
        Method::Optq,
        Method::Feedback,
        Method::Saturate,
    ];

    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Method::Msq => "msq",
            Method::MalySaab { saturation: Saturation::Max } => "maly-saab",
            Method::MalySaab { saturation: Saturation::Min } => "maly-saab-min",
            Method::CellWalk => "cell-walk",
            Method::Gpfq => "gpfq",
            Method::Optq => "optq",
            Method::Feedback => "feedback",
            Method::Saturate => "saturate",
        }
    }

    /// Whether the method walks in the kernel of the data.
    pub fn walks(self) -> bool {
        matches!(self, Method::MalySaab { .. } | Method::CellWalk)
    }

    /// Whether the method measures errors by the Gram matrix of the inputs, and so needs it.
    pub fn is_quadratic(self) -> bool {
        matches!(self, Method::Gpfq | Method::Optq | Method::Feedback | Method::Saturate)
    }

    /// Whether the method finds the scales itself, from wherever the specification's rule would put them.
    pub fn fits_scales(self) -> bool {
        matches!(self, Method::Feedback | Method::Saturate)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = QuantError;

    fn from_str(name: &str) -> Result<Method, QuantError> {
        Method::ALL.into_iter().find(|method| method.name() == name).ok_or_else(|| QuantError::Setting {
            what: "method",
            found: format!("`{name}`"),
            expected: "`msq`, `maly-saab`, `maly-saab-min`, `cell-walk`, `gpfq`, `optq`, `feedback` or `saturate`",
        })
    }
}

impl JsonSchema for Method {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Method::ALL.map(Method::name) })
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_to_their_method() {
        for method in Method::ALL {
            assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
        }
        let error = "gptq".parse::<Method>().unwrap_err().to_string();
        assert!(error.contains("`gptq`") && error.contains("cell-walk"));
    }
}
