//! `onnxquant inspect`: every candidate layer and what would be done with it.

use std::path::Path;

use onnxquant::quant::Granularity;
use onnxquant::{Anonymized, FloatWeight, GivenModel, PassTrace, Plan, PlannedLayer, PlannedTable, SkippedLayer};
use serde_json::{Value, json};

use crate::args::InspectArgs;
use crate::host::Host;
use crate::left_in_float::float_weights;
use crate::screen::fitted;
use crate::table::{Table, shape};

pub(crate) fn run(args: &InspectArgs, host: &Host<'_>) -> anyhow::Result<String> {
    let columns = host.columns;
    let given = GivenModel::open(&args.model)?;
    let file = onnxquant::model_file(given.path())?;
    if let Some(output) = &args.anonymize {
        return Ok(anonymized(&onnxquant::anonymize(&file, output)?, output));
    }
    let mut model = onnxquant::read(&file)?;
    let passes = onnxquant::trace_passes(&mut model)?;
    if args.passes {
        return Ok(match args.json {
            true => format!("{:#}\n", json!({ "passes": passes })),
            false => of_passes(&passes, columns),
        });
    }
    let config = args.settings.config()?;
    config.check()?;
    let plan = Plan::new(&model, &config)?;
    let floats = plan.float_weights(&model, &config);
    Ok(match args.json {
        true => format!("{:#}\n", as_json(&plan, &floats)),
        false => {
            let text = as_table(&plan, columns) + &float_weights(&floats);
            fitted(text, columns)
        }
    })
}

fn anonymized(made: &Anonymized, output: &Path) -> String {
    let wrote = format!("wrote {} nodes without weights and names to `{}`\n", made.nodes, output.display());
    let zeros = made.zeros.as_ref().map(|(file, bytes)| {
        let file = file.display();
        format!(
            "`{file}` is {bytes} bytes of zeros, which need not be sent: `truncate -s {bytes} {file}` makes it anew\n"
        )
    });
    wrote + &zeros.unwrap_or_default()
}

pub(crate) fn as_table(plan: &Plan, columns: Option<usize>) -> String {
    let head = ["layer", "operator", "shape", "weights", "what would be done"];
    let layer = |layer: &PlannedLayer| {
        let dims = layer.site.view.weight_shape();
        let (bits, codes) = (layer.bits, layer.form.storage());
        let operators = layer.form.operators();
        let done = format!("{bits} bits {}, stored as {codes}, {operators}", granularity(layer.granularity));
        vec![layer.label.clone(), layer.op_type.clone(), shape(&dims), layer.site.parameters().to_string(), done]
    };
    let skipped = |layer: &SkippedLayer| {
        let dims = layer.weight_shape.as_deref();
        let weights = dims.map_or(0, |dims| dims.iter().product::<usize>());
        let reason = format!("float: {}", layer.reason);
        vec![
            layer.label.clone(),
            layer.op_type.clone(),
            dims.map_or("-".to_owned(), shape),
            weights.to_string(),
            reason,
        ]
    };
    let embeddings = |planned: &PlannedTable| {
        let scales = planned.block.map_or("per row".to_owned(), |block| granularity(Granularity::Block(block)));
        let heads = planned.heads.iter().map(|head| format!(", also the weight of `{head}`"));
        let (dims, done) = (planned.table.dims, format!("{} bits {scales}{}", planned.bits, heads.collect::<String>()));
        let reader = if planned.is_embedding() { "Gather" } else { "whole" };
        vec![planned.name.clone(), reader.to_owned(), shape(&dims), (dims[0] * dims[1]).to_string(), done]
    };
    let (layers, tables, left) = (plan.all_layers(), plan.all_tables(), plan.all_skipped());
    let counts = format!("{} layers to quantize, {} left in float, opset {}\n", layers.len(), left.len(), plan.opset);
    let rows = layers.into_iter().map(layer).chain(tables.into_iter().map(embeddings));
    let rows = rows.chain(left.into_iter().map(skipped));
    Table { spare: &[2, 3], ..Table::new(&head, rows) }.text(columns) + &counts
}

fn of_passes(passes: &[PassTrace], columns: Option<usize>) -> String {
    let head = ["pass", "changed", "nodes", "what is counted"];
    let row = |pass: &PassTrace| {
        let nodes = format!("{} -> {}", pass.nodes_before, pass.nodes_after);
        vec![pass.name.to_owned(), pass.changed.to_string(), nodes, pass.counts.to_owned()]
    };
    Table::new(&head, passes.iter().map(row)).text(columns)
}

fn as_json(plan: &Plan, floats: &[FloatWeight]) -> Value {
    let layer = |layer: &PlannedLayer| {
        json!({
            "label": layer.label,
            "op_type": layer.op_type,
            "weight_shape": layer.site.view.weight_shape(),
            "parameters": layer.site.parameters(),
            "bits": layer.bits,
            "granularity": layer.granularity,
            "storage": layer.form.storage(),
            "operators": layer.form.operators(),
        })
    };
    let table = |planned: &PlannedTable| {
        json!({
            "name": planned.name,
            "shape": planned.table.dims,
            "bits": planned.bits,
            "block": planned.block,
            "heads": planned.heads,
        })
    };
    let (embeddings, whole): (Vec<_>, Vec<_>) =
        plan.all_tables().into_iter().partition(|planned| planned.is_embedding());
    json!({
        "layers": plan.all_layers().into_iter().map(layer).collect::<Vec<_>>(),
        "embeddings": embeddings.into_iter().map(table).collect::<Vec<_>>(),
        "whole_weights": whole.into_iter().map(table).collect::<Vec<_>>(),
        "skipped": plan.all_skipped(),
        "unmatched": plan.unmatched,
        "float_weights": floats,
        "opset": plan.opset,
    })
}

fn granularity(granularity: Granularity) -> String {
    match granularity {
        Granularity::Tensor => "per tensor".to_owned(),
        Granularity::Channel => "per channel".to_owned(),
        Granularity::Block(size) => format!("in blocks of {size}"),
    }
}
