//! What the user asked for: grid, granularity, rule for the scale.

use crate::error::QuantError;
use crate::layer::grid::{Affine, Grid, Symmetry};
use crate::layer::pairs::PairRule;
use crate::layer::scale_type::{Rounding, ScaleType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The widest grid on which any two codes may stand side by side.
const FREE_PAIRS: Grid = Grid::new(-64, 64, 1, Symmetry::Symmetric);

/// Which weights share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// All weights of the layer.
    Tensor,
    /// All inputs of one neuron (output channel).
    Channel,
    /// This many consecutive inputs (along K) of one neuron.
    Block(usize),
}

/// As in settings: `tensor`, `channel`, `block:32`.
impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Granularity::Tensor => f.write_str("tensor"),
            Granularity::Channel => f.write_str("channel"),
            Granularity::Block(size) => write!(f, "block:{size}"),
        }
    }
}

impl FromStr for Granularity {
    type Err = QuantError;

    fn from_str(text: &str) -> Result<Granularity, QuantError> {
        match (text, text.strip_prefix("block:").map(str::parse)) {
            ("tensor", _) => Ok(Granularity::Tensor),
            ("channel", _) => Ok(Granularity::Channel),
            (_, Some(Ok(size))) if size >= 2 => Ok(Granularity::Block(size)),
            _ => Err(QuantError::Setting {
                what: "granularity",
                found: format!("`{text}`"),
                expected: "`tensor`, `channel` or `block:N` with N >= 2",
            }),
        }
    }
}

/// How a scale is chosen from the weights that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleRule {
    /// The largest weight lands on the grid's end.
    Max,
    /// The one of 14 shrunk ranges with the least squared error of the rounded
    /// weights, each weighted by its input's mean square where statistics exist.
    LeastSquares,
}

/// Everything a solver needs to know besides the matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QuantSpec {
    grid: Grid,
    granularity: Granularity,
    scale_rule: ScaleRule,
    scale_type: ScaleType,
    pairs: Option<PairRule>,
}

impl QuantSpec {
    /// Checks that a block holds at least one input.
    pub fn new(grid: Grid, granularity: Granularity, scale_rule: ScaleRule) -> Result<QuantSpec, QuantError> {
        if granularity == Granularity::Block(0) {
            return Err(QuantError::Setting { what: "block size", found: "0".into(), expected: "at least 1" });
        }
        Ok(QuantSpec { grid, granularity, scale_rule, scale_type: ScaleType::F32, pairs: None })
    }

    /// The codes that may be used.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Which weights share a scale.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// How scales are chosen.
    pub fn scale_rule(&self) -> ScaleRule {
        self.scale_rule
    }

    /// The same with another rule for the scale.
    pub fn with_scale_rule(self, scale_rule: ScaleRule) -> QuantSpec {
        QuantSpec { scale_rule, ..self }
    }

    /// The type in which scales are stored; `F32` unless stated otherwise.
    pub fn scale_type(&self) -> ScaleType {
        self.scale_type
    }

    /// The same with scales stored in another type.
    pub fn with_scale_type(self, scale_type: ScaleType) -> QuantSpec {
        QuantSpec { scale_type, ..self }
    }

    /// The pairs of inputs whose codes are bound to each other; none unless stated otherwise.
    pub fn pairs(&self) -> Option<&PairRule> {
        self.pairs.as_ref()
    }

    /// The same with codes that keep `rule`. Codes of up to 7 bits keep every such rule.
    ///
    /// # Errors
    /// Blocks, and codes with zero points.
    pub fn with_pairs(self, rule: PairRule) -> Result<QuantSpec, QuantError> {
        let plain = self.grid.alphabet().is_integers() && !self.grid.is_mirrored();
        let signed = self.grid.symmetry() == Symmetry::Symmetric && plain;
        if !signed || matches!(self.granularity, Granularity::Block(_)) {
            let found = format!("{:?} {}", self.grid.symmetry(), self.granularity);
            let expected = "integers without zero points, one scale a channel or tensor";
            return Err(QuantError::Setting { what: "grid of a pair rule", found, expected });
        }
        let (least, greatest) = (self.grid.min_code(), self.grid.max_code());
        let free = PairRule::allows(least, least) && PairRule::allows(greatest, greatest);
        Ok(QuantSpec { pairs: (!free).then_some(rule), ..self })
    }

    /// The same on a grid on which all pairs are free.
    pub(crate) fn with_free_pairs(self) -> QuantSpec {
        match self.pairs {
            Some(_) => QuantSpec { grid: FREE_PAIRS, pairs: None, ..self },
            None => self,
        }
    }

    /// The only way from a real scale to one that can be stored.
    pub(crate) fn affine(&self, scale: f64, zero_point: i16, rounding: Rounding) -> Affine {
        let above = self.grid.value(self.grid.max_code() - zero_point);
        let below = -self.grid.value(self.grid.min_code() - zero_point);
        let scale = self.scale_type.round(scale, rounding, above.max(below));
        Affine::exact(scale, zero_point, self.grid.alphabet())
    }

    /// Inputs per scale in a layer of `k` inputs.
    pub fn block_size(&self, k: usize) -> usize {
        match self.granularity {
            Granularity::Block(size) => size.min(k),
            Granularity::Tensor | Granularity::Channel => k,
        }
    }
}
