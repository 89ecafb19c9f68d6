//! The command `onnxquant`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use onnxquant_cli::{Around, command, end_on_signals};

fn main() -> ExitCode {
    end_on_signals();
    let program = std::env::current_exe().map(|path| vec![path.into()]).unwrap_or_default();
    let around = Around { program, ..Around::default() };
    command(std::env::args_os().skip(1).collect(), &around).into()
}
