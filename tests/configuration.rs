//! Options from files and presets: the same bytes as from the command line, and clear words where something is wrong.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Failures, Fixture, Run, folder, onnxquant, refused, root};

const MODEL: Fixture = Fixture::MLP;

/// A file in `folder` with this text.
fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder can be written");
    path
}

/// The bytes of the model that these options make.
fn quantized(folder: &Path, args: &[&str]) -> Vec<u8> {
    let output = folder.join("out.onnx");
    Run::of(onnxquant(&[MODEL.model(), output.clone()]).args(args)).succeeded();
    std::fs::read(output).expect("it was written")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// What `--print-config` prints.
fn printed(args: &[&str]) -> String {
    Run::of(onnxquant(&["--print-config"]).args(args)).succeeded().stdout
}

/// The TOML blocks of the chapter about configuration files.
fn blocks_of_the_book() -> Vec<String> {
    let page = root().join("docs/src/configuration.md");
    let chapter = std::fs::read_to_string(page).expect("the book has the chapter");
    let blocks = chapter.split("```toml\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.map(str::to_owned).collect()
}

#[test]
fn a_file_and_the_same_flags_give_the_same_bytes() {
    let folder = folder();
    let calib = MODEL.calib();
    let mut failures = Failures::default();
    let cases: [(&str, &[&str]); 4] = [
        ("bits = 4\nmethod = \"msq\"\nasymmetric = true\n", &["--bits", "4", "--method", "msq", "--asymmetric"]),
        (
            "scheme = \"w4\"\nexclude = [\"*fc1*\", \"*zz\"]\nallow_float = true\n",
            &["--scheme", "w4", "--exclude", "*fc1*", "--exclude", "*zz", "--allow-float"],
        ),
        ("average-bits = 3.5\nno-fallback = false\n", &["--average-bits", "3.5"]),
        ("extends = \"small\"\ndamping = 0.01\n", &["--scheme", "w4", "--embeddings", "8", "--damping", "0.01"]),
    ];
    for (said, flags) in cases {
        let config = file(folder.path(), "c.toml", said);
        let flags = [&["--calib", text(&calib)], flags].concat();
        let from_flags = quantized(folder.path(), &flags);
        let config = ["--calib", text(&calib), "--config", text(&config)];
        failures.check(from_flags == quantized(folder.path(), &config), || format!("other bytes: {said}"));
        let again = file(folder.path(), "again.toml", &printed(&config));
        let again = quantized(folder.path(), &["--config", text(&again)]);
        failures.check(from_flags == again, || format!("other bytes from what was printed: {said}"));
    }
    failures.finish();
}

#[test]
fn flags_come_before_files_and_files_before_presets() {
    let folder = folder();
    file(folder.path(), "base.toml", "extends = \"small\"\nsamples = 8\nmethod = \"msq\"\nort-min = 1.20\n");
    let config = file(folder.path(), "c.toml", "extends = \"base.toml\"\ncalib = \"data\"\nsamples = 16\nbeam = 2\n");
    let found = printed(&["--config", text(&config), "--samples", "24", "--method", "feedback"]);
    let table: toml::Table = found.parse().expect("what is printed is TOML");
    let value = |key: &str| table.get(key).map(ToString::to_string).unwrap_or_default();
    assert_eq!(["scheme", "samples", "method", "beam"].map(value), ["\"w4\"", "24", "\"feedback\"", "2"]);
    assert_eq!(value("ort-min").trim_matches('"'), "1.20");
    // Paths of a file lie beside it.
    assert_eq!(table["calib"].as_str(), folder.path().join("data").to_str());
    // What contradicts an option above it gives way.
    let found = printed(&["--config", text(&config), "--weights-only", "--method", "msq", "--samples", "24"]);
    assert!(found.contains("weights-only = true") && !found.contains("calib = "), "{found}");
    let preset = printed(&["--config", text(&config), "--preset", "npu"]);
    assert!(preset.contains("target = \"qdq-strict\"") && preset.contains("scheme = \"w8a8\""), "{preset}");
}

#[test]
fn mistakes_in_files_are_told_with_their_line() {
    let folder = folder();
    let cases: [(&str, &[&str]); 10] = [
        ("\nmehtod = \"msq\"\n", &["c.toml`, line 2", "`mehtod`", "nearest one is `method`"]),
        ("bits = 4\nscheme = \"w5\"\n", &["c.toml`, line 2", "w5", "w8a8"]),
        ("bits = true\n", &["c.toml`, line 1", "`bits`", "boolean"]),
        ("bits = 40\n", &["c.toml`, line 1", "40", "1..=8"]),
        ("one-pass = \"yes\"\n", &["c.toml`, line 1", "`one-pass` is true or false"]),
        ("bits = \n", &["c.toml`, line 1", "no TOML"]),
        ("one-pass = true\none_pass = true\n", &["line 2", "given twice"]),
        ("extends = \"smal\"\n", &["`smal`", "nearest one is `small`"]),
        ("extends = \"nowhere.toml\"\n", &["nowhere.toml", "cannot read"]),
        ("extends = \"c.toml\"\n", &["extend one another"]),
    ];
    let mut failures = Failures::default();
    for (said, parts) in cases {
        let config = file(folder.path(), "c.toml", said);
        let mut command = onnxquant(&[MODEL.model(), folder.path().join("out.onnx"), "--config".into(), config]);
        let problem = refused(&Run::of(command.arg("--calib").arg(MODEL.calib())), parts);
        failures.check(problem.is_none(), || format!("{said}: {}", problem.unwrap_or_default()));
    }
    failures.finish();
}

#[test]
fn a_key_without_effect_is_refused_as_the_flag_is_and_one_of_a_preset_is_not() {
    let folder = folder();
    let calib = MODEL.calib();
    let run = |said: &str, args: &[&str]| {
        let config = file(folder.path(), "c.toml", said);
        let mut command = onnxquant(&[MODEL.model(), folder.path().join("out.onnx"), "--config".into(), config]);
        Run::of(command.args(args).args(["--calib", text(&calib)]))
    };
    assert_eq!(refused(&run("scheme = \"w8\"\nrange = \"mse\"\n", &[]), &["--range has no effect here"]), None);
    // The preset's `cpu` is about integers.
    run("extends = \"cpu\"\nscheme = \"w4\"\n", &[]).succeeded();
}

#[test]
fn the_schema_has_every_key_that_is_printed() {
    let schema = Run::of(&mut onnxquant(&["--config-schema"])).succeeded().stdout;
    let schema: Value = serde_json::from_str(&schema).expect("the schema is JSON");
    let table: toml::Table = printed(&["--calib", text(&MODEL.calib())]).parse().expect("what is printed is TOML");
    assert!(table.len() > 20);
    for key in table.keys() {
        assert!(schema["properties"][key]["description"].is_string(), "`{key}` is not in the schema");
    }
    let words = schema["properties"]["scheme"]["enum"].as_array().expect("a scheme is a word");
    assert!(words.contains(&"w8a8-dynamic".into()));
    let file = std::fs::read_to_string(root().join("docs/config.schema.json")).expect("the schema is in docs");
    let current = serde_json::from_str::<Value>(&file).expect("it is JSON");
    assert!(current == schema, "docs/config.schema.json is old: `onnxquant --config-schema > docs/config.schema.json`");
}

#[test]
fn presets_and_the_example_of_the_book_run() {
    let folder = folder();
    let calib = MODEL.calib();
    for preset in ["cpu", "small", "smallest", "decoder", "npu"] {
        quantized(folder.path(), &["--preset", preset, "--calib", text(&calib)]);
    }
    let blocks = blocks_of_the_book();
    assert!(!blocks.is_empty());
    std::fs::create_dir(folder.path().join("samples")).expect("the folder can be written");
    let sample = folder.path().join("samples/0.npz");
    std::fs::copy(MODEL.sample(0), sample).expect("the sample can be copied");
    for block in blocks {
        let config = file(folder.path(), "onnxquant.toml", &block);
        quantized(folder.path(), &["--config", text(&config)]);
    }
}
