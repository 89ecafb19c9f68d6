//! The main command: quantize, write the report, print the summary.

use std::path::{Path, PathBuf};

use anyhow::bail;
use onnxquant::calib::OrtEngine;
use onnxquant::{Config, DataConfig, Files, ModelFolder, PlanFile, Report, StoredReport, is_standard_output};

use crate::args::{EngineName, QuantizeArgs};
use crate::host::Host;
use crate::metric::metric;
use crate::progress::Teller;
use crate::runtime;
use crate::screen::{COLUMNS, error_columns, output_columns};
use crate::sink;
use crate::summary::summary;

/// What is to be done, once it was found that it may be.
pub(crate) struct Order {
    /// The model, or the one in the folder.
    pub(crate) model: PathBuf,
    /// The folder, where one is given.
    pub(crate) folder: Option<ModelFolder>,
    /// Where the model, or the folder with it, is to appear.
    pub(crate) output: PathBuf,
    pub(crate) data: Option<DataConfig>,
    pub(crate) config: Config,
}

impl Order {
    /// What the arguments ask for; all files are checked.
    pub(crate) fn of(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<Self> {
        let (Some(input), Some(output)) = (&args.input, &args.output) else {
            bail!("IN and OUT are needed");
        };
        let cache = args.calibration_cache.clone();
        let folder = input.is_dir().then(|| ModelFolder::open(input)).transpose()?;
        let model = folder.as_ref().map_or(input.as_path(), ModelFolder::model).to_owned();
        let data = args.calib.clone().map(|path| DataConfig { cache, ..args.data.config(path, &model) });
        let config = args.config()?;
        let files = match &folder {
            Some(folder) => folder.files(output, data.as_ref(), &config),
            None => Files::of_run(input, output, data.as_ref(), &config),
        };
        let files = args.report.iter().fold(files, |files, path| files.reports("the report", path));
        let files = args.save_plan.iter().fold(files, |files, path| files.reports("the saved plan", path));
        files.check()?;
        let config = Config { runtime: runtime(args, host)?, metric: metric(&args.metric, host)?, ..config };
        Ok(Self { model, folder, output: output.clone(), data, config })
    }
}

pub(crate) fn run(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<Report> {
    let Order { model, folder, output, data, config } = Order::of(args, host)?;
    let mut report = match &folder {
        Some(folder) => folder.quantize(&output, data.as_ref(), &config, host.progress)?,
        None => onnxquant::quantize(&model, &output, data.as_ref(), &config, host.progress)?,
    };
    report.run.command = command(host);
    for path in &args.report {
        let text = if sink::is_page(path) {
            StoredReport::of(&report)?.page()?
        } else {
            serde_json::to_string_pretty(&report)? + "\n"
        };
        sink::write(path, &text)?;
    }
    if let Some(path) = &args.save_plan {
        sink::write(path, &PlanFile::of(&report).text()?)?;
    }
    report.warnings.iter().for_each(|warning| (host.warn)(warning));
    Ok(report)
}

/// Prints the summary, where it is wanted.
pub(crate) fn print(args: &QuantizeArgs, report: &Report, teller: &Teller) -> anyhow::Result<()> {
    if args.quiet {
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
    let words = host.args.iter().map(|word| word.to_string_lossy().into_owned());
    std::iter::once("onnxquant".to_owned()).chain(words).collect()
}

/// ONNX Runtime, where it is there, or has to be.
fn runtime(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<Option<OrtEngine>> {
    let needed = [(args.engine == EngineName::Ort, "`--engine ort`"), (args.verify.is_some(), "`--verify ort`")];
    let needed = needed.into_iter().find_map(|(is_needed, option)| is_needed.then_some(option));
    // Without samples it has nothing to measure.
    if args.weights_only && needed.is_none() {
        return Ok(None);
    }
    let found = runtime::find(&args.runtime, needed, host)?;
    match found.as_ref().filter(|_| args.calib.is_some()).and_then(|found| runtime::crashes(found, host)) {
        None => Ok(found),
        Some(how) => match needed {
            Some(option) => bail!("{option} needs ONNX Runtime, and {how}"),
            None => {
                (host.warn)(&format!("{how}; accuracy is simulated"));
                Ok(None)
            }
        },
    }
}

/// Does with ONNX Runtime what may crash it, in the process that [`runtime::crashes`] starts for that.
pub(crate) fn try_runtime(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<()> {
    let runtime = runtime::find(&args.runtime, None, host)?;
    let (Some(input), Some(path), Some(runtime)) = (&args.input, &args.calib, runtime) else {
        return Ok(());
    };
    let input = onnxquant::model_file(input)?;
    Ok(onnxquant::try_runtime(&input, &args.data.config(path.clone(), &input), &runtime)?)
}
