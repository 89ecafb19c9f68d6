//! `cargo xtask faults`: kills, full disks, folders that vanish, wrong clocks, and what else goes wrong while files are
//! written.
//!
//! The tests are those of `tests/clocks.rs` and `tests/faults.rs`, of which `cargo test` makes few kills.

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// How often a run is killed, each time at another moment.
    #[arg(long, default_value_t = 200)]
    kills: usize,

    /// Another one gives other moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--release", "--workspace", "--locked", "--test", "suite", "--", "--nocapture", "faults::"]);
    // Another filter: either names a test.
    cargo.arg("clocks::");
    cargo.env("ONNXQUANT_KILLS", args.kills.to_string()).env("ONNXQUANT_SEED", args.seed.to_string());
    process::run(&mut cargo)
}
