//! The estimates for large decoders: the book has what the script prints, and it fits what was measured.

use std::fs;
use std::process::Command;

use crate::support::{Run, root};

/// Minutes of processor time that a decoder of 1.13 billion parameters took, see `docs/src/time-and-memory.md`.
const MEASURED_MINUTES: f64 = 66.0;

fn estimate(words: &[&str]) -> String {
    let python = std::env::var("ONNXQUANT_PYTHON").expect("ONNXQUANT_PYTHON is not set: run `cargo xtask test`");
    Run::of(Command::new(python).arg(root().join("docs/examples/estimate.py")).args(words)).succeeded().stdout
}

/// The cells of the rows below the head.
fn cells(table: &str) -> Vec<Vec<String>> {
    let row = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().skip(2).map(row).collect()
}

fn minutes(cell: &str) -> f64 {
    let (number, unit) = cell.split_once(' ').expect("a number and a unit");
    let number: f64 = number.parse().expect("a number");
    if unit == "h" { number * 60.0 } else { number }
}

#[test]
fn the_book_has_what_the_script_prints() {
    let page = fs::read_to_string(root().join("docs/src/estimates.md")).expect("the page is there");
    assert!(page.contains(estimate(&["8b", "70b"]).trim_end()), "run docs/examples/estimate.py 8b 70b");
}

#[test]
fn estimates_fit_what_was_measured_and_more_machines_are_never_slower() {
    let small = cells(&estimate(&["1b", "--machines", "1", "--cores", "2", "--samples", "16", "--length", "128"]));
    let ratio = 2.0 * minutes(&small[0][2]) / MEASURED_MINUTES;
    assert!((0.5..2.0).contains(&ratio), "{ratio} times what was measured");
    let many = cells(&estimate(&["8b", "--machines", "1,2,4,8,16,64"]));
    for pair in many.windows(2) {
        for column in [2, 3] {
            let (fewer, more) = (minutes(&pair[0][column]), minutes(&pair[1][column]));
            assert!(more <= fewer, "{pair:?}");
        }
    }
}
