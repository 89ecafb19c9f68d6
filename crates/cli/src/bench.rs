//! `onnxquant bench`: how long models take in ONNX Runtime.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::bail;
use onnxquant::storage::as_given;
use onnxquant::{Bench, BenchReport, GivenModel, Timing};

use crate::args::BenchArgs;
use crate::host::Host;
use crate::runtime;
use crate::screen::fitted;
use crate::table::{Table, shape};

/// Samples that are run where nothing else is said.
const SAMPLES: usize = 4;

pub(crate) fn run(args: &BenchArgs, threads: Option<NonZero<usize>>, host: &Host<'_>) -> anyhow::Result<String> {
    if args.path.is_none() && args.data.is_given() {
        bail!("options about samples have no effect without --calib");
    }
    let Some(ort) = runtime::find(&args.runtime, Some("`bench`"), host)? else { bail!("`bench` needs ONNX Runtime") };
    let given = std::iter::once(&args.model).chain(&args.other).map(|path| GivenModel::open(path));
    let given: Vec<GivenModel> = given.collect::<Result<_, _>>()?;
    let models: Vec<PathBuf> =
        given.iter().map(|given| onnxquant::model_file(given.path())).collect::<Result<_, _>>()?;
    let data = args.path.clone().map(|path| {
        let mut data = args.data.config(path, models.first().unwrap_or(&args.model));
        data.options.samples.get_or_insert(SAMPLES);
        data
    });
    let all = threads.or_else(|| available_parallelism().ok()).map_or(1, NonZero::get);
    let threads = if all == 1 { vec![1] } else { vec![1, all] };
    let bench = Bench { models: &models, data: data.as_ref(), lengths: &args.lengths, threads: &threads };
    let report = onnxquant::bench(&ort, &bench)?;
    Ok(if args.json { format!("{:#}\n", serde_json::to_value(&report)?) } else { text(&report, host.columns) })
}

fn text(report: &BenchReport, columns: Option<usize>) -> String {
    let inputs = report.inputs.iter().map(|(name, dims)| match dims.as_slice() {
        [] => format!("`{name}`"),
        dims => format!("`{name}` {}", shape(dims)),
    });
    let inputs = inputs.collect::<Vec<_>>().join(", ");
    let samples = if report.samples == 1 { "one sample".to_owned() } else { format!("{} samples", report.samples) };
    let about = format!("{} on this CPU ({}), {samples}: {inputs}\n", report.runtime, report.cpu);
    let head = ["threads", "model", "median", "quartiles", "speed"];
    let row = |timing: &Timing| {
        let [low, high] = timing.quartiles_ms.map(milliseconds);
        vec![
            timing.threads.to_string(),
            as_given(&timing.model.display().to_string()),
            format!("{} ms", milliseconds(timing.median_ms)),
            format!("{low} - {high} ms"),
            format!("{:.2}x", timing.speed),
        ]
    };
    let rows = Table { spare: &[3], ..Table::new(&head, report.timings.iter().map(row)) };
    fitted(about, columns) + &rows.text(columns)
}

/// With three significant digits.
fn milliseconds(ms: f64) -> String {
    match ms {
        100.0.. => format!("{ms:.0}"),
        10.0.. => format!("{ms:.1}"),
        1.0.. => format!("{ms:.2}"),
        _ => format!("{ms:.3}"),
    }
}
