//! The main command: quantize, write the report, print the summary.

use std::path::{Path, PathBuf};

use anyhow::bail;
use onnxquant::storage::without_secrets;
use onnxquant::{
    Config, DataConfig, Delivery, Error, Files, GivenModel, ModelFolder, PlanFile, Report, StoredReport,
    check_addresses, is_standard_output,
};

use crate::args::{EngineName, QuantizeArgs};
use crate::host::Host;
use crate::metric::metric;
use crate::progress::Teller;
use crate::runtime;
use crate::screen::{COLUMNS, error_columns, output_columns};
use crate::sink::{self, Sink};
use crate::summary::summary;
use crate::trial::{Survivors, survivors};

/// What is to be done, once it was found that it may be.
pub(crate) struct Order {
    /// The model, or the one in the folder.
    pub(crate) model: PathBuf,
    /// The folder, where one is given.
    pub(crate) folder: Option<ModelFolder>,
    /// Where the model, or the folder with it, is to appear.
    pub(crate) delivery: Delivery,
    pub(crate) data: Option<DataConfig>,
    pub(crate) config: Config,
    /// What `model` lies in, where it was fetched.
    pub(crate) given: GivenModel,
}

impl Order {
    /// What the arguments ask for; all files are checked.
    pub(crate) fn of(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<Self> {
        let (Some(input), Some(output)) = (&args.input, &args.output) else {
            bail!("IN and OUT are needed");
        };
        let reports = args.report.iter().map(|path| ("the report", path.as_path()));
        let written = [("the output model", output.as_path())].into_iter().chain(reports);
        check_addresses(&[("the input model", input)], &written.collect::<Vec<_>>())?;
        let delivery = Delivery::to(output)?;
        let given = GivenModel::open(input)?;
        let (input, output) = (given.path(), delivery.path());
        let cache = args.calibration_cache.clone();
        let folder = input.is_dir().then(|| ModelFolder::open(input)).transpose()?;
        let model = folder.as_ref().map_or(input, ModelFolder::model).to_owned();
        let data = args.calib.clone().map(|path| DataConfig { cache, ..args.data.config(path, &model) });
        let config = host.keeping(args.config()?);
        if folder.is_some() && delivery.is_sent() {
            let problem = "a folder is not sent to an address: name a folder of this machine".to_owned();
            return Err(Error::Output { path: args.output.clone().unwrap_or_default(), problem }.into());
        }
        let files = match &folder {
            Some(folder) => folder.files(output, data.as_ref(), &config),
            None => Files::of_run(input, output, data.as_ref(), &config),
        };
        let files = args.report.iter().fold(files, |files, path| files.reports("the report", path));
        let files = args.save_plan.iter().fold(files, |files, path| files.reports("the saved plan", path));
        files.check()?;
        let Survivors { engine, runtime } = engines(args, &given, host)?;
        let config = Config { engine, runtime, metric: metric(&args.metric, host)?, ..config };
        Ok(Self { model, folder, delivery, data, config, given })
    }
}

pub(crate) fn run(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<Report> {
    let Order { model, folder, delivery, data, config, given: _given } = Order::of(args, host)?;
    let reports = args.report.iter().map(|path| Ok((path, Sink::open(path)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let plan = args.save_plan.as_deref().map(Sink::open).transpose()?;
    let mut finished = match &folder {
        Some(folder) => folder.quantize_unnamed(delivery.path(), data.as_ref(), &config, host.progress)?,
        None => onnxquant::quantize_unnamed(&model, delivery.path(), data.as_ref(), &config, host.progress)?,
    };
    let report = finished.report();
    report.run.command = command(host);
    let mut filled = Vec::new();
    for (path, sink) in reports {
        filled.push(with(sink, &text(report, path)?)?);
    }
    if let Some(sink) = plan {
        filled.push(with(sink, &PlanFile::of(report).text()?)?);
    }
    // Whatever can fail has been tried by now. The model comes last: where it is, everything is.
    filled.into_iter().try_for_each(Sink::name)?;
    let report = finished.name()?;
    delivery.finish()?;
    report.warnings.iter().for_each(|warning| (host.warn)(warning));
    Ok(report)
}

fn with(mut sink: Sink, text: &str) -> anyhow::Result<Sink> {
    sink.fill(text)?;
    Ok(sink)
}

/// The report as it is written to `path`.
fn text(report: &Report, path: &Path) -> anyhow::Result<String> {
    Ok(match sink::is_page(path) {
        true => StoredReport::of(report)?.page()?,
        false => serde_json::to_string_pretty(report)? + "\n",
    })
}

/// Prints the summary, where it is wanted.
pub(crate) fn print(args: &QuantizeArgs, report: &Report, teller: &Teller) -> anyhow::Result<()> {
    if args.telling.quiet {
        return Ok(());
    }
    let output = args.output.as_deref().unwrap_or(Path::new(&report.files.output.name));
    let text = |columns: Option<usize>| summary(report, output, columns.unwrap_or(COLUMNS));
    // The standard output is for one thing.
    if args.report.iter().chain(&args.save_plan).any(|path| is_standard_output(path)) {
        teller.text(&text(error_columns()));
        return Ok(());
    }
    sink::print(&text(output_columns()))
}

/// The words by which this program was called.
fn command(host: &Host<'_>) -> Vec<String> {
    let words = host.args.iter().map(|word| without_secrets(&word.to_string_lossy()));
    std::iter::once("onnxquant".to_owned()).chain(words).collect()
}

/// The engines that are there, or have to be, and that survive the model.
pub(crate) fn engines(args: &QuantizeArgs, given: &GivenModel, host: &Host<'_>) -> anyhow::Result<Survivors> {
    let needed = [(args.engine == EngineName::Ort, "`--engine ort`"), (args.verify.is_some(), "`--verify ort`")];
    let needed = needed.into_iter().find_map(|(is_needed, option)| is_needed.then_some(option));
    // Without samples it has nothing to measure.
    let is_idle = args.weights_only && needed.is_none();
    let found = if is_idle { None } else { runtime::find(&args.runtime, needed, host)? };
    survivors(args, given, found, needed, host)
}
