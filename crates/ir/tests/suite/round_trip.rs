//! What is read is written back as it was; what is invalid is refused by name.

use onnxquant_ir::onnx::ModelProto;
use onnxquant_ir::{ExternalData, Model, ReadModelError, WriteModelError, verify, write_model};
use onnxquant_proto::Message as _;

use super::{floats, message, names_in, trap, traps};

fn fixtures(valid: bool) -> Vec<String> {
    let is_model = |name: &String| name.ends_with(".onnx") && name.starts_with("invalid_") != valid;
    names_in(&traps()).into_iter().filter(is_model).collect()
}

#[test]
fn every_valid_fixture_is_read_and_its_message_comes_back_equal() {
    let names = fixtures(true);
    assert!(names.len() > 150, "{}", names.len());
    for name in names {
        let path = traps().join(&name);
        let model = Model::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(verify(&model), [], "{name}");
        let written = model.to_proto();
        if model.external_files().is_empty() {
            // NaN differs from itself, so the bytes are compared.
            assert_eq!(written.encode_to_vec(), onnxquant_proto::read_model(&path).unwrap().encode_to_vec(), "{name}");
        }
        let again = Model::from_proto(written.clone()).unwrap_or_else(|violations| panic!("{name}: {violations:?}"));
        assert_eq!(again.to_proto().encode_to_vec(), written.encode_to_vec(), "{name}");
    }
}

#[test]
fn every_valid_fixture_is_written_and_read_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    for name in fixtures(true) {
        let model = trap(&name);
        for external in [ExternalData::Auto, ExternalData::Always] {
            write_model(&model, &path, external).unwrap_or_else(|error| panic!("{name}: {error}"));
            let again = Model::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(again.to_proto().encode_to_vec(), model.to_proto().encode_to_vec(), "{name}");
        }
    }
}

#[test]
fn every_invalid_fixture_is_refused() {
    let names = fixtures(false);
    assert!(names.len() > 40, "{}", names.len());
    let accepted = names.iter().filter(|name| Model::read(&traps().join(name)).is_ok()).collect::<Vec<_>>();
    assert_eq!(accepted, Vec::<&String>::new());
}

#[test]
fn refusal_lists_violations_up_to_twenty() {
    let mut proto = message(vec![floats("w", 1)]);
    let graph = proto.graph.as_mut().unwrap();
    graph.node[0].input.extend((0..25).map(|index| format!("missing{index}")));
    let violations = Model::from_proto(proto).unwrap_err();
    let text = ReadModelError::Invalid(violations).to_string();
    assert!(
        text.starts_with("invalid model: 25 violations\n  - node `y` (Sum) reads `missing0`, which nothing"),
        "{text}"
    );
    assert!(text.ends_with("\n  - and 5 more"), "{text}");
}

#[test]
fn invalid_model_is_not_written_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::from_proto(message(vec![floats("w", 2000)])).unwrap();
    model.set_opset("", 1000);
    for external in [ExternalData::Auto, ExternalData::Always] {
        let error = write_model(&model, &folder.path().join("m.onnx"), external).unwrap_err();
        assert!(matches!(&error, WriteModelError::Check(text) if text.contains("opset 1000")), "{error}");
    }
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}

#[test]
fn everything_beside_the_graph_is_kept() {
    let proto = ModelProto {
        producer_name: Some("producer".into()),
        doc_string: Some("text".into()),
        model_version: Some(7),
        ..message(vec![floats("w", 1)])
    };
    let mut model = Model::from_proto(proto.clone()).unwrap();
    assert_eq!(model.to_proto(), proto);
    model.set_metadata("key", "one");
    model.set_metadata("key", "two");
    assert_eq!((model.metadata("key"), model.metadata("other")), (Some("two"), None));
    assert_eq!(model.to_proto().metadata_props.len(), 1);
}

#[test]
fn domain_imported_twice_counts_at_its_highest_and_is_set_everywhere() {
    let mut proto = message(vec![]);
    for (domain, version) in [("ai.onnx", 13), ("com.example", 1)] {
        let import = onnxquant_ir::onnx::OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
        proto.opset_import.push(import);
    }
    let mut model = Model::from_proto(proto).unwrap();
    assert_eq!(
        [model.opset(""), model.opset("ai.onnx"), model.opset("com.example"), model.opset("d")],
        [Some(21), Some(21), Some(1), None]
    );
    model.set_opset("ai.onnx", 17);
    model.set_opset("d", 3);
    let versions = model.opsets().iter().map(|import| import.version()).collect::<Vec<_>>();
    assert_eq!(versions, [17, 17, 1, 3]);
}
