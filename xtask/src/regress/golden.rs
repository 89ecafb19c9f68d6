//! The committed figures.

use std::path::PathBuf;

use anyhow::{Context, ensure};
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
    /// Why worse figures than those before were accepted; stays as long as the figures do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worse_because: Option<String>,
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

    /// Takes over what was found; what is worse than before by more than the margins only with a reason.
    ///
    /// # Errors
    /// Something is worse and there is no reason. Nothing is taken over then.
    pub fn replace(&mut self, found: &[(Case, Figures)], worse_because: Option<&str>) -> anyhow::Result<()> {
        let worse = |(case, figures): &(Case, Figures)| {
            let worse = figures.worse_than(self.figures(case)?).join(", ");
            (!worse.is_empty()).then(|| format!("{}: {worse}", case.name()))
        };
        let worse = found.iter().filter_map(worse).collect::<Vec<_>>();
        ensure!(
            worse.is_empty() || worse_because.is_some(),
            "worse figures are not accepted without `--worse-because TEXT`:\n  {}",
            worse.join("\n  ")
        );
        found.iter().for_each(|(case, figures)| self.put(case, figures, worse_because));
        Ok(())
    }

    fn put(&mut self, case: &Case, figures: &Figures, worse_because: Option<&str>) {
        let mut new = Row { case: case.clone(), figures: figures.rounded(), worse_because: None };
        let Some(row) = self.0.iter_mut().find(|row| row.case == *case) else { return self.0.push(new) };
        if !figures.worse_than(&row.figures).is_empty() {
            new.worse_because = worse_because.map(str::to_owned);
        } else if new.figures == row.figures {
            new.worse_because = row.worse_because.take();
        }
        *row = new;
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"fixture":"digits_mlp","method":"msq","bits":8,"accuracy":0.9924,"float_accuracy":0.9924,"sqnr_db":38.73,"bytes":20576,"worst_error":0.00954}"#;

    fn golden() -> Golden {
        Golden(serde_json::from_str(&format!("[{ROW}]")).unwrap())
    }

    /// The row of the file with other figures.
    fn found(change: impl Fn(&mut Figures)) -> Vec<(Case, Figures)> {
        let row: Row = serde_json::from_str(ROW).unwrap();
        let mut figures = row.figures;
        change(&mut figures);
        vec![(row.case, figures)]
    }

    fn text(golden: &Golden) -> String {
        serde_json::to_string(&golden.0[0]).unwrap()
    }

    #[test]
    fn worse_figures_need_a_reason_which_stays_beside_them() {
        let worse = [
            found(|figures| figures.sqnr_db -= 0.6),
            found(|figures| figures.accuracy -= 0.01),
            found(|figures| figures.bytes += 300),
            found(|figures| figures.faults.push("error above its bound".to_owned())),
        ];
        for worse in worse {
            let mut golden = golden();
            let refusal = golden.replace(&worse, None).unwrap_err().to_string();
            assert!(refusal.contains("--worse-because") && refusal.contains("digits_mlp msq 8: "), "{refusal}");
            assert_eq!(text(&golden), ROW, "nothing is taken over");
            golden.replace(&worse, Some("blocks are larger")).unwrap();
            assert!(text(&golden).contains(r#""worse_because":"blocks are larger""#), "{}", text(&golden));
        }
    }

    #[test]
    fn a_reason_goes_with_the_figures_that_it_was_given_for() {
        let (mut golden, worse) = (golden(), found(|figures| figures.sqnr_db = 30.0));
        golden.replace(&worse, Some("a reason")).unwrap();
        golden.replace(&worse, None).unwrap();
        assert!(text(&golden).contains("a reason"), "the same figures");
        golden.replace(&found(|_| ()), Some("no need of one")).unwrap();
        assert_eq!(text(&golden), ROW, "better ones");
    }
}
