//! How two models differ, as a page.

use onnxquant_calib::Measurement;
use serde::Serialize;

use super::rendered;
use super::svg::{LogAxis, marked_bar};
use crate::error::Error;
use crate::report::compared::{CompareReport, TensorFigures};
use crate::report::words::{decibels, short};

/// Tensors that are named first.
const NAMED: usize = 5;

/// A tensor with its bar.
#[derive(Debug, Serialize)]
struct TensorRow {
    name: String,
    about: String,
    number: String,
    plot: String,
}

impl CompareReport {
    /// As a page; `missed` is what was asked for and was not reached.
    ///
    /// # Errors
    /// None but defects of this program.
    pub fn page(&self, missed: Option<&str>) -> Result<String, Error> {
        let ratios =
            self.tensors.iter().flat_map(|tensor| [own_error(tensor), Some(error(tensor.before_db))]).flatten();
        let axis = LogAxis::over(ratios);
        let rows: Vec<TensorRow> = self.tensors.iter().map(|tensor| TensorRow::of(tensor, axis)).collect();
        let (ends, enters) = (axis.ends().map(short), self.where_it_enters(NAMED));
        let context =
            minijinja::context! { report => self, missed => missed, rows => rows, ends => ends, enters => enters };
        rendered("compare.html", &context)
    }
}

/// The relative error that leaves this SQNR.
fn error(sqnr_db: f64) -> f64 {
    10f64.powf(-sqnr_db / 20.0)
}

fn own_error(tensor: &TensorFigures) -> Option<f64> {
    tensor.tensor.found.measured().map(|found| error(found.sqnr_db))
}

impl TensorRow {
    fn of(tensor: &TensorFigures, axis: LogAxis) -> Self {
        let number = match &tensor.tensor.found {
            Measurement::Measured(found) => decibels(found.sqnr_db),
            Measurement::NotMeasured(_) => "not measured".to_owned(),
        };
        let why = tensor.tensor.found.why_not().map(|why| format!(": {why}")).unwrap_or_default();
        let about = format!("{} ({}){why}", tensor.label, tensor.op_type);
        let before = Some(error(tensor.before_db)).filter(|error| *error > 0.0);
        let plot = marked_bar(axis, own_error(tensor).filter(|error| *error > 0.0), &[("two", before)], &about);
        Self { name: tensor.tensor.name.clone(), about, number, plot }
    }
}
