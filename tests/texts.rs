//! Texts as samples, and folders with what belongs to a model.

use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Split, Tensor, write_captures};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::tensor_shape_proto::{Dimension, dimension};
use onnxquant_ir::onnx::{ModelProto, NodeProto, ValueInfoProto, type_proto};
use onnxquant_ir::tensor;
use serde_json::Value;

use crate::support::{
    MatMulModel, Run, external_tensor, files_in, float_tensor, float_value, folder, integers, model_of, node, noise,
    noise_samples, onnxquant, refused, with_int, with_ints, write,
};

/// Words that the tokenizer knows, in the order of their numbers.
const WORDS: [&str; 9] = ["[UNK]", "[CLS]", "[SEP]", "we", "read", "and", "write", "long", "texts"];
const WIDTH: i64 = 32;
const WINDOW: usize = 8;
const SAMPLES: usize = 16;
/// Words of a long text.
const LONG: usize = 3000;

/// A tokenizer of single words, with `processor` as what stands around a text.
fn tokenizer(processor: &str) -> String {
    let words: Vec<String> = WORDS.iter().enumerate().map(|(number, word)| format!("\"{word}\": {number}")).collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "post_processor": {processor}, "decoder": null,
        "model": {{"type": "WordLevel", "unk_token": "[UNK]", "vocab": {{{}}}}}}}"#,
        words.join(", ")
    )
}

/// What onnxruntime-genai knows a folder with [`decoder`] by.
const GENAI: &str = r#"{"model": {"type": "llama", "context_length": 64, "decoder": {"filename": "decoder.onnx",
    "head_size": 16, "num_key_value_heads": 2,
    "inputs": {"input_ids": "input_ids", "past_key_names": "past_key_values.%d.key"},
    "outputs": {"logits": "logits", "present_key_names": "present.%d.key"}}}}"#;

/// An input or output of this type; a name stands for any length.
fn declared(name: &str, kind: DataType, dims: &[&str]) -> ValueInfoProto {
    let mut info = float_value(name, &vec![1; dims.len()]);
    if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|found| found.value.as_mut()) {
        tensor.elem_type = Some(kind as i32);
        for (dim, text) in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).zip(dims) {
            let any = || dimension::Value::DimParam((*text).to_owned());
            let value = Some(text.parse().map_or_else(|_| any(), dimension::Value::DimValue));
            *dim = Dimension { value, ..Dimension::default() };
        }
    }
    info
}

/// A node that is called as its result.
fn named(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto { name: Some(output.to_owned()), ..node(op_type, inputs, &[output]) }
}

/// One block of attention with caches, and a head, over the words of the tokenizer.
fn decoder() -> ModelProto {
    let turned =
        |input: &str, output: &str, order: &[i64]| with_ints(named("Transpose", &[input], output), "perm", order);
    let mut nodes = vec![
        named("Gather", &["table", "input_ids"], "x"),
        with_int(named("Cast", &["attention_mask"], "seen"), "to", DataType::Float as i64),
        named("Sub", &["seen", "one"], "unseen"),
        named("Mul", &["unseen", "large"], "penalty"),
        named("Unsqueeze", &["penalty", "middle"], "mask"),
    ];
    for part in ["q", "k", "v"] {
        let name = |what: &str| format!("{part}_{what}");
        nodes.push(named("MatMul", &["x", &name("weight")], &name("all")));
        nodes.push(named("Reshape", &[&name("all"), "heads"], &name("split")));
        nodes.push(turned(&name("split"), &name("own"), &[0, 2, 1, 3]));
    }
    for (part, kind) in [("k", "key"), ("v", "value")] {
        let (past, own) = (format!("past_key_values.0.{kind}"), format!("{part}_own"));
        nodes.push(with_int(named("Concat", &[&past, &own], &format!("present.0.{kind}")), "axis", 2));
    }
    nodes.extend([
        turned("present.0.key", "keys", &[0, 1, 3, 2]),
        named("MatMul", &["q_own", "keys"], "scores"),
        named("Add", &["scores", "mask"], "masked"),
        with_int(named("Softmax", &["masked"], "attention"), "axis", -1),
        named("MatMul", &["attention", "present.0.value"], "seen_values"),
        turned("seen_values", "beside", &[0, 2, 1, 3]),
        named("Reshape", &["beside", "joined"], "joined_values"),
        named("MatMul", &["joined_values", "o_weight"], "o"),
        named("Add", &["x", "o"], "sum"),
        named("MatMul", &["sum", "head_weight"], "logits"),
    ]);
    let words = WORDS.len() as i64;
    let weight = |(seed, name): (usize, &str), dims: [i64; 2]| {
        float_tensor(&format!("{name}_weight"), &dims, noise(seed, dims.iter().product::<i64>() as usize, 0.3))
    };
    let square = ["q", "k", "v", "o"].into_iter().enumerate().map(|part| weight(part, [WIDTH, WIDTH]));
    let constants = [
        float_tensor("table", &[words, WIDTH], noise(9, (words * WIDTH) as usize, 1.0)),
        weight((5, "head"), [WIDTH, words]),
        float_tensor("one", &[], std::iter::once(1.0)),
        float_tensor("large", &[], std::iter::once(1e4)),
        integers("middle", &[1, 2]),
        integers("heads", &[0, 0, 2, 16]),
        integers("joined", &[0, 0, WIDTH]),
    ];
    let tokens = |name: &str, length: &str| declared(name, DataType::Int64, &["batch", length]);
    let cache = |name: &str, length: &str| declared(name, DataType::Float, &["batch", "2", length, "size"]);
    let inputs = vec![
        cache("past_key_values.0.key", "past"),
        tokens("input_ids", "length"),
        tokens("attention_mask", "total"),
        cache("past_key_values.0.value", "past"),
    ];
    let logits = declared("logits", DataType::Float, &["batch", "length", "words"]);
    let outputs = vec![logits, cache("present.0.key", "total"), cache("present.0.value", "total")];
    model_of(nodes, square.chain(constants).collect(), inputs, outputs)
}

/// A text of so many words.
fn text(words: usize) -> String {
    let word = |at: usize| WORDS[3 + (at * at + at / 5) % 6];
    (0..words).map(|at| format!("{}{}", word(at), if at % 11 == 10 { "\n" } else { " " })).collect()
}

/// A folder `in` with the decoder and what belongs to it, and texts beside it.
fn fill(folder: &Path) {
    fill_with(folder, decoder(), text(SAMPLES * WINDOW + 3));
}

/// The same by another name, with texts long enough for any number of samples.
pub(crate) fn fill_folder(folder: &Path, name: &str) {
    fill_with(folder, decoder(), text(LONG));
    std::fs::rename(folder.join("in"), folder.join(name)).expect("a folder can be renamed");
}

/// The same with another decoder and text.
fn fill_with(folder: &Path, mut model: ModelProto, text: String) {
    let at = |name: &str| folder.join(name);
    std::fs::create_dir_all(at("in/more")).expect("folders can be made");
    let weights = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for tensor in weights.filter(|tensor| tensor.name() == "table") {
        let numbers = tensor.raw_data.take().expect("it holds its numbers");
        std::fs::write(at("in/decoder.onnx.data"), numbers).expect("a file can be written");
        *tensor = external_tensor("table", &tensor.dims, "decoder.onnx.data");
    }
    write(&model, &at("in/decoder.onnx"));
    write(&MatMulModel::new(4, 4).proto(), &at("in/embedding.onnx"));
    let texts = [
        ("in/genai_config.json", GENAI.to_owned()),
        ("in/tokenizer.json", tokenizer("null")),
        ("in/more/notes.md", "notes".to_owned()),
        ("texts.txt", text),
    ];
    texts.iter().for_each(|(name, text)| std::fs::write(at(name), text).expect("a file can be written"));
}

fn read_report(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("the report was written");
    serde_json::from_str(&text).expect("the report is JSON")
}

/// Quantizes `in` of `folder` into `out` on its texts.
fn run(folder: &Path, args: &[&str]) -> Run {
    let mut command = onnxquant(&["in", "out", "--calib", "texts.txt", "--sequence-length", &WINDOW.to_string()]);
    Run::of(command.args(["--report", "report.json"]).args(args).current_dir(folder))
}

#[test]
fn a_decoder_becomes_a_folder_calibrated_on_texts_with_and_without_a_past() {
    let folder = folder();
    fill(folder.path());
    let printed = run(folder.path(), &["--scheme", "w4"]).succeeded();
    assert_eq!(files_in(folder.path()), ["in", "out", "report.json", "texts.txt"]);
    let out = folder.path().join("out");
    let own = ["decoder.onnx", "decoder.onnx.data"];
    let copied = ["embedding.onnx", "genai_config.json", "more", "tokenizer.json"];
    assert_eq!(files_in(&out), [&own[..], &copied].concat());
    for name in ["embedding.onnx", "genai_config.json", "tokenizer.json", "more/notes.md"] {
        let read = |inside: &str| std::fs::read(folder.path().join(inside).join(name)).expect("it was copied");
        assert_eq!(read("in"), read("out"), "{name}");
    }
    let found = read_report(&folder.path().join("report.json"));
    let expected = serde_json::json!({"samples": SAMPLES, "tokens": WINDOW, "continued": 4});
    assert_eq!(found["texts"], expected);
    let other = &found["folder"]["other_models"][0];
    assert_eq!((&other["model"], &other["because"]), (&"embedding.onnx".into(), &"it would be no smaller".into()));
    assert_eq!(found["settings"]["granularity"], serde_json::json!({"block": 32}));
    // What continues a text has given half of its tokens away.
    let tokens = |sample: &usize| if [0, 5, 10, 15].contains(sample) { WINDOW / 2 } else { WINDOW };
    let rows: usize = Split::of(SAMPLES).calibration.iter().map(tokens).sum();
    let layers = found["layers"].as_array().expect("layers are listed");
    assert_eq!(layers.len(), 5);
    assert!(layers.iter().all(|layer| layer["calibration_rows"] == rows), "{rows}: {layers:?}");
    for line in [
        "folder  `decoder.onnx` quantized, 4 files copied\n        `embedding.onnx` as it was: it would be no smaller\n",
        "texts   16 samples of up to 8 tokens; 4 of them begin behind a past\n",
    ] {
        assert!(printed.says(line), "{}", printed.stdout);
    }
    assert!(printed.complaints().is_empty(), "{}", printed.stderr);
    let sqnr = found["held_out"]["sqnr_db"].as_f64().expect("it is measured");
    assert!(sqnr > 15.0, "{sqnr}");
    let measured = found["measured"]["sqnr_db"].as_f64().expect("ONNX Runtime measures it");
    assert!((measured - sqnr).abs() < 1.0, "{measured} {sqnr}");
    // What was written is what is there.
    let bytes: u64 = own.iter().map(|name| std::fs::metadata(out.join(name)).expect("it is there").len()).sum();
    assert_eq!(found["bytes_after"], bytes);
}

/// [`decoder`] with a head that finds the word before every word likely, of a text in which words follow in their order.
fn foretelling() -> (ModelProto, String) {
    let mut model = decoder();
    let mut constants = model.graph.iter().flat_map(|graph| &graph.initializer);
    let table = constants.find(|constant| constant.name() == "table").expect("it has a table");
    let table = tensor::to_f32(table).expect("it holds floats").into_owned();
    let (words, width) = (WORDS.len(), WIDTH as usize);
    let before = |word: usize| if word == 3 { words - 1 } else { word.saturating_sub(1) };
    let head = (0..width).flat_map(|at| (0..words).map(move |word| (at, before(word))));
    let head: Vec<f32> = head.map(|(at, word)| 0.3 * table[word * width + at]).collect();
    let constants = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for constant in constants.filter(|constant| constant.name() == "head_weight") {
        *constant = float_tensor("head_weight", &[WIDTH, words as i64], head.iter().copied());
    }
    let text = (0..SAMPLES * WINDOW + 3).map(|at| format!("{} ", WORDS[3 + at % 6])).collect();
    (model, text)
}

#[test]
fn perplexity_of_a_decoder_is_told_and_held_to() {
    let folder = folder();
    let (model, text) = foretelling();
    fill_with(folder.path(), model, text);
    let printed = run(folder.path(), &["--scheme", "w2", "--max-perplexity-ratio", "1.5"]).succeeded();
    let found = read_report(&folder.path().join("report.json"));
    let figure = |part: &str, name: &str| found[part]["tokens"][name].as_f64().expect("it is told");
    let float = figure("measured", "float_perplexity");
    assert!(float > 1.0 && float < 6.0, "{float}");
    let ratio = figure("measured", "perplexity_ratio");
    assert!((ratio - figure("measured", "perplexity") / float).abs() < 1e-9 && ratio != 1.0, "{ratio}");
    assert!((ratio - figure("held_out", "perplexity_ratio")).abs() < 0.02, "{found}");
    assert!(figure("measured", "mean_divergence") > 0.0);
    // Samples that continue a text hold half of it.
    let tokens = |sample: &usize| if [0, 5, 10, 15].contains(sample) { WINDOW / 2 - 1 } else { WINDOW - 1 };
    let held_out: usize = Split::of(SAMPLES).held_out.iter().map(tokens).sum();
    assert_eq!(found["measured"]["tokens"]["tokens"], held_out);
    let line = format!("tokens  perplexity {float:.3} -> {:.3} (x {ratio:.4})", figure("measured", "perplexity"));
    assert!(printed.says(&line), "{}", printed.stdout);
    std::fs::remove_dir_all(folder.path().join("out")).expect("it was written");
    let most = format!("{:.4}", 1.0 + (ratio - 1.0).max(2e-4) / 2.0);
    let missed = run(folder.path(), &["--scheme", "w2", "--max-perplexity-ratio", &most]);
    assert!(missed.code == Some(1) && missed.stderr.contains("times that of the float model, at most"), "{missed:?}");
}

#[test]
fn a_perplexity_that_no_output_has_is_no_goal_reached() {
    let folder = folder();
    fill(folder.path());
    let refused_run = run(folder.path(), &["--scheme", "w8", "--max-perplexity-ratio", "1"]);
    assert_eq!(refused(&refused_run, &["a ratio of perplexities is a number above 1"]), None);
    let missed = run(folder.path(), &["--scheme", "w8", "--max-perplexity-ratio", "1.1"]);
    assert!(missed.code == Some(1) && missed.stderr.contains("perplexity was not measured"), "{missed:?}");
}

#[test]
fn every_model_of_a_folder_is_quantized_with_samples_of_its_own_or_without() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for part in ["in", "data"] {
        std::fs::create_dir(at(part)).expect("folders can be made");
    }
    for (name, k) in [("encoder", 512), ("head", 256), ("tower", 384)] {
        write(&MatMulModel::new(k, 64).proto(), &at("in").join(format!("{name}.onnx")));
    }
    noise_samples(&at("data/encoder"), &[1, 512], 20);
    noise_samples(&at("data/head"), &[1, 256], 20);
    let mut command = onnxquant(&["in", "out", "--calib", "data", "--scheme", "w8", "--report", "report.json"]);
    let printed = Run::of(command.current_dir(folder.path())).succeeded();
    assert_eq!(files_in(&at("out")), ["encoder.onnx", "head.onnx", "tower.onnx"]);
    let found = read_report(&at("report.json"));
    assert_eq!(found["folder"]["model"], "encoder.onnx");
    let others = found["folder"]["other_models"].as_array().expect("they are listed");
    let figures = |other: &Value| {
        let made = &other["quantized"];
        (other["model"].clone(), made["layers"].clone(), made["expected_db"].as_f64().is_some_and(|db| db > 30.0))
    };
    let found: Vec<(Value, Value, bool)> = others.iter().map(figures).collect();
    assert_eq!(found, [("head.onnx".into(), 1.into(), true), ("tower.onnx".into(), 1.into(), false)]);
    assert!(printed.says("weights of 8 bits without data, accuracy not measured"), "{}", printed.stdout);
}

#[test]
fn a_folder_appears_whole_or_not_at_all() {
    let folder = folder();
    fill(folder.path());
    std::fs::create_dir(folder.path().join("out")).expect("a folder can be made");
    let failed = run(folder.path(), &["--tokenizer", "nowhere.json"]);
    assert_eq!(refused(&failed, &["nowhere.json"]), None);
    let before = ["in", "out", "texts.txt"];
    assert_eq!(files_in(folder.path()), before);
    assert_eq!(files_in(&folder.path().join("out")), [""; 0]);
    // The embedded engine runs samples with and without a past, too.
    run(folder.path(), &["--method", "msq", "--samples", "8", "--ort-lib", "off"]).succeeded();
    let found = read_report(&folder.path().join("report.json"))["texts"].clone();
    assert_eq!(found, serde_json::json!({"samples": 8, "tokens": WINDOW, "continued": 2}));
    let again = run(folder.path(), &["--method", "msq"]);
    assert_eq!(refused(&again, &["`out`", "not empty"]), None);
    let into_itself = Run::of(onnxquant(&["in", "in", "--weights-only"]).current_dir(folder.path()));
    assert_eq!(refused(&into_itself, &["`in`", "not empty"]), None);
    let over_a_file = Run::of(onnxquant(&["in", "texts.txt", "--weights-only"]).current_dir(folder.path()));
    assert_eq!(refused(&over_a_file, &["texts.txt", "expected a folder"]), None);
}

#[test]
fn an_encoder_reads_a_line_a_sample() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let nodes = vec![
        named("Gather", &["table", "input_ids"], "words"),
        named("Gather", &["table", "token_type_ids"], "types"),
        named("Add", &["words", "types"], "x"),
        named("MatMul", &["x", "w"], "y"),
    ];
    let (words, width) = (WORDS.len() as i64, WIDTH as usize);
    let constants = vec![
        float_tensor("table", &[words, WIDTH], noise(9, WORDS.len() * width, 1.0)),
        float_tensor("w", &[WIDTH, WIDTH], noise(3, width * width, 0.3)),
    ];
    let tokens = |name: &str| declared(name, DataType::Int64, &["batch", "length"]);
    let output = declared("y", DataType::Float, &["batch", "length", "width"]);
    write(
        &model_of(nodes, constants, vec![tokens("input_ids"), tokens("token_type_ids")], vec![output]),
        &at("in.onnx"),
    );
    let around = r#"{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}"#;
    std::fs::write(at("words.json"), tokenizer(around)).expect("a file can be written");
    std::fs::write(at("texts.txt"), text(66)).expect("a file can be written");
    let args = ["in.onnx", "out.onnx", "--calib", "texts.txt", "--tokenizer", "words.json", "--report", "report.json"];
    let run = |more: &[&str]| Run::of(onnxquant(&args).args(more).current_dir(folder.path())).succeeded();
    let printed = run(&[]);
    assert!(printed.says("texts   6 samples of up to 13 tokens\n"), "{}", printed.stdout);
    run(&["--sequence-length", "5", "--samples", "4"]);
    let found = read_report(&at("report.json"))["texts"].clone();
    assert_eq!(found, serde_json::json!({"samples": 4, "tokens": 5, "continued": 0}));
}

#[test]
fn samples_that_never_begin_at_the_first_token_are_warned_of() {
    let folder = folder();
    let nodes = vec![named("MatMul", &["x", "w"], "y"), named("Identity", &["past_0"], "present_0")];
    let weight = float_tensor("w", &[WIDTH, 4], noise(1, WIDTH as usize * 4, 0.3));
    let cache = |name: &str| declared(name, DataType::Float, &["1", "2", "past", "4"]);
    let inputs = vec![float_value("x", &[1, WIDTH]), cache("past_0")];
    write(
        &model_of(nodes, vec![weight], inputs, vec![float_value("y", &[1, 4]), cache("present_0")]),
        &folder.path().join("in.onnx"),
    );
    std::fs::create_dir(folder.path().join("calib")).expect("a folder can be made");
    let save = |sample: usize, past: usize| {
        let array = |shape: &[usize]| {
            let mut numbers = noise(sample, shape.iter().product(), 1.0);
            Tensor::F32(ArrayD::from_shape_fn(IxDyn(shape), |_| numbers.next().expect("there are enough")))
        };
        let values = [array(&[1, WIDTH as usize]), array(&[1, 2, past, 4])];
        let path = folder.path().join(format!("calib/{sample}.npz"));
        write_captures(&path, &["x".to_owned(), "past_0".to_owned()], &values).expect("a sample can be written");
    };
    let run = || {
        let mut command = onnxquant(&["in.onnx", "out.onnx", "--calib", "calib"]);
        let run = Run::of(command.current_dir(folder.path())).succeeded();
        run.complaints().join("\n")
    };
    (0..4).for_each(|sample| save(sample, 1 + sample % 2));
    assert!(run().contains("warning: the caches are empty in no sample"), "{}", run());
    save(4, 0);
    assert_eq!(run(), "");
}
