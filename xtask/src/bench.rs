//! `cargo xtask bench`: runs the benchmarks and prints their ratios.
//!
//! The benchmarks are divan programs; what they print is shown as it is, then the
//! ratios that the project promises are computed from the fastest runs, which
//! suffer least from whatever else the machine does. `cargo xtask bench solver` measures the solvers,
//! `cargo xtask bench forms` runs written files instead, `cargo xtask bench costs` measures operators,
//! `cargo xtask bench estimates` compares what `--dry-run` tells with what runs take, and `cargo xtask bench shares` one process
//! with several.

mod costs;
mod estimates;
mod forms;
mod shares;
mod without_avx512;

use anyhow::{Context, ensure};
use std::collections::HashMap;
use std::process::{Command, Stdio};

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,

    /// Fail if a ratio misses its goal.
    #[arg(long)]
    strict: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// Measures operators in ONNX Runtime, and writes the table of times of this class of processors.
    Costs {
        /// Keep the runtime from AVX-512, and write the table of AVX2.
        #[arg(long)]
        without_avx512: bool,
    },

    /// Compares the time that `--dry-run` tells with that which the run takes.
    Estimates(estimates::Args),

    /// Measures the speed of every written form in ONNX Runtime.
    Forms,

    /// Measures how much faster several processes make one model.
    Shares(shares::Args),

    /// Measures time and memory of the solvers.
    Solver {
        /// Also on layers of up to 8192 inputs, which takes minutes.
        #[arg(long)]
        large: bool,
    },
}

/// Fastest times in seconds, by bench, function and argument.
type Times = HashMap<(String, String), f64>;

/// A quotient of two times and what it should be.
struct Ratio {
    name: &'static str,
    above: (&'static str, &'static str),
    below: (&'static str, &'static str),
    goal: Goal,
}

#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

const RATIOS: [Ratio; 7] = [
    Ratio {
        name: "factoring anew / rank-one updates, r = 256",
        above: ("refactoring", "256"),
        below: ("rank_one_updates", "256"),
        goal: Goal::AtLeast(10.0),
    },
    Ratio {
        name: "walk: K = 2048 / K = 1024, r = 64 (linear: 2)",
        above: ("grows", "(2048, 64)"),
        below: ("grows", "(1024, 64)"),
        goal: Goal::AtMost(2.8),
    },
    Ratio {
        name: "walk: r = 128 / r = 64, K = 1024 (quadratic: 4)",
        above: ("grows", "(1024, 128)"),
        below: ("grows", "(1024, 64)"),
        goal: Goal::AtMost(5.0),
    },
    Ratio {
        name: "walk: r = 256 / r = 128, K = 1024 (quadratic: 4)",
        above: ("grows", "(1024, 256)"),
        below: ("grows", "(1024, 128)"),
        goal: Goal::AtMost(5.0),
    },
    Ratio {
        name: "statistics / faer's triangular product, K = 256",
        above: ("accumulate", "256"),
        below: ("triangular_product", "256"),
        goal: Goal::AtMost(1.3),
    },
    Ratio {
        name: "statistics / faer's triangular product, K = 576",
        above: ("accumulate", "576"),
        below: ("triangular_product", "576"),
        goal: Goal::AtMost(1.3),
    },
    Ratio {
        name: "statistics / faer's triangular product, K = 1024",
        above: ("accumulate", "1024"),
        below: ("triangular_product", "1024"),
        goal: Goal::AtMost(1.3),
    },
];

pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        Some(What::Costs { without_avx512 }) => costs::run(*without_avx512),
        Some(What::Estimates(args)) => estimates::run(args),
        Some(What::Forms) => forms::run(),
        Some(What::Shares(args)) => shares::run(args),
        Some(What::Solver { large }) => {
            let mut bench = cargo_bench(&["solver"]);
            process::run(if *large { bench.env("LARGE", "1") } else { &mut bench })
        }
        None => ratios(args.strict),
    }
}

fn cargo_bench(names: &[&str]) -> Command {
    let mut command = process::cargo();
    command.args(["bench", "--quiet", "--package", "onnxquant-quant"]);
    for name in names {
        command.args(["--bench", name]);
    }
    command
}

fn ratios(strict: bool) -> anyhow::Result<()> {
    let output =
        cargo_bench(&["walk", "gram"]).stderr(Stdio::inherit()).output().context("cannot start cargo bench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    ensure!(output.status.success(), "cargo bench failed with {}", output.status);
    let times = parse(&text);
    let mut missed = Vec::new();
    for ratio in &RATIOS {
        let time = |(function, argument): (&str, &str)| {
            let key = (function.to_string(), argument.to_string());
            times.get(&key).copied().with_context(|| format!("no time for {function} {argument}"))
        };
        let value = time(ratio.above)? / time(ratio.below)?;
        let (met, goal) = match ratio.goal {
            Goal::AtLeast(goal) => (value >= goal, format!(">= {goal}")),
            Goal::AtMost(goal) => (value <= goal, format!("<= {goal}")),
        };
        let verdict = if met { "" } else { "  missed" };
        println!("{:<52}{value:>8.2}   goal {goal}{verdict}", ratio.name);
        if !met {
            missed.push(ratio.name);
        }
    }
    ensure!(!strict || missed.is_empty(), "goals missed: {missed:?}");
    Ok(())
}

/// Reads divan's tree: a function's line has one branch character more before
/// its name than its arguments' lines, which carry the times.
fn parse(text: &str) -> Times {
    let mut times = Times::new();
    let mut function = String::new();
    for line in text.lines() {
        let label = line.trim_start_matches(['│', ' ']).trim_start_matches(['├', '╰', '─', ' ']);
        let nested = line.starts_with(['│', ' ']);
        let (name, rest) = label.split_once("  ").unwrap_or((label, ""));
        let first = rest.split('│').next().unwrap_or("");
        match seconds(first.trim()) {
            Some(time) if nested => {
                times.insert((function.clone(), name.trim().to_string()), time);
            }
            _ => function = name.trim().to_string(),
        }
    }
    times
}

/// A time such as `12.3 ms`.
fn seconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let unit = match unit.trim() {
        "ns" => 1e-9,
        "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_divans_tree() {
        let text = "walk                 fastest       │ slowest\n\
                    ├─ grows                           │\n\
                    │  ├─ (512, 64)      1.348 ms      │ 7.628 ms\n\
                    │  ╰─ (2048, 64)     643 µs        │ 14.83 ms\n\
                    ╰─ refactoring                     │\n   ╰─ 256            1.5 s         │ 2 s\n";
        let times = parse(text);
        let time = |f: &str, a: &str| times[&(f.to_string(), a.to_string())];
        assert!((time("grows", "(512, 64)") - 1.348e-3).abs() < 1e-12);
        assert!((time("grows", "(2048, 64)") - 643e-6).abs() < 1e-12);
        assert_eq!(time("refactoring", "256"), 1.5);
        assert_eq!(times.len(), 3);
    }
}
