//! Which layers are quantized, by their names.

use std::collections::BTreeSet;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::layer_rule::{OwnCodes, Ruled, Treatment};
use crate::error::Error;

/// The layers that `include`, `exclude` and rules of layers leave.
pub(crate) struct Selection<'a> {
    include: GlobSet,
    exclude: GlobSet,
    /// The globs as they are given.
    given: [&'a [String]; 2],
    ruled: Ruled<'a>,
}

impl<'a> Selection<'a> {
    pub(crate) fn new(include: &'a [String], exclude: &'a [String]) -> Result<Self, Error> {
        let given = [include, exclude];
        Ok(Self { include: globs(include)?, exclude: globs(exclude)?, given, ruled: Ruled::default() })
    }

    /// The same with rules for single layers.
    pub(crate) fn with_rules(self, ruled: Ruled<'a>) -> Self {
        Self { ruled, ..self }
    }

    /// The options whose globs match none of these layers.
    pub(crate) fn unmatched<'l>(&self, labels: impl Iterator<Item = &'l str>) -> Vec<String> {
        let [included, excluded] = self.given;
        let mut left = [(0..included.len()).collect::<BTreeSet<usize>>(), (0..excluded.len()).collect()];
        for label in labels {
            for (set, left) in [&self.include, &self.exclude].into_iter().zip(&mut left) {
                set.matches(label).iter().for_each(|at| {
                    left.remove(at);
                });
            }
        }
        let options = ["--include", "--exclude"].into_iter().zip(self.given).zip(left);
        let named = |((option, globs), left): ((&str, &[String]), BTreeSet<usize>)| -> Vec<String> {
            left.into_iter().filter_map(|at| Some(format!("{option} {}", globs.get(at)?))).collect()
        };
        options.flat_map(named).collect()
    }

    /// The rules that match none of these layers, which have codes of their own.
    pub(crate) fn unmatched_rules<'l>(&self, quantized: impl Iterator<Item = &'l str>) -> Vec<String> {
        self.ruled.unmatched(quantized)
    }

    pub(crate) fn contains(&self, label: &str) -> bool {
        let is_left = self.exclude.is_match(label) || self.ruled.treatment(label) == Some(Treatment::Float);
        (self.given[0].is_empty() || self.include.is_match(label)) && !is_left
    }

    /// What rules say of the codes of a layer.
    pub(crate) fn own_codes(&self, label: &str) -> OwnCodes {
        match self.ruled.treatment(label) {
            Some(Treatment::Codes(own)) => own,
            Some(Treatment::Float) | None => OwnCodes::default(),
        }
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, Error> {
    let bad = |error: globset::Error| Error::Usage(format!("bad pattern: {error}"));
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(Glob::new(pattern).map_err(bad)?);
    }
    builder.build().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_that_match_nothing_are_told_with_their_option() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
        let (include, exclude) = (words(&["a*", "b", "c?"]), words(&["b", "zz"]));
        let selection = Selection::new(&include, &exclude).unwrap();
        assert_eq!(selection.unmatched(["ab", "b"].into_iter()), ["--include c?", "--exclude zz"]);
        assert!(selection.contains("ab") && !selection.contains("b") && !selection.contains("d"));
        let all = Selection::new(&[], &[]).unwrap();
        assert!(all.contains("d") && all.unmatched(std::iter::empty()).is_empty());
    }
}
