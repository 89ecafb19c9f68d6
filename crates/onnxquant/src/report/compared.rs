//! How two models differ.

use std::path::Path;

use onnxquant_calib::Measurement;
use onnxquant_ir::external_files_of;
use onnxquant_passes::cpu::Cpu;
use serde::Serialize;

use crate::accuracy::Accuracy;
use crate::error::Error;
use crate::judge::compare::Compared;
use crate::judge::tensors::TensorComparison;
use crate::observe::engine::EngineReport;
use crate::report::outputs::OutputReport;
use crate::report::record::FileRecord;

/// How two models differ, as `compare` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    /// The model with which the other one is compared.
    pub first: FileRecord,
    /// The other one.
    pub second: FileRecord,
    /// What ran both.
    pub engine: EngineReport,
    /// Samples that were run.
    pub samples: usize,
    /// How exact the outputs of the second are, over all.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
    /// By output.
    pub outputs: Vec<OutputReport>,
    /// By tensor that both make, in the order in which the first makes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorFigures>,
    /// The class of this processor, where sums of products saturate on it that were told as exact.
    #[serde(skip)]
    pub saturates_here: Option<Cpu>,
}

/// How a tensor inside two models differs.
#[derive(Clone, Debug, Serialize)]
pub struct TensorFigures {
    /// What people call the node that makes it.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// The SQNR in dB of the least exact of what the node reads; `null` in JSON where nothing differs.
    pub before_db: f64,
    /// What it is called, and how it differs.
    #[serde(flatten)]
    pub tensor: OutputReport,
}

impl CompareReport {
    /// Of two files.
    ///
    /// # Errors
    /// A file cannot be read again for its hash.
    pub fn new(first: &Path, second: &Path, found: Compared) -> Result<Self, Error> {
        let record = |path: &Path| {
            let external = external_files_of(path);
            let external = external.map_err(|source| Error::Read { path: path.to_owned(), source })?;
            FileRecord::of(path, &external)
        };
        let samples = found.outputs.iter().map(|output| output.samples + output.incomparable).max().unwrap_or(0);
        Ok(Self {
            first: record(first)?,
            second: record(second)?,
            engine: found.engine,
            samples,
            accuracy: found.accuracy,
            outputs: found.outputs.iter().map(OutputReport::from).collect(),
            tensors: found.tensors.iter().map(TensorFigures::from).collect(),
            saturates_here: found.saturates_here,
        })
    }

    /// The tensors that lose most against what they are made of, the worst first: those that add most error power.
    pub fn where_it_enters(&self, most: usize) -> Vec<&TensorFigures> {
        let mut ranked: Vec<(f64, &TensorFigures)> = self
            .tensors
            .iter()
            .map(|tensor| (tensor.added_power(), tensor))
            .filter(|(power, _)| *power > 0.0)
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked.into_iter().take(most).map(|(_, tensor)| tensor).collect()
    }

    /// What is missed of an SQNR in dB and of a loss that were asked for, in words. What was not measured reaches nothing.
    pub fn missed(&self, min_sqnr_db: Option<f64>, max_loss: Option<f64>) -> Option<String> {
        if min_sqnr_db.is_none() && max_loss.is_none() {
            return None;
        }
        let found = match &self.accuracy {
            Measurement::Measured(found) => found,
            Measurement::NotMeasured(why) => {
                return Some(format!("the accuracy that is wanted was not measured: {why}"));
            }
        };
        let Accuracy { sqnr_db, loss, .. } = found;
        let sqnr = min_sqnr_db.filter(|wanted| sqnr_db.is_nan() || sqnr_db < wanted);
        let sqnr = sqnr.map(|wanted| format!("SQNR {sqnr_db:.2} dB, {wanted:.2} dB wanted"));
        let lost = max_loss.filter(|most| loss.is_nan() || loss > most);
        let lost = lost.map(|most| format!("loss {loss:.2e}, at most {most:.2e} wanted"));
        let parts: Vec<String> = sqnr.into_iter().chain(lost).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl TensorFigures {
    /// The power of the error, over that of the tensor, beyond that of what it is made of.
    fn added_power(&self) -> f64 {
        let power = |sqnr_db: f64| 10f64.powf(-sqnr_db / 10.0);
        let own = self.tensor.found.measured().map_or(0.0, |found| power(found.sqnr_db));
        if own.is_nan() { f64::INFINITY } else { own - power(self.before_db) }
    }
}

impl From<&TensorComparison> for TensorFigures {
    fn from(found: &TensorComparison) -> Self {
        let TensorComparison { label, op_type, before_db, found } = found;
        Self {
            label: label.clone(),
            op_type: op_type.clone(),
            before_db: *before_db,
            tensor: OutputReport::from(found),
        }
    }
}
