//! Times the statistics of every MatMul, Gemm and Conv of a model.
//!
//!     measure MODEL DATA N_SAMPLES

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use onnxquant_calib::{
    CalibSet, DataOptions, InputSpec, Original, Session, StatKind, StatRequest, collect, compare, engine, gram_bytes,
    graph_outputs, open_session,
};
use onnxquant_proto::onnx::{GraphProto, NodeProto, TensorProto};
use onnxquant_quant::{ConvGeometry, MatrixView, Padding};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, samples] = args.as_slice() else {
        return Err("usage: measure MODEL DATA N_SAMPLES".into());
    };
    let model = onnxquant_proto::read_model(Path::new(model))?;
    let graph = model.graph.as_ref().ok_or("no graph")?;
    let inputs = InputSpec::from_graph(graph, model.ir_version.unwrap_or_default())?;
    let options = DataOptions { samples: Some(samples.parse()?), ..DataOptions::default() };
    let start = Instant::now();
    let data = CalibSet::open(Path::new(data), &inputs, &options)?;
    println!("opened {} samples: {:?}", data.len(), start.elapsed());
    let requests = requests(graph);
    let values: Vec<String> = requests.iter().map(|r| r.value.clone()).collect();
    println!("{} requests, {} MB", requests.len(), gram_bytes(&requests) >> 20);
    let start = Instant::now();
    let session = open_session(engine(), &model, &values, &data)?;
    println!("session: {:?}; {}", start.elapsed(), memory());
    let all: Vec<usize> = (0..data.len()).collect();
    let start = Instant::now();
    let run = |_: usize| -> Result<(), Box<dyn Error>> {
        onnxquant_calib::for_each_batch(&[&session], &data, &all, &|_| (), &mut |_| Ok(()))?;
        Ok(())
    };
    run(0)?;
    println!("run alone: {:?}; {}", start.elapsed(), memory());
    let start = Instant::now();
    let stats = collect(&session, &data, &all, &requests, &|_| ())?;
    println!("run and collect: {:?}; {}", start.elapsed(), memory());
    let sums: Vec<f64> = stats.iter().flatten().map(|s| s.mean_square().sum()).collect();
    println!("checksum {:x}", sums.iter().fold(0_u64, |h, x| h.rotate_left(5) ^ x.to_bits()));
    drop(stats);
    for (name, depthwise) in [("grouped", true), ("others", false)] {
        let some: Vec<StatRequest> = requests.iter().filter(|r| (r.view.groups() > 1) == depthwise).cloned().collect();
        let start = Instant::now();
        let stats = collect(&session, &data, &all, &some, &|_| ())?;
        println!("{name}: {} requests, {:?}", stats.len(), start.elapsed());
    }
    let outputs = graph_outputs(&model);
    let start = Instant::now();
    let session = open_session(engine(), &model, &outputs, &data)?;
    let same = compare(&Original::new(&session), &session, &data, &data.split().held_out, &|_| ())?;
    println!("compare {} outputs of {}: {:?}", same.len(), session.values().len(), start.elapsed());
    Ok(())
}

/// Memory in use and its peak.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter(|l| ["VmHWM", "VmRSS", "RssAnon"].iter().any(|k| l.starts_with(k)));
    lines.map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

fn requests(graph: &GraphProto) -> Vec<StatRequest> {
    let mut constants: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name(), t)).collect();
    for node in graph.node.iter().filter(|n| n.op_type() == "Constant") {
        if let Some(tensor) = node.attribute.iter().find_map(|a| a.t.as_deref()) {
            constants.insert(node.output[0].as_str(), tensor);
        }
    }
    let mut requests: Vec<StatRequest> = Vec::new();
    for node in &graph.node {
        let Some(weight) = node.input.get(1).and_then(|w| constants.get(w.as_str())) else { continue };
        let dims: Vec<usize> = weight.dims.iter().map(|&d| d as usize).collect();
        let view = match (node.op_type(), dims.as_slice()) {
            ("MatMul" | "Gemm", [inputs, outputs]) => {
                let transposed = ints(node, "transB").first() == Some(&1);
                let (inputs, outputs) = if transposed { (*outputs, *inputs) } else { (*inputs, *outputs) };
                // The outputs do not matter here; equal views share a request.
                MatrixView::Dense { inputs, outputs: outputs.min(1), transposed: false }
            }
            ("Conv", [out, per_group, kernel @ ..]) => conv(node, *out, *per_group, kernel),
            _ => continue,
        };
        let request = StatRequest { value: node.input[0].clone(), view, kind: StatKind::Gram };
        if !requests.contains(&request) {
            requests.push(request);
        }
    }
    requests
}

fn conv(node: &NodeProto, out_channels: usize, per_group: usize, kernel: &[usize]) -> MatrixView {
    let or = |name: &str, default: usize| match ints(node, name) {
        list if list.is_empty() => vec![default; kernel.len()],
        list => list,
    };
    let groups = or("group", 1)[0];
    let pads = match ints(node, "pads") {
        list if list.is_empty() => vec![0; 2 * kernel.len()],
        list => list,
    };
    let (begin, end) = pads.split_at(kernel.len());
    MatrixView::Conv(ConvGeometry {
        groups,
        out_channels,
        in_channels: per_group * groups,
        kernel: kernel.to_vec(),
        strides: or("strides", 1),
        dilations: or("dilations", 1),
        padding: Padding::Explicit { begin: begin.to_vec(), end: end.to_vec() },
    })
}

fn ints(node: &NodeProto, name: &str) -> Vec<usize> {
    let attribute = node.attribute.iter().find(|a| a.name() == name);
    let values = attribute.map(|a| if a.ints.is_empty() { a.i.into_iter().collect() } else { a.ints.clone() });
    values.unwrap_or_default().iter().map(|&i| i as usize).collect()
}
