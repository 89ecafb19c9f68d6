use clap::FromArgMatches;
use clap::parser::ValueSource;

use super::*;
use crate::args::Cli;

/// What the check says of these options, in words of a command line.
fn checked(words: &str) -> Result<(), String> {
    let start = ["onnxquant", "in.onnx", "out.onnx"];
    let given = command().try_get_matches_from(start.into_iter().chain(words.split_whitespace()));
    let given = given.map_err(|error| error.to_string())?;
    let cli = Cli::from_arg_matches(&given).map_err(|error| error.to_string())?;
    check(|id| given.value_source(id) == Some(ValueSource::CommandLine), &cli.quantize)
        .map_err(|error| error.to_string())
}

/// Beside what the options are given.
const BESIDE: [&str; 13] = [
    "--calib c --scheme w8",
    "--weights-only --method msq",
    "--calib c --scheme w4",
    "--calib c --scheme fp8",
    "--calib c --scheme w8a8",
    "--calib c --scheme w4a8 --target qdq-strict",
    "--calib c --scheme w8a8-dynamic",
    "--calib c",
    "--calib c --scheme w8 --method msq",
    "--calib c --scheme w8 --method maly-saab",
    "--calib c --scheme w8 --method optq",
    "--calib c --scheme w8 --method feedback",
    "--calib c --quiet",
];

/// Options, and by column of [`BESIDE`] whether they have an effect there (`+`) or not (`-`).
const HAS_EFFECT: [(&str, &str); 31] = [
    ("--activation-bits 16", "----++-+----+"),
    ("--activation-type s8", "----++-+----+"),
    ("--beam 4", "+-++++++---++"),
    ("--calibration-cache f", "----++-+----+"),
    ("--channel-order bgr", "+-+++++++++++"),
    ("--cpu avx2", "+---+++++++++"),
    ("--damping 0.1", "+-++++++--+++"),
    ("--engine ort", "+-+++++++++++"),
    ("--format matmulnbits", "+++++-+++++++"),
    ("--image-preset imagenet", "+-+++++++++++"),
    ("--image-size 32", "+-+++++++++++"),
    ("--layout nchw", "+-+++++++++++"),
    ("--log json", "++++++++++++-"),
    ("--mean 1", "+-+++++++++++"),
    ("--memory-limit 100", "+-+++++++++++"),
    ("--no-fallback", "---------+---"),
    ("--one-pass", "+-+++++++++++"),
    ("--ort-lib f", "+-+++++++++++"),
    ("--power-of-two-scales", "----++-+----+"),
    ("--python p", "+-+++++++++++"),
    ("--range mse", "----++-+----+"),
    ("--reduce-range", "----+-++----+"),
    ("--samples 3", "+-+++++++++++"),
    ("--saturation min", "---------+---"),
    ("--scale max", "+++++++++++-+"),
    ("--sequence-length 8", "+-+++++++++++"),
    ("--shrink 0.1", "+-++++++---++"),
    ("--std 2", "+-+++++++++++"),
    ("--text-key k", "+-+++++++++++"),
    ("--tokenizer f", "+-+++++++++++"),
    ("--granularity tensor", "+++++++++++++"),
];

#[test]
fn an_option_without_effect_is_refused_by_name_and_others_are_taken() {
    for (option, effects) in HAS_EFFECT {
        for (beside, effect) in BESIDE.iter().zip(effects.chars()) {
            let found = checked(&format!("{beside} {option}"));
            assert_eq!(found.is_ok(), effect == '+', "{beside} {option}: {found:?}");
            let name = option.split(' ').next().unwrap();
            assert!(found.is_ok() || found.as_ref().is_err_and(|text| text.contains(name)), "{option}: {found:?}");
        }
    }
}

#[test]
fn every_row_of_the_table_is_an_option_and_is_tested() {
    for (id, _) in EFFECTS {
        let flag = flag(id);
        assert!(HAS_EFFECT.iter().any(|(option, _)| option.split(' ').next() == Some(flag.as_str())), "{flag}");
    }
}

#[test]
fn accelerators_are_served_by_integers_alone() {
    assert_eq!(checked("--calib c --target qdq-strict"), Ok(()));
    for (target, option) in [
        ("tensorrt", "--activation-type u8"),
        ("tensorrt", "--cpu avx2"),
        ("qnn", "--cpu vnni"),
        ("openvino", "--format matmulnbits"),
        ("qnn", "--format matmulnbits"),
    ] {
        let found = checked(&format!("--calib c --target {target} {option}"));
        let name = option.split(' ').next().unwrap();
        assert!(found.as_ref().is_err_and(|text| text.contains(name)), "{target} {option}: {found:?}");
    }
    assert_eq!(checked("--calib c --target openvino --activation-type s8 --cpu avx2"), Ok(()));
    assert_eq!(checked("--calib c --target tensorrt --activation-type s8"), Ok(()));
    assert_eq!(checked("--calib c --target qdq-strict --scheme w4 --range mse"), Ok(()));
    assert!(checked("--calib c --scheme w4 --range mse").is_err_and(|text| text.contains("--range")));
}
