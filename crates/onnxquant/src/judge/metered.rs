//! How good the written model is by a figure of the user's own.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use onnxquant_ir::Model;
use onnxquant_temporary::TempFolder;

use crate::config::{Config, Metric};
use crate::error::Error;
use crate::write::file::write;

/// The figure, and that of the float model.
pub(crate) struct Metered {
    metric: Metric,
    of_float: f64,
    wanted: Option<f64>,
    /// Models that are measured lie here.
    folder: TempFolder,
    measured: AtomicUsize,
}

impl Metered {
    /// Measures the float model, in the file `input`. Nothing where `config` has no figure.
    ///
    /// # Errors
    /// It cannot be measured, or the float model has less than is wanted.
    pub(crate) fn open(input: &Path, config: &Config) -> Result<Option<Self>, Error> {
        let Some(metric) = config.metric.clone() else { return Ok(None) };
        let aside = |error: std::io::Error| Error::Metric(format!("no folder for models can be made: {error}"));
        let folder = TempFolder::new("onnxquant-metric-").map_err(aside)?;
        let of_float = (metric.measure)(input).map_err(Error::Metric)?;
        let wanted = metric.wanted(of_float);
        match wanted {
            Some(wanted) if of_float.is_nan() || of_float < wanted => Err(Error::Usage(format!(
                "the float model has a metric of {of_float}, and at least {wanted} is wanted"
            ))),
            _ => Ok(Some(Self { metric, of_float, wanted, folder, measured: AtomicUsize::new(0) })),
        }
    }

    /// The figure of the model that would be written.
    pub(crate) fn of(&self, written: &Model, config: &Config) -> Result<f64, Error> {
        let number = self.measured.fetch_add(1, Ordering::Relaxed);
        // A name of its own: whoever measures may keep what it knows by the path.
        let own = self.folder.path().join(number.to_string());
        let aside = |error: std::io::Error| Error::Metric(format!("cannot use `{}`: {error}", own.display()));
        std::fs::create_dir(&own).map_err(aside)?;
        let path = own.join("model.onnx");
        write(written, &path, config)?;
        let found = (self.metric.measure)(&path).map_err(Error::Metric)?;
        std::fs::remove_dir_all(&own).map_err(aside)?;
        Ok(found)
    }

    /// Whether that is enough.
    pub(crate) fn is_reached(&self, found: f64) -> bool {
        self.wanted.is_none_or(|wanted| found >= wanted)
    }

    /// The figure of the float model.
    pub(crate) fn of_float(&self) -> f64 {
        self.of_float
    }

    /// What is wanted, if anything.
    pub(crate) fn wanted(&self) -> Option<f64> {
        self.wanted
    }

    /// How many models were measured beside the float one.
    pub(crate) fn measured(&self) -> usize {
        self.measured.load(Ordering::Relaxed)
    }
}
