//! The committed figures.
//!
//! They are those of processors with AVX-512 and count on others too, but where the order in which sums are rounded there
//! gives worse ones: such a case has a row for that class of processors behind its own.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use onnxquant_passes::cpu::Cpu;
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
pub struct Golden {
    rows: Vec<Row>,
    /// The class of this processor, unless it has AVX-512.
    class: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    case: Case,
    /// The processors of which this is, where it is not of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<String>,
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
        let class = class();
        if !path.exists() {
            return Ok(Self { rows: Vec::new(), class });
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let rows = serde_json::from_str(&text).with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(Self { rows, class })
    }

    /// The figures of a case on this processor.
    pub fn figures(&self, case: &Case) -> Option<&Figures> {
        let at = self.position(case, self.class.as_deref()).or_else(|| self.position(case, None))?;
        Some(&self.rows[at].figures)
    }

    fn position(&self, case: &Case, class: Option<&str>) -> Option<usize> {
        self.rows.iter().position(|row| row.case == *case && row.class.as_deref() == class)
    }

    /// Every case.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.rows.iter().filter(|row| row.class.is_none()).map(|row| &row.case)
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
        let new = |class: Option<String>, worse_because: Option<String>| Row {
            case: case.clone(),
            class,
            figures: figures.rounded(),
            worse_because,
        };
        let Some(of_all) = self.position(case, None) else { return self.rows.push(new(None, None)) };
        let own = self.position(case, self.class.as_deref());
        if self.class.is_some() && figures.worse_than(&self.rows[of_all].figures).is_empty() {
            // Nothing is to be said of this class alone.
            own.map(|at| self.rows.remove(at));
            return;
        }
        let reason = worse_because.map(str::to_owned);
        let Some(at) = own else { return self.rows.insert(of_all + 1, new(self.class.clone(), reason)) };
        let row = &self.rows[at];
        let reason = if !figures.worse_than(&row.figures).is_empty() {
            reason
        } else {
            row.worse_because.clone().filter(|_| figures.rounded() == row.figures)
        };
        self.rows[at] = new(self.class.clone(), reason);
    }

    /// Writes the committed file, a line a case.
    pub fn write(&self) -> anyhow::Result<()> {
        let rows = self.rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
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

/// The class of this processor, unless it has AVX-512, whose kernels the engine takes for all that have it.
fn class() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        return None;
    }
    Some(Cpu::native().to_string())
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
        Golden { rows: serde_json::from_str(&format!("[{ROW}]")).unwrap(), class: None }
    }

    /// The row of the file with other figures.
    fn found(change: impl Fn(&mut Figures)) -> Vec<(Case, Figures)> {
        let row: Row = serde_json::from_str(ROW).unwrap();
        let mut figures = row.figures;
        change(&mut figures);
        vec![(row.case, figures)]
    }

    fn text(golden: &Golden) -> String {
        serde_json::to_string(&golden.rows[0]).unwrap()
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

    #[test]
    fn a_class_of_processors_has_a_row_where_its_figures_are_worse() {
        let (mut golden, worse) = (golden(), found(|figures| figures.sqnr_db = 30.0));
        golden.class = Some("avx2".to_owned());
        golden.replace(&found(|figures| figures.sqnr_db += 3.0), None).unwrap();
        assert_eq!(text(&golden), ROW, "the row of all is not touched");
        assert!(golden.replace(&worse, None).is_err());
        golden.replace(&worse, Some("sums are rounded otherwise")).unwrap();
        assert_eq!((text(&golden).as_str(), golden.rows.len()), (ROW, 2));
        assert_eq!(golden.figures(&worse[0].0).unwrap().sqnr_db, 30.0);
        golden.class = None;
        assert_eq!(golden.figures(&worse[0].0).unwrap().sqnr_db, 38.73);
        golden.class = Some("avx2".to_owned());
        golden.replace(&found(|_| ()), None).unwrap();
        assert_eq!((text(&golden).as_str(), golden.rows.len()), (ROW, 1), "it is as good as all");
    }
}
