//! Bad input and bad usage: a clear message, the exit code, nothing left behind.

use std::path::{Path, PathBuf};

use onnxquant::calib::{Tensor, write_captures};

use crate::command::bytes;
use crate::support::{Failures, Fixture, Run, files_in, folder, onnxquant, refused, root};

/// A refused run: what differs from `onnxquant MODEL OUT --calib CALIB`, and what the message must say.
struct Refusal {
    name: &'static str,
    input: PathBuf,
    output: PathBuf,
    args: Vec<PathBuf>,
    texts: Vec<&'static str>,
}

#[test]
fn bad_input_is_refused_with_a_message_and_nothing_left_behind() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mlp = Fixture::MLP;
    std::fs::create_dir(at("empty")).expect("a folder can be made");
    std::fs::create_dir(at("text")).expect("a folder can be made");
    std::fs::write(at("text/notes.txt"), "no samples here").expect("a file can be written");
    std::fs::write(at("text.onnx"), "This is no model.").expect("a file can be written");
    std::fs::copy(mlp.model(), at("model.onnx")).expect("the fixture can be copied");
    sample(&at("wrong_name"), "picture", &[1, 64]);
    sample(&at("wrong_rank"), "x", &[64]);
    sample(&at("wrong_shape"), "x", &[1, 63]);
    std::fs::create_dir(at("wrong_dtype")).expect("a folder can be made");
    std::fs::copy(root().join("fixtures/traps/matmul_int32.npz"), at("wrong_dtype/0.npz")).expect("it can be copied");
    std::fs::create_dir(at("broken")).expect("a folder can be made");
    std::fs::write(at("broken/0.npz"), &bytes(&mlp.sample(0))[..200]).expect("a file can be written");

    let calib = |path: PathBuf| vec!["--calib".into(), path];
    let good = |more: &[&str]| [calib(mlp.calib()), more.iter().map(PathBuf::from).collect()].concat();
    let usual = |name, args, texts: &[&'static str]| Refusal {
        name,
        input: at("model.onnx"),
        output: at("out.onnx"),
        args,
        texts: texts.to_vec(),
    };
    let cases = [
        Refusal { input: at("absent.onnx"), ..usual("no such model", good(&[]), &["absent.onnx", "No such file"]) },
        Refusal {
            input: at("absent.onnx"),
            output: at("absent/out.onnx"),
            ..usual("neither model nor folder", good(&[]), &["absent.onnx", "No such file"])
        },
        Refusal { output: at("small/"), ..usual("a folder as output", good(&[]), &["small", "it is a folder"]) },
        Refusal { input: at("text.onnx"), ..usual("no model", good(&[]), &["text.onnx"]) },
        Refusal { input: at("empty"), ..usual("a folder as model", good(&[]), &["empty"]) },
        Refusal {
            output: at("model.onnx"),
            ..usual("output is the input", good(&[]), &["model.onnx", "never overwritten"])
        },
        Refusal {
            output: at("./empty/../model.onnx"),
            ..usual("the same in other words", good(&[]), &["never overwritten"])
        },
        Refusal {
            output: at("absent/out.onnx"),
            ..usual("no such folder", good(&[]), &["out.onnx", "folder does not exist"])
        },
        Refusal { output: at("empty"), ..usual("output is a folder", good(&[]), &["empty", "folder"]) },
        usual("no data", vec![], &["--calib"]),
        usual("no such data", calib(at("absent")), &["absent"]),
        usual("empty folder", calib(at("empty")), &["empty"]),
        usual("folder without samples", calib(at("text")), &["text"]),
        usual("array of another name", calib(at("wrong_name")), &["0.npz", "`picture`", "`x`"]),
        usual("array of another rank", calib(at("wrong_rank")), &["0.npz", "`x`", "[64]"]),
        usual("array of another shape", calib(at("wrong_shape")), &["0.npz", "`x`", "[1, 63]", "64"]),
        usual("array of another type", calib(at("wrong_dtype")), &["0.npz", "`x`"]),
        usual("broken sample", calib(at("broken")), &["0.npz"]),
        usual("9 bits", good(&["--bits", "9"]), &["9"]),
        usual("0 bits", good(&["--bits", "0"]), &["0"]),
        usual("old runtime", good(&["--ort-min", "1.18"]), &["1.19"]),
        usual("no such kernel", good(&["--ort-min", "1.20", "--format", "matmulnbits"]), &["--ort-min 1.22"]),
        usual("fp8 and bits", good(&["--scheme", "fp8", "--bits", "8"]), &["FP8", "leave out --bits"]),
        usual("fp8 and zero points", good(&["--scheme", "fp8", "--asymmetric"]), &["FP8", "leave out --asymmetric"]),
        usual(
            "fp8 and mixed bits",
            good(&["--scheme", "fp8", "--average-bits", "4"]),
            &["--scheme fp8", "--average-bits"],
        ),
        usual("fp8 and a size", good(&["--scheme", "fp8", "--target-size", "1"]), &["--scheme fp8", "--target-size"]),
        usual("fp8 and a form", good(&["--scheme", "fp8", "--format", "dq"]), &["FP8", "leave out --format"]),
        usual("fp8 and blocks", good(&["--scheme", "fp8", "--granularity", "block:32"]), &["FP8", "a block"]),
        usual(
            "fp8 and a plan",
            good(&["--scheme", "fp8", "--save-plan", "plan.toml"]),
            &["FP8", "leave out --save-plan"],
        ),
        usual("fp8 and old opsets", good(&["--scheme", "fp8", "--opset-max", "18"]), &["opset 19", "--opset-max"]),
        usual("unknown method", good(&["--method", "magic"]), &["magic", "msq"]),
        usual("bad granularity", good(&["--granularity", "block:1"]), &["block:1", "block:N"]),
        usual("bad glob", good(&["--include", "[a"]), &["[a"]),
        usual("no samples wanted", good(&["--samples", "0"]), &["0"]),
        usual("no threads wanted", good(&["--threads", "0"]), &["0"]),
        usual("calib and no calib", good(&["--weights-only"]), &["--weights-only"]),
        usual(
            "walk without data",
            vec!["--weights-only".into(), "--method".into(), "cell-walk".into()],
            &["calibration data"],
        ),
        usual("opset too low", good(&["--granularity", "block:32", "--format", "dq", "--opset-max", "13"]), &["opset"]),
        usual("report in no folder", good(&["--report", "/absent/report.json"]), &["/absent/report.json"]),
        usual("unknown flag", good(&["--faster"]), &["--faster"]),
    ];
    let before = (files_in(folder.path()), bytes(&at("model.onnx")));
    let mut failures = Failures::default();
    for case in cases {
        let run = Run::of(onnxquant(&[&case.input, &case.output]).args(&case.args));
        let fault = refused(&run, &case.texts);
        failures.check(fault.is_none(), || format!("{}: {}", case.name, fault.unwrap_or_default()));
        failures.check(run.stdout.is_empty(), || format!("{}: printed {}", case.name, run.stdout));
        let after = (files_in(folder.path()), bytes(&at("model.onnx")));
        failures.check(after == before, || format!("{}: files changed: {:?}", case.name, after.0));
    }
    failures.check(files_in(&at("empty")).is_empty(), || "something was left in `empty`".to_owned());
    failures.finish();
}

/// A folder with one sample that holds one array.
fn sample(folder: &Path, name: &str, shape: &[usize]) {
    std::fs::create_dir(folder).expect("a folder can be made");
    let array = ndarray::ArrayD::from_elem(ndarray::IxDyn(shape), 0.5f32);
    write_captures(&folder.join("0.npz"), &[name.to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
}

#[test]
fn bad_input_is_refused_by_inspect_and_compare() {
    let model = Fixture::MLP.model();
    let (other, calib) = (Fixture::CONV1D.model(), Fixture::MLP.calib());
    let traps = root().join("fixtures/traps");
    let renamed = traps.join("matmul_alone.onnx");
    let cases: [(&str, Run, &[&str]); 6] = [
        ("inspect of nothing", Run::of(&mut onnxquant(&["inspect", "absent.onnx"])), &["absent.onnx"]),
        ("inspect without a model", Run::of(&mut onnxquant(&["inspect"])), &["MODEL"]),
        (
            "compare with nothing",
            Run::of(onnxquant(&["compare", "absent.onnx"]).args([&model]).arg("--data").arg(&calib)),
            &["absent.onnx"],
        ),
        ("compare without data", Run::of(onnxquant(&["compare"]).args([&model, &model])), &["--data"]),
        (
            "compare on another's data",
            Run::of(onnxquant(&["compare"]).args([&other, &other]).arg("--data").arg(calib.join("0000.npz"))),
            &["`x`"],
        ),
        (
            "compare of other outputs",
            Run::of(onnxquant(&["compare"]).args([&model, &renamed]).arg("--data").arg(&calib)),
            &["`logits`"],
        ),
    ];
    let mut failures = Failures::default();
    for (name, run, texts) in cases {
        let fault = refused(&run, texts);
        failures.check(fault.is_none(), || format!("{name}: {}", fault.unwrap_or_default()));
    }
    failures.finish();
}

#[test]
fn usage_errors_have_exit_code_2() {
    let mut failures = Failures::default();
    let cases: [&[&str]; 5] =
        [&[], &["model.onnx"], &["--calib"], &["completions", "cmd"], &["a", "b", "c", "--weights-only"]];
    for args in cases {
        let run = Run::of(&mut onnxquant(args));
        failures.check(run.code == Some(2) && !run.stderr.is_empty(), || format!("{args:?}: {run:?}"));
    }
    failures.finish();
}
