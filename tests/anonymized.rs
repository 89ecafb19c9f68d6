//! `inspect --anonymize`: a model that can be shown, and that the command reads as it reads the original.

use serde_json::Value;

use crate::support::{Fixture, Run, files_in, folder, inspect, onnxquant};

#[test]
fn an_anonymous_model_has_the_layers_of_the_original() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    let mut command = onnxquant(&["inspect"]);
    let run = Run::of(command.arg(Fixture::CNN.model()).arg("--anonymize").arg(&out)).succeeded();
    assert!(run.stdout.contains("without weights and names"), "{}", run.stdout);
    assert!(run.stdout.contains("truncate -s "), "{}", run.stdout);
    assert_eq!(files_in(folder.path()), ["out.onnx", "out.onnx.data"]);
    let sent = std::fs::metadata(&out).expect("it was written").len();
    assert!(sent < 20_000, "{sent} bytes");
    let layers = |model: &std::path::Path| -> Vec<Value> {
        let layer = |layer: &Value| serde_json::json!([layer["op_type"], layer["weight_shape"], layer["storage"]]);
        inspect(model, &[])["layers"].as_array().expect("a list").iter().map(layer).collect()
    };
    let found = layers(&out);
    assert_eq!(found, layers(&Fixture::CNN.model()));
    assert!(!found.is_empty());
}
