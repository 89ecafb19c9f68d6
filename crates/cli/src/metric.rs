//! A figure of the user's own: what a command of theirs prints, or what the host says.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::bail;
use onnxquant::{Measuring, Metric};

use crate::args::MetricArgs;
use crate::child;
use crate::host::Host;

/// Stands for the file in a command.
const MODEL: &str = "{model}";

/// What was asked for, if anything.
pub(crate) fn metric(args: &MetricArgs, host: &Host<'_>) -> anyhow::Result<Option<Metric>> {
    let by_command = args.metric_command.clone().map(of_command).transpose()?;
    let (min, max_loss) = (args.min_metric, args.max_metric_loss);
    match by_command.or_else(|| host.metric.cloned()) {
        Some(measure) => Ok(Some(Metric { measure, min, max_loss })),
        None if min.is_some() || max_loss.is_some() => {
            bail!("--min-metric and --max-metric-loss are about a metric: give --metric-command")
        }
        None => Ok(None),
    }
}

fn of_command(command: String) -> anyhow::Result<Arc<Measuring>> {
    if !command.contains(MODEL) {
        bail!("--metric-command `{command}` does not say where the model goes: `{MODEL}` stands for its file");
    }
    Ok(Arc::new(move |path: &Path| measured(&command, path)))
}

fn measured(command: &str, path: &Path) -> Result<f64, String> {
    let Some(text) = path.to_str() else {
        return Err(format!("`{}` has a name that is no UTF-8 and cannot stand in a command", path.display()));
    };
    let words = command.replace(MODEL, &quoted(text));
    let ended = child::finished(shell(&words).stdin(Stdio::null()).stdout(Stdio::piped()));
    let (status, stdout) = ended.map_err(|error| format!("`{words}` cannot be started: {error}"))?;
    if !status.success() {
        return Err(format!("`{words}` failed ({status})"));
    }
    let text = String::from_utf8_lossy(&stdout);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    last.parse().map_err(|_| format!("the last line of `{words}` is `{last}`, expected a number"))
}

fn shell(words: &str) -> Command {
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut command = Command::new(shell);
    command.arg(option).arg(words);
    command
}

/// A path as one word of the shell.
fn quoted(path: &str) -> String {
    if cfg!(windows) { format!("\"{path}\"") } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_is_printed_is_the_number() {
        let of = |command: &str| measured(command, Path::new("a b'c.onnx"));
        assert_eq!(of("echo 3; echo; echo ' 0.25 '; echo"), Ok(0.25));
        assert_eq!(of("test {model} = \"a b'c.onnx\" && echo 1"), Ok(1.0));
        let cases = [("false", "failed (exit status: 1)"), ("echo five", "is `five`"), ("true", "is ``")];
        for (command, part) in cases {
            assert!(of(command).is_err_and(|said| said.contains(part)), "{command}");
        }
    }
}
