//! Engines that do not survive a model: what may crash one is done in a process of its own, which may.

use std::ffi::OsString;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::bail;
use onnxquant::calib::OrtEngine;
use onnxquant::{DataConfig, EngineChoice, GivenModel};

use crate::args::{EngineName, QuantizeArgs, TRY, Tried};
use crate::child;
use crate::host::Host;
use crate::runtime::find;
use crate::{BAD_INPUT, DONE};

/// What the process prints when the embedded engine survived.
const SURVIVED: &str = "the embedded engine survived";

/// Which engines may be used.
pub(crate) struct Survivors {
    pub(crate) engine: EngineChoice,
    pub(crate) runtime: Option<OrtEngine>,
}

/// Tries the engines that the run would use, and leaves out those that crash. ONNX Runtime may be `needed` for an option.
pub(crate) fn survivors(
    args: &QuantizeArgs,
    given: &GivenModel,
    runtime: Option<OrtEngine>,
    needed: Option<&str>,
    host: &Host<'_>,
) -> anyhow::Result<Survivors> {
    let mut left = Survivors { engine: args.engine.into(), runtime };
    if args.calib.is_none() || host.around.program.is_empty() {
        return Ok(left);
    }
    // The other process need not fetch the model again.
    let is_model = |word: &&OsString| args.input.as_ref().is_some_and(|input| input.as_os_str() == word.as_os_str());
    let local = |word: &OsString| Some(word).filter(is_model).map_or(word.clone(), |_| given.path().into());
    let words: Vec<OsString> = host.args.iter().map(local).collect();
    let host = &Host { args: &words, ..*host };
    let mut crash = match args.engine {
        EngineName::Ort => None,
        EngineName::Auto | EngineName::Tract => crash(Tried::All, left.runtime.as_ref(), host),
    };
    if let Some(Crash { how, of_embedded: true }) = &crash {
        let what = format!("the embedded engine crashes on the float model ({how})");
        match (&left.runtime, args.engine) {
            (Some(_), EngineName::Auto) => (host.warn)(&format!("{what}; ONNX Runtime runs it")),
            _ => bail!(
                "{what}: with ONNX Runtime on this machine and without `--engine tract` that would run it; \
                 --weights-only runs nothing"
            ),
        }
        left.engine = EngineChoice::Ort;
    }
    // It was not tried yet.
    let Some(found) = left.runtime.as_ref() else { return Ok(left) };
    if left.engine == EngineChoice::Ort {
        crash = self::crash(Tried::Runtime, Some(found), host);
    }
    let Some(Crash { how, .. }) = crash else { return Ok(left) };
    let what = format!("ONNX Runtime {} crashes on the float model ({how})", found.version());
    match needed.or((left.engine == EngineChoice::Ort).then_some("this model")) {
        Some(option) => bail!("{option} needs ONNX Runtime, and {what}"),
        None => (host.warn)(&format!("{what}; accuracy is simulated")),
    }
    left.runtime = None;
    Ok(left)
}

/// How a process ended that was to survive.
struct Crash {
    how: ExitStatus,
    /// In the embedded engine, else in ONNX Runtime.
    of_embedded: bool,
}

/// Starts the process, on the model and samples that this one was called with. What it cannot read is told by this one.
fn crash(tried: Tried, runtime: Option<&OrtEngine>, host: &Host<'_>) -> Option<Crash> {
    let (program, first) = host.around.program.split_first()?;
    let mut command = Command::new(program);
    command.args(first).arg(TRY).arg(tried.word()).args(host.args);
    if let Some(runtime) = runtime {
        command.env("ORT_DYLIB_PATH", runtime.path());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let (status, said) = child::finished(&mut command).ok()?;
    let is_over = status.code().is_some_and(|code| [DONE, BAD_INPUT].map(i32::from).contains(&code));
    let survived = String::from_utf8_lossy(&said).contains(SURVIVED);
    (!is_over).then_some(Crash { how: status, of_embedded: tried == Tried::All && !survived })
}

/// Does what may crash, in the process that [`survivors`] starts for that.
pub(crate) fn run(args: &QuantizeArgs, host: &Host<'_>) -> anyhow::Result<()> {
    let (Some(tried), Some(input), Some(path)) = (args.tried, &args.input, &args.calib) else { return Ok(()) };
    let input = onnxquant::model_file(input)?;
    let data: DataConfig = args.data.config(path.clone(), &input);
    if tried == Tried::All {
        onnxquant::try_embedded(&input, &data)?;
        println!("{SURVIVED}");
    }
    match find(&args.runtime, None, host)? {
        Some(runtime) => Ok(onnxquant::try_runtime(&input, &data, &runtime)?),
        None => Ok(()),
    }
}
