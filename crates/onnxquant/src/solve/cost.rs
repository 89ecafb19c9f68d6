//! What a layer takes to be solved, by its shape: so that processes get equal shares, and for what is told before a run.
//!
//! # Method
//!
//! For K inputs and M outputs solvers factor moments (K^3), and everybody looks at every weight: for scales, codes, what was
//! promised and achieved (K M). What M columns take behind a factor goes at the speed of matrix products, and does not show.
//! The constants are fitted to the times of single layers on one thread, with AVX2: `onnxquant solve --shard 1/1 --threads 1`
//! on MiniLM and EfficientNet-Lite0 calibrated with `--one-pass`, where the file of a layer appears when it is solved. Of 24
//! layers that took 0.03 s and more, 18 took 0.7 to 1.5 times as long as is said here.
//!
//! # Failure
//!
//! How often solvers try another damping or target depends on the data.

use onnxquant_quant::Method;

use crate::config::{Config, MethodChoice};
use crate::plan::layers::PlannedLayer;
use crate::solve::codes::{PINNED_LEVELS, WALKED_LEVELS};
use crate::solve::job::WALK_BUDGET;

/// Seconds for a group, by K M and by K^3, where saturated weights are pinned.
const FITTED: [f64; 3] = [2.4e-4, 1.45e-6, 1.1e-9];
/// What feedback alone takes in comparison with that, and what solvers take that have one target and one damping.
const FEEDBACK: f64 = 0.5;
const PLAIN: f64 = 0.4;
/// Seconds by K M and by K^3 where weights are rounded.
const ROUNDED: [f64; 2] = [2.4e-7, 1.0e-10];
/// Seconds for a multiply-add of a walk.
const WALKED: f64 = 2.0e-9;

/// Seconds of one thread for the codes of a layer, one of so many. It is fitted to `rows` of calibration data in each group,
/// which are as many as it takes where that is not known, and rounded without.
pub(crate) fn seconds(layer: &PlannedLayer, config: &Config, layers: usize, rows: Option<f64>) -> f64 {
    let view = &layer.site.view;
    let (inputs, outputs, groups) = (view.inputs() as f64, view.outputs() as f64, view.groups() as f64);
    let method = layer.own.method.map_or(config.method, MethodChoice::Fixed);
    let (weights, cube) = (groups * inputs * outputs, groups * inputs.powi(3));
    let Some(rows) = rows.filter(|_| method != MethodChoice::Fixed(Method::Msq)) else {
        return ROUNDED[0] * weights + ROUNDED[1] * cube;
    };
    let fitted = FITTED[0] * groups + FITTED[1] * weights + FITTED[2] * cube;
    let walk = WALKED * 2.0 * inputs * weights;
    let levels = 1 << layer.bits.min(16);
    match method {
        MethodChoice::Auto => {
            let is_within = 2.0 * inputs * weights <= WALK_BUDGET / layers as f64;
            let walks = is_within && levels <= WALKED_LEVELS && rows < inputs;
            fitted * if levels <= PINNED_LEVELS { 1.0 } else { FEEDBACK } + if walks { walk } else { 0.0 }
        }
        MethodChoice::Fixed(Method::Saturate) => fitted,
        MethodChoice::Fixed(Method::Feedback) => FEEDBACK * fitted * config.beam.unwrap_or(1) as f64,
        MethodChoice::Fixed(Method::Optq | Method::Gpfq) => PLAIN * fitted,
        MethodChoice::Fixed(_) => PLAIN * fitted + walk,
    }
}
