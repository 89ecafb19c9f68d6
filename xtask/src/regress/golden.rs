//! The committed figures.

use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::measure::{Case, Figures};
use crate::process;

/// Half a point, up to 2 of 397 samples, and what rounding to 4 digits adds.
const ACCURACY_MARGIN: f64 = 0.005 + 1e-4;
/// Accuracies below this are luck; SQNR alone is compared then.
const LEAST_ACCURACY: f64 = 0.5;
/// Other processors round sums differently, which may tip a code.
const SQNR_MARGIN_DB: f64 = 0.5;
/// Names and metadata may grow a little.
const SIZE_MARGIN: f64 = 0.01;

/// Figures by case, in the order of the table.
pub struct Golden(Vec<Row>);

#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    case: Case,
    #[serde(flatten)]
    figures: Figures,
}

impl Golden {
    /// Reads the committed file; empty where there is none.
    pub fn read() -> anyhow::Result<Self> {
        let path = path();
        if !path.exists() {
            return Ok(Self(Vec::new()));
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(Self(serde_json::from_str(&text).with_context(|| format!("cannot read `{}`", path.display()))?))
    }

    /// The figures of a case.
    pub fn figures(&self, case: &Case) -> Option<&Figures> {
        self.0.iter().find(|row| row.case == *case).map(|row| &row.figures)
    }

    /// Every case.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.0.iter().map(|row| &row.case)
    }

    /// Takes over what was found.
    pub fn replace(&mut self, found: &[(Case, Figures)]) {
        for (case, figures) in found {
            let new = Row { case: case.clone(), figures: figures.rounded() };
            match self.0.iter_mut().find(|row| row.case == *case) {
                Some(row) => *row = new,
                None => self.0.push(new),
            }
        }
    }

    /// Writes the committed file, a line a case.
    pub fn write(&self) -> anyhow::Result<()> {
        let rows = self.0.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let path = path();
        let text = format!("[\n{}\n]\n", rows.join(",\n"));
        std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        println!("{} cases in `{}`", rows.len(), path.display());
        Ok(())
    }
}

fn path() -> PathBuf {
    process::root().join("fixtures/golden/regress.json")
}

impl Figures {
    /// In what these figures are worse than `before` by more than the margins, and what is wrong in any case.
    pub fn worse_than(&self, before: &Figures) -> Vec<String> {
        let mut worse = Vec::new();
        if before.accuracy >= LEAST_ACCURACY && self.accuracy < before.accuracy - ACCURACY_MARGIN {
            worse.push(format!("accuracy {:.4} was {:.4}", self.accuracy, before.accuracy));
        }
        if self.sqnr_db < before.sqnr_db - SQNR_MARGIN_DB {
            worse.push(format!("SQNR {:.2} dB was {:.2} dB", self.sqnr_db, before.sqnr_db));
        }
        if self.bytes as f64 > before.bytes as f64 * (1.0 + SIZE_MARGIN) {
            worse.push(format!("{} bytes were {}", self.bytes, before.bytes));
        }
        worse.extend(self.faults.iter().cloned());
        worse
    }

    /// A row of the table, with differences from `before`.
    pub fn row(&self, before: Option<&Figures>) -> String {
        let sqnr_change = before.map_or(0.0, |before| self.sqnr_db - before.sqnr_db);
        let size_change = before.map_or(0.0, |before| 100.0 * (self.bytes as f64 / before.bytes as f64 - 1.0));
        format!(
            "{:>9.4}{:>9.4}{:>8.2} ({sqnr_change:>+6.2}){:>8} ({size_change:>+5.1}%){:>9.4}",
            self.accuracy, self.float_accuracy, self.sqnr_db, self.bytes, self.worst_error
        )
    }
}
