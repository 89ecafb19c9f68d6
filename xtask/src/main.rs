//! Developer commands: `cargo xtask <command>`.

use clap::{Parser, Subcommand};

mod bench;
mod book;
mod codegen;
mod deny;
mod dist;
mod faults;
mod fuzz;
mod manifests;
mod miri;
mod paper;
mod process;
mod python;
mod qemu;
mod regress;
mod sbom;
mod test;
mod wheel;

#[derive(Parser)]
#[command(name = "xtask", about = "Developer commands of onnxquant")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generates `crates/proto/src/onnx.rs` from `proto/onnx.proto`.
    Codegen(codegen::Args),
    /// Sets up ONNX Runtime in a virtual environment and runs every test.
    Test(test::Args),
    /// Quantizes each fixture with each method and compares with the golden figures.
    Regress(regress::Args),
    /// Reproduces the paper's decay of the error and the digits experiment.
    Paper(paper::Args),
    /// Builds the book in `target/book`.
    Book(book::Args),
    /// Runs the benchmarks and prints their ratios.
    Bench(bench::Args),
    /// Kills runs, fills disks, and lets files vanish and fail: what is written is absent or whole.
    Faults(faults::Args),
    /// Builds the fuzz targets and runs each for a while.
    Fuzz(fuzz::Args),
    /// Runs tests in an interpreter that finds undefined behaviour.
    Miri,
    /// Makes the archives and the wheel that people download.
    Dist(dist::Args),
    /// Checks licences, sources and versions of all dependencies.
    Deny(deny::Args),
    /// Checks the files that GitHub and Kubernetes read.
    Manifests,
    /// Prints what the command is made of, as CycloneDX.
    Sbom(sbom::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Codegen(args) => codegen::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Regress(args) => regress::run(&args),
        Command::Paper(args) => paper::run(&args),
        Command::Book(args) => book::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Miri => miri::run(),
        Command::Dist(args) => dist::run(&args),
        Command::Deny(args) => deny::run(&args),
        Command::Manifests => manifests::run(),
        Command::Sbom(args) => sbom::run(&args),
    }
}
