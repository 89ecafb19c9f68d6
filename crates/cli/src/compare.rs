//! `onnxquant compare`: error, SQNR and cosine of every output.

use onnxquant::OutputReport;
use serde_json::json;

use crate::args::CompareArgs;
use crate::bars::Bars;
use crate::table::{decibels, short, table};

pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let bars = Bars::new(false);
    let progress = |phase, done, total| bars.report(phase, done, total);
    let data = args.data.config(args.path.clone());
    let outputs = onnxquant::compare(&args.first, &args.second, &data, args.cpu, &progress)?;
    let reports = outputs.iter().map(OutputReport::from).collect::<Vec<_>>();
    if args.json {
        println!("{:#}", json!({ "outputs": reports }));
        return Ok(());
    }
    let head = ["output", "SQNR", "mean cosine", "largest error", "samples"].map(str::to_owned).to_vec();
    let rows = reports.iter().zip(&outputs).map(|(report, output)| {
        let cosine = format!("{:.6}", report.mean_cosine);
        let error = short(report.max_abs_error);
        vec![report.name.clone(), decibels(report.sqnr_db), cosine, error, output.samples.to_string()]
    });
    print!("{}", table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    Ok(())
}
