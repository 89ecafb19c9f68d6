//! `--dry-run`: what would be done, and what it would cost.

use onnxquant::storage::as_given;
use onnxquant::{Forecast, forecast};

use crate::args::QuantizeArgs;
use crate::host::Host;
use crate::inspect;
use crate::left_in_float::float_weights;
use crate::quantize::Order;
use crate::screen::{COLUMNS, fitted};
use crate::table::bytes;

pub(crate) fn run(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<String> {
    let Order { model, folder, delivery, data, config, given: _given } = Order::of(args, host)?;
    let found = forecast(&model, data.as_ref(), &config)?;
    if let Some(data) = &found.data {
        data.warnings.iter().for_each(|warning| (host.warn)(warning));
    }
    // In a pipe the table of layers is as wide as that of `inspect`.
    let layers = inspect::as_table(&found.plan, host.columns) + &float_weights(&found.float_weights);
    let columns = host.columns.map_or(COLUMNS, |columns| columns.min(COLUMNS));
    let of_folder = folder.map_or(String::new(), |_| {
        format!("folder  of `{}` alone: other models in it are not looked at\n", as_given(&model.display().to_string()))
    });
    let output = args.output.as_deref().unwrap_or(delivery.path());
    let text = of_folder + &text(&found, &output.display().to_string());
    Ok(fitted(layers, host.columns) + &fitted(text, Some(columns)))
}

fn text(found: &Forecast, output: &str) -> String {
    let mut text = String::new();
    if let Some(data) = &found.data {
        let prepared = data.prepared.as_ref().map(|how| format!(" -> {how}")).unwrap_or_default();
        text += &format!("data    {}{prepared}\n", data.samples);
    }
    if let Some(engine) = &found.engine {
        text += &format!("engine  {}\n", engine.name);
    }
    let ratio = 100.0 * found.bytes_after as f64 / found.bytes_before.max(1) as f64;
    let (before, after) = (bytes(found.bytes_before), bytes(found.bytes_after));
    text += &format!("size    {before} -> about {after} ({ratio:.0} %), estimated\n");
    let steps = found.steps.iter().map(|step| format!("{} {}", step.step, about(step.seconds))).collect::<Vec<_>>();
    text += &format!("time    about {}, estimated: {}\n", about(found.seconds()), steps.join(", "));
    text += &format!("memory  about {}, estimated\n", bytes(found.memory_bytes));
    text + &format!("wrote   nothing; without --dry-run it would be {output}\n")
}

/// Seconds, no more exact than they are known.
fn about(seconds: f64) -> String {
    match seconds {
        0.0..0.1 => "0.1 s".to_owned(),
        0.1..10.0 => format!("{seconds:.1} s"),
        10.0..120.0 => format!("{seconds:.0} s"),
        120.0..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
