//! `onnxquant compare`: error, SQNR and cosine of every output, and of the tensors between.

use onnxquant::{CompareReport, Comparison, EngineChoice, Files, GivenModel, OutputReport, PartReport, TensorFigures};

use crate::answer::Answer;
use crate::args::{CompareArgs, EngineName};
use crate::host::Host;
use crate::runtime;
use crate::screen::fitted;
use crate::sink;
use crate::summary::perplexity;
use crate::table::{Table, decibels, quoted, short};

/// Tensors that are named as those by which an error enters.
const NAMED: usize = 3;

pub(crate) fn run(args: &CompareArgs, host: &Host<'_>) -> anyhow::Result<Answer> {
    let given = [GivenModel::open(&args.first)?, GivenModel::open(&args.second)?];
    let [first, second] = &given;
    let (first, second) = (onnxquant::model_file(first.path())?, onnxquant::model_file(second.path())?);
    let files = Files::default().reads("the first model", &first).reads("the second model", &second);
    args.report.iter().fold(files, |files, path| files.reports("the report", path)).check()?;
    let data = args.data.config(args.path.clone(), &first);
    let comparison = Comparison {
        first: &first,
        second: &second,
        data: &data,
        cpu: args.cpu,
        engine: args.engine.into(),
        runtime: match args.engine {
            EngineName::Tract => None,
            EngineName::Ort => runtime::find(&args.runtime, Some("`--engine ort`"), host)?,
            EngineName::Auto => runtime::find(&args.runtime, None, host)?,
        },
        tensors: args.layers,
    };
    let report = CompareReport::new(&first, &second, comparison.run(host.progress)?)?;
    let missed = report.missed(args.min_sqnr, args.max_loss);
    let json = || Ok::<String, anyhow::Error>(format!("{:#}\n", serde_json::to_value(&report)?));
    for path in &args.report {
        let text = if sink::is_page(path) { report.page(missed.as_deref())? } else { json()? };
        sink::write(path, &text)?;
    }
    let text = if args.json { json()? } else { text(&report, comparison.engine, host.columns) };
    Ok(Answer::Compared { text, missed })
}

fn text(report: &CompareReport, engine: EngineChoice, columns: Option<usize>) -> String {
    let head = ["output", "SQNR", "mean cosine", "largest error", "samples"];
    let rows = report.outputs.iter().flat_map(|output| rows(output, report.samples - output.incomparable));
    let mut text = Table { spare: &[4, 3], ..Table::new(&head, rows) }.text(columns);
    for (report, found) in report.outputs.iter().filter_map(|report| Some((report, report.found.measured()?.tokens?))) {
        text += &format!("`{}`: {}, over {} tokens\n", report.name, perplexity(&found), found.tokens);
    }
    for (report, why) in report.outputs.iter().filter_map(|report| Some((report, report.found.why_not()?))) {
        text += &format!("`{}` was not measured: {why}\n", report.name);
    }
    if let Some(why) = report.engine.because.as_ref().filter(|_| engine == EngineChoice::Auto) {
        text += &format!("engine  {} ran both: {why}\n", report.engine.name);
    }
    if let Some(cpu) = report.saturates_here {
        text +=
            &format!("exact   sums are told as they are; on this processor ({cpu}) some saturate, see --cpu avx2\n");
    }
    text += &tensors(report, columns);
    fitted(text, columns)
}

/// An output, and the parts of it that are judged apart.
fn rows(report: &OutputReport, samples: usize) -> Vec<Vec<String>> {
    let Some(found) = report.found.measured() else {
        let none = || "-".to_owned();
        return vec![vec![report.name.clone(), none(), none(), none(), samples.to_string()]];
    };
    let cosine = |cosine: f64| format!("{cosine:.6}");
    let error = short(found.max_abs_error);
    let whole =
        vec![report.name.clone(), decibels(found.sqnr_db), cosine(found.mean_cosine), error, samples.to_string()];
    let part = |part: &PartReport| {
        let name = format!("{}{}", report.name, part.part);
        vec![name, decibels(part.sqnr_db), cosine(part.cosine), "-".to_owned(), samples.to_string()]
    };
    std::iter::once(whole).chain(found.parts.iter().map(part)).collect()
}

/// The tensors between, and those by which most of the error enters.
fn tensors(report: &CompareReport, columns: Option<usize>) -> String {
    if report.tensors.is_empty() {
        return String::new();
    }
    let head = ["tensor", "operator", "SQNR", "before it", "largest error"];
    let row = |tensor: &TensorFigures| {
        let (name, found) = (tensor.tensor.name.clone(), tensor.tensor.found.measured());
        let sqnr = found.map_or("not measured".to_owned(), |found| decibels(found.sqnr_db));
        let error = found.map_or("-".to_owned(), |found| short(found.max_abs_error));
        vec![name, tensor.op_type.clone(), sqnr, decibels(tensor.before_db), error]
    };
    let rows = Table { spare: &[4, 1], ..Table::new(&head, report.tensors.iter().map(row)) };
    let mut text = format!("\n{}", rows.text(columns));
    for tensor in report.where_it_enters(NAMED) {
        let now = tensor.tensor.found.measured().map_or(f64::NAN, |found| found.sqnr_db);
        let (before, now) = (decibels(tensor.before_db), decibels(now));
        let (label, operator) = (quoted(&tensor.label), &tensor.op_type);
        text += &format!("enters  at {label} ({operator}): {before} before, {now} behind it\n");
    }
    text
}
