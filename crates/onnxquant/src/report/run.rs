//! What a run did.

use std::collections::BTreeMap;

use onnxquant_calib::{DataReport, Measurement, NotMeasured};
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::raise_type::RaisedType;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accuracy::{Accuracy, TokenFigures};
use crate::attempt::Solved;
use crate::config::{Budget, Config};
use crate::error::Error;
use crate::judge::metered::Metered;
use crate::judge::verify_ort::VerifiedOrt;
use crate::load::Prepared;
use crate::observe::engine::EngineReport;
use crate::observe::seen::Seen;
use crate::observe::texts::TextReport;
use crate::plan::float_weights::FloatWeight;
use crate::plan::tables::PlannedTable;
use crate::plan_file::PlanFile;
use crate::report::caches::KvCacheReport;
use crate::report::curve::BudgetReport;
use crate::report::folder::FolderReport;
use crate::report::integers::IntegerReport;
use crate::report::layers::{LayerReport, certificates_summary};
use crate::report::measured::Measured;
use crate::report::metric::MetricReport;
use crate::report::not_run::NotRun;
use crate::report::outcome::Outcome;
use crate::report::outputs::{HeldOut, OutputReport, not_measured};
use crate::report::record::{FileRecords, RunRecord};
use crate::report::skipped::SkippedReport;
use crate::report::spine::SpineNode;
use crate::report::tables::TableReport;
use crate::write::codes::{QuantizedBody, QuantizedTable};
use crate::write::file::Metadata;
use crate::write::written::Written;

/// Version of the form of reports.
pub(crate) const SCHEMA_VERSION: u32 = 1;
/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The whole report, as written by `--report`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Version of this form of reports: it grows when a field goes or means something else, not when one is added.
    pub schema_version: u32,
    /// Version of this program.
    pub version: &'static str,
    /// How the run went: what differs although model, samples and settings are the same.
    pub run: RunRecord,
    /// The files that were read and written.
    pub files: FileRecords,
    /// Whether that is what was asked for, and what to do next.
    pub outcome: Outcome,
    /// The settings.
    pub settings: Config,
    /// What ran the float model on samples; absent without calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineReport>,
    /// What was done to samples; absent without calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataReport>,
    /// Samples that were made of texts, where they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub texts: Option<TextReport>,
    /// What may cost accuracy and can be helped, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was copied beside the model, where a folder was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderReport>,
    /// What is computed in f32 though the model has another type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised_type: Option<RaisedTypeReport>,
    /// What was done before quantization.
    pub prepared: Prepared,
    /// Quantized layers, in topological order.
    pub layers: Vec<LayerReport>,
    /// Layers left in float.
    pub skipped: Vec<SkippedReport>,
    /// Options that select layers by name and match none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
    /// Every weight that is stored as floats, of all operators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub float_weights: Vec<FloatWeight>,
    /// Quantized tables of embeddings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<TableReport>,
    /// Quantized weights that are decoded as a whole: of recurrent layers, products of several matrices and attention.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub whole_weights: Vec<TableReport>,
    /// Caches of a decoder that are codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvCacheReport>,
    /// What runs on integers, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integers: Option<IntegerReport>,
    /// What bits buy, where they were chosen layer by layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetReport>,
    /// Layers of the main graph with what lies between them, in the order in which they run.
    pub spine: Vec<SpineNode>,
    /// Processors on which no integer layer saturates.
    pub exact_on: Vec<Cpu>,
    /// How many times as fast as in float the file is expected to be, by class of processors, from measured times of
    /// operators; absent where these do not tell.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub expected_speed: BTreeMap<Cpu, f64>,
    /// Opset of the written model.
    pub opset: i64,
    /// Operators rewritten to reach that opset.
    pub opset_changes: Vec<String>,
    /// Calibration samples and how the result does on those held out; absent without calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// The same as ONNX Runtime computes it; absent where that is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The user's own figure, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricReport>,
    /// What the calibration engine could not run, where there was something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_run: Option<NotRun>,
    /// What ONNX Runtime made of the written file, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<VerifiedOrt>,
    /// Bytes of the input model, external data included.
    pub bytes_before: u64,
    /// Bytes of the written model, external data included.
    pub bytes_after: u64,
}

/// What is computed in f32 though the model has another type.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RaisedTypeReport {
    /// The type, as ONNX names it.
    pub from: &'static str,
    /// Tensors that had it.
    pub tensors: usize,
}

impl From<&RaisedType> for RaisedTypeReport {
    fn from(raised: &RaisedType) -> Self {
        Self { from: raised.from.as_str_name(), tensors: raised.tensors.len() }
    }
}

/// What a report is made of.
pub(crate) struct Run<'a> {
    pub(crate) config: &'a Config,
    pub(crate) seen: Seen,
    pub(crate) prepared: Prepared,
    pub(crate) opset_changes: Vec<String>,
    pub(crate) solved: Solved,
    pub(crate) layers: Vec<LayerReport>,
    pub(crate) bodies: Vec<Written>,
    pub(crate) not_run: Option<NotRun>,
    pub(crate) metered: Option<Metered>,
    pub(crate) verified: Option<VerifiedOrt>,
    pub(crate) record: RunRecord,
    pub(crate) files: FileRecords,
}

/// What is said where no sample begins at the first token of a text.
const STARTS_LATE: &str = "the caches are empty in no sample, so that no layer sees the first token of a text, which \
                           attention needs to be exact: add samples that begin there, or give --calib a file of texts";

impl Seen {
    /// What may cost accuracy and can be helped.
    fn warnings(&self) -> impl Iterator<Item = String> {
        let of_data = self.data.iter().flat_map(|data| data.warnings.iter().cloned());
        of_data.chain(self.starts_late.then(|| STARTS_LATE.to_owned()))
    }
}

impl From<Run<'_>> for Report {
    fn from(run: Run<'_>) -> Self {
        let Run { config, layers, solved: Solved { model, solution, tables, bodies, cache }, .. } = run;
        let warnings = run.seen.warnings().collect();
        let tables = tables.iter().chain(bodies.codes.iter().flat_map(QuantizedBody::all_tables));
        let table_bytes = run.bodies.iter().flat_map(|body| &body.table_bytes);
        let of_tables = solution.plan.all_tables().into_iter().zip(tables);
        let of_tables = of_tables.zip(solution.fitted.table_bytes.iter().chain(table_bytes));
        let (embeddings, whole_weights) = of_tables.partition::<Vec<_>, _>(|((planned, _), _)| planned.is_embedding());
        let reports = |found: Vec<((&PlannedTable, &QuantizedTable), &usize)>| {
            found.into_iter().map(|((planned, table), &bytes)| TableReport::new(planned, table, bytes)).collect()
        };
        let report = Self {
            schema_version: SCHEMA_VERSION,
            version: VERSION,
            run: run.record,
            outcome: Outcome::default(),
            spine: SpineNode::all(model.graph(), &solution.plan, &solution.assignment),
            budget: solution.curve.map(BudgetReport::from),
            settings: config.clone(),
            engine: run.seen.engine,
            texts: run.seen.texts,
            warnings,
            data: run.seen.data,
            folder: None,
            raised_type: solution.plan.halves.as_deref().map(RaisedTypeReport::from),
            prepared: run.prepared,
            exact_on: Cpu::exact_on(layers.iter().any(|layer| layer.saturating_pairs > Some(0))),
            expected_speed: solution
                .assignment
                .expected_speeds(model.graph(), &solution.plan.layers)
                .into_iter()
                .collect(),
            layers,
            embeddings: reports(embeddings),
            whole_weights: reports(whole_weights),
            kv_cache: KvCacheReport::new(
                model.graph(),
                solution.assignment.caches(),
                solution.fitted.with_float_caches,
            ),
            integers: IntegerReport::new(&model, config, (&solution.assignment, &solution.trail), cache),
            float_weights: solution.plan.float_weights(&solution.fitted.written, config),
            skipped: solution.plan.all_skipped().into_iter().map(SkippedReport::from).collect(),
            unmatched: solution.plan.unmatched,
            opset: solution.fitted.written.opset("").unwrap_or(0),
            opset_changes: run.opset_changes,
            held_out: solution.fitted.held_out.map(HeldOut::from),
            measured: solution.fitted.measured.map(Measured::from),
            metric: solution.fitted.metric.zip(run.metered).map(|(value, metered)| MetricReport::new(value, &metered)),
            not_run: run.not_run,
            verified: run.verified,
            bytes_before: run.files.input.all_bytes(),
            bytes_after: run.files.output.all_bytes(),
            files: run.files,
        };
        report.with_outcome()
    }
}

/// What stands in the metadata of a model with these layers.
pub(crate) fn metadata(config: &Config, layers: &[LayerReport]) -> Result<Metadata, Error> {
    let settings = serde_json::to_string(config).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Metadata { version: VERSION, settings, certificates: certificates_summary(layers).to_string() })
}

impl Report {
    /// The same with what all of it means.
    fn with_outcome(self) -> Self {
        let outcome = Outcome { missed: self.missed(), doubts: self.doubts(), advice: self.advice() };
        Self { outcome, ..self }
    }

    /// The same of a model that was quantized with its folder.
    pub(crate) fn in_folder(self, folder: FolderReport) -> Self {
        Self { folder: Some(folder), ..self }.with_outcome()
    }

    /// The SQNR in dB that the outputs can be expected to have on new data: as measured, else as simulated.
    pub fn expected_db(&self) -> Option<f64> {
        let measured = self.measured.as_ref().and_then(|found| found.expected_db);
        measured.or_else(|| self.held_out.as_ref()?.expected_db)
    }

    /// Weights of the quantized layers; those that several layers read count once.
    pub fn weights(&self) -> usize {
        self.first_readers().map(|layer| layer.parameters).sum()
    }

    /// Bits a weight, on the average over [these](Report::weights).
    pub fn average_bits(&self) -> f64 {
        let bits = self.first_readers().map(|layer| layer.parameters as f64 * f64::from(layer.bits));
        bits.sum::<f64>() / (self.weights() as f64).max(1.0)
    }

    /// The layers without those that read a weight which an earlier one reads.
    pub(super) fn first_readers(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|layer| layer.is_first_reader)
    }

    /// What was asked for and was not reached, in words.
    pub fn missed(&self) -> Option<String> {
        let size = match self.settings.budget {
            Some(Budget::TargetBytes(most)) if self.bytes_after > most => {
                Some(format!("the file has {} bytes, at most {most} wanted", self.bytes_after))
            }
            _ => None,
        };
        let doubts = if self.settings.allow_float { Vec::new() } else { self.doubts() };
        let metric = self.metric.as_ref().and_then(MetricReport::missed);
        let accuracy = self.missed_accuracy();
        let parts = accuracy.into_iter().chain(metric).chain(size).chain(self.mispredicted()).chain(doubts);
        let others = self.folder.iter().flat_map(FolderReport::missed);
        let parts: Vec<String> = parts.chain(others).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// That ONNX Runtime makes something else of layers than was predicted.
    fn mispredicted(&self) -> Option<String> {
        let layers = self.verified.as_ref().map_or(0, |verified| verified.mispredicted.len());
        (layers > 0).then(|| format!("{layers} layers do not run as predicted"))
    }

    /// How exact the outputs are, over all and one by one: as ONNX Runtime computes them, or as simulated where it cannot
    /// be asked.
    pub(super) fn judged(&self) -> Option<(&Measurement<Accuracy>, &[OutputReport])> {
        let measured = self.measured.as_ref().filter(|found| found.counts);
        let simulated = self.held_out.as_ref().map(|found| (&found.accuracy, &found.outputs[..]));
        measured.map(|found| (&found.accuracy, &found.outputs[..])).or(simulated)
    }

    /// Whether anything has codes.
    pub fn is_quantized(&self) -> bool {
        !self.layers.is_empty()
            || !self.embeddings.is_empty()
            || !self.whole_weights.is_empty()
            || self.kv_cache.is_some()
    }

    fn missed_accuracy(&self) -> Option<String> {
        let (wanted, most) = (self.settings.wanted_sqnr_db(), self.settings.max_loss);
        let most_perplexity = self.settings.max_perplexity_ratio;
        if !self.is_quantized() || (wanted.is_none() && most.is_none() && most_perplexity.is_none()) {
            return None;
        }
        let by =
            if self.settings.min_sqnr_db.is_none() { " by `--scheme auto`; --min-sqnr asks for another" } else { "" };
        let mut parts = Vec::new();
        // What is not a number reaches nothing.
        if let Some(Accuracy { sqnr_db, loss, tokens, .. }) =
            self.judged().and_then(|(accuracy, _)| accuracy.measured())
        {
            let sqnr = wanted.filter(|wanted| sqnr_db.is_nan() || sqnr_db < wanted);
            parts.extend(sqnr.map(|wanted| format!("SQNR {sqnr_db:.2} dB, {wanted:.2} dB wanted{by}")));
            let loss = most.filter(|most| loss.is_nan() || loss > most).map(|most| (loss, most));
            parts.extend(loss.map(|(loss, most)| format!("loss {loss:.2e}, at most {most:.2e} wanted")));
            parts.extend(most_perplexity.and_then(|most| missed_perplexity(tokens.as_ref(), most)));
        }
        let missed = (!parts.is_empty()).then(|| format!("held-out {}", parts.join("; ")));
        let parts: Vec<String> = missed.into_iter().chain(self.not_measured()).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// That the accuracy of outputs was not measured: of which, and why. A goal that was not measured is missed.
    fn not_measured(&self) -> Option<String> {
        let Some((accuracy, outputs)) = self.judged() else {
            return Some(format!("the accuracy that is wanted was not measured: {}", NotMeasured::NoSamples));
        };
        let of_outputs: Vec<String> =
            not_measured(outputs).map(|(name, why)| format!("`{name}` was not measured: {why}")).collect();
        match (of_outputs.is_empty(), accuracy.why_not()) {
            (false, _) => Some(of_outputs.join("; ")),
            (true, Some(why)) => Some(format!("the accuracy that is wanted was not measured: {why}")),
            (true, None) => None,
        }
    }

    /// The short form that goes into the model's metadata: method, bits, error and bound of every layer.
    pub fn certificates_summary(&self) -> serde_json::Value {
        certificates_summary(&self.layers)
    }
}

/// That the perplexity is too large, or not known.
fn missed_perplexity(found: Option<&TokenFigures>, most: f64) -> Option<String> {
    let Some(found) = found else {
        let wanted = "`[batch, sequence, vocabulary]` that foretells the `input_ids` of the samples";
        return Some(format!("perplexity was not measured: no output {wanted}"));
    };
    let ratio = found.perplexity_ratio;
    let is_missed = ratio.is_nan() || ratio > most;
    is_missed.then(|| format!("perplexity {ratio:.4} times that of the float model, at most {most:.4} wanted"))
}

impl PlanFile {
    /// What a run did.
    pub fn of(report: &Report) -> Self {
        let layers = report.layers.iter().map(|layer| (layer.label.clone(), layer.bits));
        Self::new(report.settings.granularity, report.settings.symmetry, layers)
    }
}
