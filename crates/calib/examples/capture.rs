//! Runs a model on calibration data and writes values inside it to `.npz` files.
//!
//!     capture MODEL DATA OUT_DIR N_SAMPLES VALUE...
//!
//! Without values, the graph's outputs are written.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use onnxquant_calib::{
    CalibSet, DataOptions, InputSpec, Session, engine, graph_outputs, inline_functions, open_session, write_captures,
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, out, samples, values @ ..] = args.as_slice() else {
        return Err("usage: capture MODEL DATA OUT_DIR N_SAMPLES VALUE...".into());
    };
    let model = inline_functions(&onnxquant_proto::read_model(Path::new(model))?)?;
    let graph = model.graph.as_ref().ok_or("no graph")?;
    let inputs = InputSpec::from_graph(graph, model.ir_version.unwrap_or_default())?;
    let options = DataOptions { samples: Some(samples.parse()?), ..DataOptions::default() };
    let start = Instant::now();
    let data = CalibSet::open(Path::new(data), &inputs, &options)?;
    eprintln!("opened {} samples: {:?}", data.len(), start.elapsed());
    let values = match values {
        [] => graph_outputs(&model),
        _ => values.to_vec(),
    };
    let start = Instant::now();
    let session = open_session(engine(), &model, &values, &data)?;
    eprintln!("session: {:?}", start.elapsed());
    let start = Instant::now();
    std::fs::create_dir_all(out)?;
    for index in 0..data.len() {
        let captured = session.run(&data.load(index)?)?;
        write_captures(&Path::new(out).join(format!("{index:04}.npz")), session.values(), &captured)?;
    }
    eprintln!("ran: {:?}", start.elapsed());
    Ok(())
}
