//! `onnxquant compare`: error, SQNR and cosine of every output.

use onnxquant::{OutputReport, PartReport, Progress};
use serde_json::json;

use crate::args::CompareArgs;
use crate::table::{decibels, short, table};

pub(crate) fn run(args: &CompareArgs, progress: Progress<'_>) -> anyhow::Result<String> {
    let (first, second) = (onnxquant::model_file(&args.first)?, onnxquant::model_file(&args.second)?);
    let data = args.data.config(args.path.clone(), &first);
    let outputs = onnxquant::compare(&first, &second, &data, args.cpu, progress)?;
    let reports = outputs.iter().map(OutputReport::from).collect::<Vec<_>>();
    if args.json {
        return Ok(format!("{:#}\n", json!({ "outputs": reports })));
    }
    let head = ["output", "SQNR", "mean cosine", "largest error", "samples"].map(str::to_owned).to_vec();
    let rows = reports.iter().zip(&outputs).flat_map(|(report, output)| rows(report, output.samples));
    let mut text = table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    for (report, why) in reports.iter().filter_map(|report| Some((report, report.found.why_not()?))) {
        text += &format!("`{}` was not measured: {why}\n", report.name);
    }
    Ok(text)
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
