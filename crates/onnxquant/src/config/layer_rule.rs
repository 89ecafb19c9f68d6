//! What single layers get instead of what the others get, by name, operator or place.
//!
//! A rule is what stands in a table of TOML: `match = "*/mlp/*", bits = 4`. Where several rules match a layer the last one
//! holds.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};
use onnxquant_quant::{Alphabet, Granularity, Method};
use serde::{Serialize, Serializer};

use super::{Budget, Config};
use crate::error::Error;

/// What a rule can say.
const KEYS: [&str; 9] = ["name", "match", "op-type", "position", "scheme", "bits", "granularity", "method", "float"];
/// Weights that share a scale with the scheme `w4`.
const BLOCK: usize = 32;

/// The codes of some layers and how they are found, or that they stay in float.
#[derive(Clone, Debug)]
pub struct LayerRule {
    /// The name of one layer.
    name: Option<String>,
    /// The glob that names match.
    names: Option<GlobMatcher>,
    op_type: Option<String>,
    position: Option<Position>,
    treatment: Treatment,
}

/// A place among the layers that the rest of a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    First,
    Last,
    /// Counted from 1.
    At(usize),
}

/// What becomes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It has codes of its own.
    Codes(OwnCodes),
    /// It stays in float.
    Float,
}

/// The codes of a single layer, as far as they are not those of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnCodes {
    /// Bits a weight.
    pub(crate) bits: Option<u32>,
    /// Which weights share a scale.
    pub(crate) granularity: Option<Granularity>,
    pub(crate) method: Option<Method>,
}

/// What is wrong with a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct LayerRuleError {
    key: Option<String>,
    problem: String,
}

impl LayerRuleError {
    /// The key that it is about, as it stands there.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl fmt::Display for LayerRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for LayerRuleError {}

impl FromStr for LayerRule {
    type Err = LayerRuleError;

    fn from_str(text: &str) -> Result<Self, LayerRuleError> {
        let text = text.trim();
        let table = if text.starts_with('{') { text.to_owned() } else { format!("{{ {text} }}") };
        let whole: toml::Table = format!("rule = {table}").parse().map_err(|error: toml::de::Error| {
            let hint = "expected keys and values, for example `match = \"*/mlp/*\", bits = 4`";
            LayerRuleError { key: None, problem: format!("this is no rule: {}; {hint}", error.message()) }
        })?;
        match whole.get("rule") {
            Some(toml::Value::Table(table)) if whole.len() == 1 => Self::of_table(table),
            _ => Err(LayerRuleError { key: None, problem: "this is more than one rule".to_owned() }),
        }
    }
}

impl LayerRule {
    fn of_table(table: &toml::Table) -> Result<Self, LayerRuleError> {
        let (mut name, mut names, mut op_type, mut position, mut is_float) = (None, None, None, None, false);
        let mut own = OwnCodes::default();
        for (given, value) in table {
            let failed = |problem: String| LayerRuleError { key: Some(given.clone()), problem };
            let wanted = |what: &str| failed(format!("`{given}` of a layer is {what}, not {value}"));
            let key = given.replace('_', "-");
            match key.as_str() {
                "name" => name = Some(value.as_str().ok_or_else(|| wanted("the name of a layer"))?),
                "match" => {
                    let text = value.as_str().ok_or_else(|| wanted("a pattern of names"))?;
                    names = Some(Glob::new(text).map_err(|error| failed(format!("bad pattern: {error}")))?);
                }
                "op-type" => op_type = Some(value.as_str().ok_or_else(|| wanted("an operator such as \"Conv\""))?),
                "position" => {
                    let what = "\"first\", \"last\" or a number from 1 on";
                    position = Some(Position::of(value).ok_or_else(|| wanted(what))?);
                }
                "float" if value.as_bool() == Some(true) => is_float = true,
                "float" => return Err(wanted("true, or left out")),
                _ => own.read(&key, value, table).map_err(|what| match what {
                    Some(what) => wanted(what),
                    None => failed(unknown(given)),
                })?,
            }
        }
        let missing = |problem: &str| LayerRuleError { key: None, problem: problem.to_owned() };
        if name.is_none() && names.is_none() && op_type.is_none() && position.is_none() {
            return Err(missing("which layers are meant? give `name`, `match`, `op-type` or `position`"));
        }
        let treatment = match (is_float, own == OwnCodes::default()) {
            (true, true) => Treatment::Float,
            (true, false) => {
                let problem = "a layer has codes or is `float`, not both".to_owned();
                return Err(LayerRuleError { key: Some("float".to_owned()), problem });
            }
            (false, false) => Treatment::Codes(own),
            (false, true) => {
                let keys = "`scheme`, `bits`, `granularity`, `method` or `float = true`";
                return Err(missing(&format!("what do these layers get? give {keys}")));
            }
        };
        let names = names.map(|glob| glob.compile_matcher());
        Ok(Self { name: name.map(str::to_owned), names, op_type: op_type.map(str::to_owned), position, treatment })
    }

    /// The codes that it gives, none where layers stay in float.
    pub(crate) fn codes(&self) -> Option<OwnCodes> {
        match self.treatment {
            Treatment::Codes(own) => Some(own),
            Treatment::Float => None,
        }
    }

    /// Whether it names a method that needs samples.
    pub(crate) fn is_fitted(&self) -> bool {
        self.codes().and_then(|own| own.method).is_some_and(|method| method != Method::Msq)
    }

    /// The names of the layers that it is about.
    fn pick<'l>(&self, layers: &'l [NamedLayer]) -> Vec<&'l str> {
        let fits = |layer: &&NamedLayer| {
            self.name.as_ref().is_none_or(|name| *name == layer.label)
                && self.names.as_ref().is_none_or(|names| names.is_match(&layer.label))
                && self.op_type.as_ref().is_none_or(|op_type| *op_type == layer.op_type)
        };
        let mut fitting = layers.iter().filter(fits).map(|layer| layer.label.as_str());
        match self.position {
            None => fitting.collect(),
            Some(Position::First) => fitting.next().into_iter().collect(),
            Some(Position::Last) => fitting.next_back().into_iter().collect(),
            Some(Position::At(place)) => fitting.nth(place.saturating_sub(1)).into_iter().collect(),
        }
    }
}

impl OwnCodes {
    /// Takes the value of a key of `table`; else says what it should be, or nothing where there is no such key.
    fn read(&mut self, key: &str, value: &toml::Value, table: &toml::Table) -> Result<(), Option<&'static str>> {
        match key {
            "scheme" if table.contains_key("bits") => return Err(Some("left out beside `bits`")),
            "scheme" => match value.as_str() {
                Some("w8") => self.bits = Some(8),
                Some("w4") => {
                    self.bits = Some(4);
                    self.granularity = self.granularity.or(Some(Granularity::Block(BLOCK)));
                }
                _ => return Err(Some("\"w8\" or \"w4\": activations are about the whole model")),
            },
            "bits" => {
                let bits = value.as_integer().and_then(|bits| u32::try_from(bits).ok());
                self.bits = Some(bits.filter(|bits| (1..=8).contains(bits)).ok_or(Some("1 to 8"))?);
            }
            "granularity" => {
                let wanted = "\"tensor\", \"channel\" or \"block:N\"";
                self.granularity = Some(value.as_str().and_then(|text| text.parse().ok()).ok_or(Some(wanted))?);
            }
            "method" => {
                let wanted = "a method such as \"feedback\" or \"msq\"";
                self.method = Some(value.as_str().and_then(|text| text.parse().ok()).ok_or(Some(wanted))?);
            }
            _ => return Err(None),
        }
        Ok(())
    }
}

fn unknown(key: &str) -> String {
    let keys = KEYS.map(|key| format!("`{key}`")).join(", ");
    format!("no setting of single layers is called `{key}`: there are {keys}; all others are about the whole model")
}

impl Position {
    fn of(value: &toml::Value) -> Option<Self> {
        match (value.as_str(), value.as_integer()) {
            (Some("first"), _) => Some(Self::First),
            (Some("last"), _) => Some(Self::Last),
            (_, Some(place)) => usize::try_from(place).ok().filter(|&place| place > 0).map(Self::At),
            _ => None,
        }
    }
}

/// As it is given: `match = "*/mlp/*", bits = 4`.
impl fmt::Display for LayerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &str| toml::Value::String(text.to_owned());
        if let Some(name) = &self.name {
            write!(f, "name = {}, ", text(name))?;
        }
        if let Some(names) = &self.names {
            write!(f, "match = {}, ", text(names.glob().glob()))?;
        }
        if let Some(op_type) = &self.op_type {
            write!(f, "op-type = {}, ", text(op_type))?;
        }
        match self.position {
            None => {}
            Some(Position::First) => f.write_str("position = \"first\", ")?,
            Some(Position::Last) => f.write_str("position = \"last\", ")?,
            Some(Position::At(place)) => write!(f, "position = {place}, ")?,
        }
        let Treatment::Codes(OwnCodes { bits, granularity, method }) = self.treatment else {
            return f.write_str("float = true");
        };
        let of_bits = bits.map(|bits| format!("bits = {bits}"));
        let of_granularity = granularity.map(|shared| format!("granularity = {}", text(&shared.to_string())));
        let of_method = method.map(|method| format!("method = {}", text(&method.to_string())));
        let said: Vec<String> = [of_bits, of_granularity, of_method].into_iter().flatten().collect();
        f.write_str(&said.join(", "))
    }
}

impl Serialize for LayerRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A layer as rules see it.
#[derive(Clone, Debug)]
pub(crate) struct NamedLayer {
    pub(crate) label: String,
    pub(crate) op_type: String,
}

/// What rules make of the layers of a model.
#[derive(Default)]
pub(crate) struct Ruled<'a> {
    rules: &'a [LayerRule],
    /// The layers that each rule matches.
    matched: Vec<Vec<String>>,
    /// Which rule holds, by the name of the layer.
    holding: HashMap<String, usize>,
}

impl<'a> Ruled<'a> {
    /// `layers` are those that would be quantized without the rules, in their order.
    pub(crate) fn new(rules: &'a [LayerRule], layers: &[NamedLayer]) -> Self {
        let mut ruled = Self { rules, ..Self::default() };
        for (at, rule) in rules.iter().enumerate() {
            let labels: Vec<String> = rule.pick(layers).into_iter().map(str::to_owned).collect();
            ruled.holding.extend(labels.iter().map(|label| (label.clone(), at)));
            ruled.matched.push(labels);
        }
        ruled
    }

    /// What becomes of a layer, where a rule says it.
    pub(crate) fn treatment(&self, label: &str) -> Option<Treatment> {
        Some(self.rules.get(*self.holding.get(label)?)?.treatment)
    }

    /// The rules that match no layer; one of codes matches layers that get codes of their own alone, which are `quantized`.
    pub(crate) fn unmatched<'l>(&self, quantized: impl Iterator<Item = &'l str>) -> Vec<String> {
        let quantized: HashSet<&str> = quantized.collect();
        let is_idle = |(at, rule): &(usize, &LayerRule)| {
            let holds = |label: &String| self.holding.get(label) == Some(at);
            let works = |label: &String| rule.codes().is_none() || !holds(label) || quantized.contains(label.as_str());
            !self.matched.get(*at).is_some_and(|labels| labels.iter().any(works))
        };
        self.rules.iter().enumerate().filter(is_idle).map(|(_, rule)| format!("--layer '{rule}'")).collect()
    }
}

impl Config {
    /// Refuses forms of codes of single layers beside what says all bits.
    pub(super) fn check_layer_rules(&self) -> Result<(), Error> {
        let names_form = |own: OwnCodes| own.bits.is_some() || own.granularity.is_some();
        let Some(rule) = self.layer_rules.iter().find(|rule| rule.codes().is_some_and(names_form)) else {
            return Ok(());
        };
        let why = match (self.budget, &self.plan, self.alphabet) {
            (Some(Budget::AverageBits(_)), _, _) => "--average-bits chooses the bits of every layer",
            (Some(Budget::TargetBytes(_)), _, _) => "--target-size chooses the bits of every layer",
            (Some(Budget::MinSqnrDb(_)), _, _) => {
                "--min-sqnr chooses the bits of every layer where activations stay floats"
            }
            (None, Some(_), _) => "--plan says the bits of every layer",
            (None, None, Alphabet::E4m3) => "FP8 weights have 8 bits in every layer",
            (None, None, Alphabet::Integers) => return Ok(()),
        };
        let remedy = "leave one out, or let the layers stay in float: `float = true`";
        Err(Error::Usage(format!("`--layer '{rule}'`: {why}: {remedy}")))
    }
}

#[cfg(test)]
#[path = "layer_rule_tests.rs"]
mod tests;
