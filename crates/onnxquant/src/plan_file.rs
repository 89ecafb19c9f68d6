//! Bits of every layer in a file that people can read and edit (`--save-plan`, `--plan`).
//!
//! ```toml
//! granularity = "block:32"
//! symmetric = true
//!
//! [[layer]]
//! name = "/encoder/layer.0/query"
//! bits = 4
//! ```
//!
//! Bits are chosen for the settings they stand with; these are used again with them. It is a configuration file of the
//! command, too; read as a plan it holds nothing else, and every layer that is to be quantized has to be listed, and no other.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use onnxquant_quant::{Granularity, Symmetry};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Bits of every layer, and the settings for which they were chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    #[serde(with = "as_text")]
    granularity: Granularity,
    /// One of the two is true.
    #[serde(default, skip_serializing_if = "is_false")]
    symmetric: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    asymmetric: bool,
    #[serde(rename = "layer", default)]
    layers: Vec<LayerBits>,
    /// Where it was read.
    #[serde(skip)]
    path: PathBuf,
}

fn is_false(switch: &bool) -> bool {
    !switch
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerBits {
    name: String,
    bits: u32,
}

impl PlanFile {
    /// Bits by the name of the layer, for these settings.
    pub(crate) fn new(
        granularity: Granularity,
        symmetry: Symmetry,
        layers: impl Iterator<Item = (String, u32)>,
    ) -> Self {
        let layers = layers.map(|(name, bits)| LayerBits { name, bits }).collect();
        let (symmetric, asymmetric) = (symmetry == Symmetry::Symmetric, symmetry == Symmetry::Asymmetric);
        Self { granularity, symmetric, asymmetric, layers, path: PathBuf::new() }
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |problem: String| Error::Plan { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::of_text(&text, path)
    }

    /// What stands in a file at `path`.
    pub(crate) fn of_text(text: &str, path: &Path) -> Result<Self, Error> {
        let failed = |problem: String| Error::Plan { path: path.to_owned(), problem };
        let plan: Self = toml::from_str(text).map_err(|error| failed(error.to_string().trim_end().to_owned()))?;
        if plan.symmetric == plan.asymmetric {
            return Err(failed("expected either `symmetric = true` or `asymmetric = true`".to_owned()));
        }
        let mut names = HashSet::new();
        for LayerBits { name, bits } in &plan.layers {
            if !(1..=8).contains(bits) {
                return Err(failed(format!("layer `{name}` has {bits} bits, expected 1 to 8")));
            }
            if !names.insert(name) {
                return Err(failed(format!("layer `{name}` is listed twice")));
            }
        }
        Ok(Self { path: path.to_owned(), ..plan })
    }

    /// What stands in the file.
    pub fn text(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::Internal(error.to_string()))
    }

    /// The file that was read; empty for a plan that was not.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Which weights share a scale.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Whether zero points are used.
    pub fn symmetry(&self) -> Symmetry {
        if self.symmetric { Symmetry::Symmetric } else { Symmetry::Asymmetric }
    }

    /// The bits of a layer; an error where it is not listed.
    pub(crate) fn bits_of(&self, label: &str) -> Result<u32, Error> {
        let found = self.layers.iter().find(|layer| layer.name == label).map(|layer| layer.bits);
        found.ok_or_else(|| {
            self.failed(format!(
                "it does not say how many bits layer `{label}` gets; list it, or leave it out (--exclude)"
            ))
        })
    }

    /// Refuses a plan with layers that are not among those to be quantized.
    pub(crate) fn check_names<'a>(&self, labels: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let known: HashSet<&str> = labels.collect();
        match self.layers.iter().find(|layer| !known.contains(layer.name.as_str())) {
            Some(layer) => Err(self.failed(format!(
                "no layer `{}` would be quantized in this model; `onnxquant inspect` lists all",
                layer.name
            ))),
            None => Ok(()),
        }
    }

    fn failed(&self, problem: String) -> Error {
        Error::Plan { path: self.path.clone(), problem }
    }
}

/// A granularity as the command line has it.
mod as_text {
    use onnxquant_quant::Granularity;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(granularity: &Granularity, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(granularity)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Granularity, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PlanFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text).unwrap();
        PlanFile::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(32)] {
            let layers = [("a \"b\"".to_owned(), 2), ("/c/d".to_owned(), 8)];
            let plan = PlanFile::new(granularity, Symmetry::Asymmetric, layers.into_iter());
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("plan.toml");
            std::fs::write(&path, plan.text().unwrap()).unwrap();
            let found = PlanFile::read(&path).unwrap();
            assert_eq!((found.granularity(), found.symmetry()), (granularity, Symmetry::Asymmetric));
            assert_eq!(found.layers, plan.layers);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let head = "granularity = \"channel\"\nsymmetric = true\n";
        let layer = |name: &str, bits: u32| format!("[[layer]]\nname = \"{name}\"\nbits = {bits}\n");
        let cases = [
            (format!("{head}{}", layer("a", 9)), "layer `a` has 9 bits"),
            (format!("{head}{}{}", layer("a", 4), layer("a", 4)), "`a` is listed twice"),
            (head.replace("channel", "block:1"), "block:N"),
            (head.replace("true", "false"), "either `symmetric"),
            (format!("{head}asymmetric = true\n"), "either `symmetric"),
            (format!("{head}colour = 3\n"), "colour"),
            ("not toml".to_owned(), "plan.toml"),
        ];
        for (text, expected) in cases {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "`{expected}` not in {error}");
        }
    }

    #[test]
    fn layers_missing_or_unknown_are_named() {
        let head = "granularity = \"channel\"\nsymmetric = true\n";
        let plan = read(&format!("{head}[[layer]]\nname = \"a\"\nbits = 3\n")).unwrap();
        assert_eq!(plan.bits_of("a").unwrap(), 3);
        assert!(plan.bits_of("b").unwrap_err().to_string().contains("`b`"));
        assert!(plan.check_names(["a", "b"].into_iter()).is_ok());
        assert!(plan.check_names(["b"].into_iter()).unwrap_err().to_string().contains("no layer `a`"));
    }
}
