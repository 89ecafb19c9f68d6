//! Flags about a figure of the user's own.

use clap::Args;

/// A figure of the user's own for how good a model is.
#[derive(Debug, Args)]
pub(crate) struct MetricArgs {
    /// A command that says how good a model is, the larger the better: `{model}` in it stands for the file, and the last
    /// line that it prints is the number. Layers keep float activations until --min-metric or --max-metric-loss is reached.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) metric_command: Option<String>,

    /// The written model must have at least this much.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) min_metric: Option<f64>,

    /// It may have so much less than the float model.
    #[arg(long, value_name = "X")]
    pub(crate) max_metric_loss: Option<f64>,
}
