//! What is captured inside a model while it runs is what ONNX Runtime computes there.

use onnxquant::calib::{CalibSet, DataOptions, InputSpec, Session, engine, open_session, write_captures};
use onnxquant::{Config, Plan};

use crate::support::{Failures, Fixture, Job, folder, measure};

/// Samples compared; the transformers' differ in length.
const SAMPLES: usize = 4;
/// Largest difference relative to the largest number of a tensor.
const LARGEST_ERROR: f64 = 2e-5;

#[test]
fn captured_layer_inputs_equal_those_of_onnx_runtime() {
    let folder = folder();
    let mut failures = Failures::default();
    let fixtures = [Fixture::CNN, Fixture::CONV1D, Fixture::TRANSFORMER, Fixture::TRANSFORMER_OP14];
    let (mut jobs, mut counts) = (Vec::new(), Vec::new());
    for fixture in fixtures {
        let model = onnxquant::read(&fixture.model()).expect("the fixture can be read");
        let plan = Plan::new(&model, &Config::default()).expect("the fixture can be planned");
        let mut values =
            plan.layers.iter().map(|layer| model.graph().value(layer.site.input).name().to_owned()).collect::<Vec<_>>();
        values.sort();
        values.dedup();

        let proto = model.to_proto();
        let graph = proto.graph.as_ref().expect("the model has a graph");
        let inputs = InputSpec::from_graph(graph, model.ir_version()).expect("the inputs are tensors");
        let options = DataOptions { samples: Some(SAMPLES), ..DataOptions::default() };
        let data = CalibSet::open(&fixture.calib(), &inputs, &options).expect("the samples can be read");
        let session = open_session(engine(), &proto, &values, &data).expect("tract runs the fixture");
        let mut captures = Vec::new();
        for index in 0..data.len() {
            let captured = session.run(&data.load(index).expect("the sample can be read")).expect("the sample runs");
            let path = folder.path().join(format!("{}_{index}.npz", fixture.name));
            write_captures(&path, session.values(), &captured).expect("captures can be written");
            captures.push((data.describe(index).trim_matches('`').into(), path));
        }
        counts.push(values.len());
        jobs.push(Job { model: fixture.model(), captures, ..Job::default() });
    }
    for ((fixture, found), count) in fixtures.iter().zip(measure(&jobs)).zip(counts) {
        let name = fixture.name;
        failures.check(found.problems.is_empty(), || format!("{name}: {}", found.faults()));
        failures
            .check(found.captured_values == count, || format!("{name}: {} of {count} values", found.captured_values));
        let close = found.capture_error.is_some_and(|error| error <= LARGEST_ERROR);
        failures.check(close, || format!("{name}: largest relative error {:?}", found.capture_error));
    }
    failures.finish();
}
