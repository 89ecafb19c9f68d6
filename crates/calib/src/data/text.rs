//! Texts as samples: read, tokenized, and cut into windows.
//!
//! A decoder (a graph with caches, or one whose tokenizer puts nothing behind a text) reads windows that are full: texts
//! stand one after the other, with what the tokenizer puts around each. A `.txt` file is one text there. An encoder reads
//! one text a sample, cut off where it is too long; each line of a `.txt` file is one. Each line of a `.jsonl` file is an
//! object that holds one text.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use onnxquant_storage::{is_file, read_at_most};
use serde::de::IgnoredAny;
use tokenizers::{Encoding, Tokenizer, TruncationParams};

use super::genai_config::GenaiDecoder;
use super::text_inputs::{TextInputs, Window};
use super::{DataOptions, evenly_spaced};
use crate::error::{CalibError, FormatError};

/// Samples that are made of texts where nobody says how many.
pub(crate) const TEXT_SAMPLES: usize = 128;
/// Tokens of a sample, likewise.
const LENGTH: usize = 512;
/// The name of a tokenizer's file beside a model.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Under which a line of `.jsonl` holds its text.
const KEY: &str = "text";
/// Larger tokenizers are refused: that of Gemma has 33 MB.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
/// Larger files of texts are refused.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Longer texts are tokenized in parts that end where a line does, for tokens take far more memory than text.
const PART_BYTES: usize = 1 << 16;

/// How texts become samples.
#[derive(Debug, Clone, Default)]
pub struct TextOptions {
    /// The tokenizer's file, as Hugging Face's library writes it; by default `tokenizer.json` beside the model.
    pub tokenizer: Option<PathBuf>,
    /// Tokens of a sample; by default 512, or as many as model and tokenizer take.
    pub length: Option<usize>,
    /// Under which a line of `.jsonl` holds its text; by default `text`.
    pub key: Option<String>,
}

impl DataOptions {
    /// The tokenizer's file, whether it exists or not.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        let named = self.text.as_ref().and_then(|text| text.tokenizer.clone());
        named.or_else(|| self.beside_model(TOKENIZER))
    }

    /// What `genai_config.json` beside the model says.
    pub(crate) fn decoder(&self) -> Result<GenaiDecoder, CalibError> {
        let found = self.model_folder.as_deref().map(GenaiDecoder::read).transpose()?;
        Ok(found.flatten().unwrap_or_default())
    }
}

/// At most `wanted` windows of the texts in `path`, evenly spaced.
pub(crate) fn read_windows(
    path: &Path,
    inputs: &TextInputs,
    options: &DataOptions,
    wanted: usize,
) -> Result<Vec<Window>, CalibError> {
    let text = options.text.clone().unwrap_or_default();
    let mut cutter = Cutter::new(path, inputs, options)?;
    let is_packed = inputs.has_caches() || (!inputs.has_types() && !cutter.ends_texts()?);
    let texts = read_texts(path, &text, is_packed)?;
    let windows = match is_packed {
        true => evenly_spaced(cutter.packed(&texts)?, wanted),
        false => cutter.one_by_one(&evenly_spaced(texts, wanted))?,
    };
    match windows.is_empty() {
        true => Err(CalibError::NoSamples { path: path.into(), found: "its texts have no tokens".into() }),
        false => Ok(windows),
    }
}

/// Turns texts into windows.
struct Cutter {
    /// The texts.
    path: PathBuf,
    /// The tokenizer's file.
    file: PathBuf,
    tokenizer: Tokenizer,
    length: usize,
    /// The graph takes windows of this length alone.
    is_fixed: bool,
    /// The token that fills windows up.
    filler: u32,
}

impl Cutter {
    fn new(path: &Path, inputs: &TextInputs, options: &DataOptions) -> Result<Self, CalibError> {
        let file = options.tokenizer().filter(|file| is_file(file));
        let Some(file) = file else { return Err(CalibError::NoTokenizer { expected: options.tokenizer() }) };
        let unusable = |problem: String| CalibError::Tokenizer { path: file.clone(), problem };
        let mut tokenizer = read_tokenizer(&file).map_err(unusable)?;
        let of_tokenizer = tokenizer.get_truncation().map(|truncation| truncation.max_length);
        let of_model = options.decoder()?.context_length;
        let most = [of_tokenizer, of_model].into_iter().flatten().fold(LENGTH, usize::min);
        let asked = options.text.as_ref().and_then(|text| text.length);
        let length = match (asked, inputs.length()) {
            (Some(asked), Some(fixed)) if asked != fixed => {
                return Err(CalibError::TextLength { path: path.into(), asked, fixed });
            }
            (asked, fixed) => asked.or(fixed).unwrap_or(most).max(1),
        };
        let named = ["[PAD]", "<pad>"].into_iter().find_map(|name| tokenizer.token_to_id(name));
        let filler = tokenizer.get_padding().map(|padding| padding.pad_id).or(named).unwrap_or(0);
        tokenizer.with_padding(None).with_truncation(None).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { path: path.into(), file, tokenizer, length, is_fixed: inputs.length().is_some(), filler })
    }

    fn encode(&self, text: &str) -> Result<Encoding, CalibError> {
        let encoded = survived(|| self.tokenizer.encode_fast(text, true));
        encoded.map_err(|problem| CalibError::Tokenizer { path: self.file.clone(), problem })
    }

    /// Whether the tokenizer puts something behind a text.
    fn ends_texts(&self) -> Result<bool, CalibError> {
        Ok(self.encode("a")?.get_special_tokens_mask().last() == Some(&1))
    }

    /// Full windows of all texts, one after the other; a shorter one where they fill none.
    fn packed(&self, texts: &[String]) -> Result<Vec<Window>, CalibError> {
        let mut tokens = Vec::new();
        for text in texts {
            self.append(text, &mut tokens)?;
        }
        let full: Vec<Window> = tokens.chunks_exact(self.length).map(|tokens| self.window(tokens.to_vec())).collect();
        let is_short = full.is_empty() && !tokens.is_empty();
        Ok(if is_short { vec![self.window(tokens)] } else { full })
    }

    /// Appends the tokens of a text, with what the tokenizer puts around it.
    fn append(&self, text: &str, tokens: &mut Vec<u32>) -> Result<(), CalibError> {
        let parts = parts(text);
        let last = parts.len().saturating_sub(1);
        for (number, part) in parts.into_iter().enumerate() {
            let encoded = self.encode(part)?;
            let is_added = |at: &&u32| **at == 1;
            let mask = encoded.get_special_tokens_mask();
            let before = if number == 0 { 0 } else { mask.iter().take_while(is_added).count() };
            let behind = if number == last { 0 } else { mask.iter().rev().take_while(is_added).count() };
            let kept = encoded.get_ids().len().saturating_sub(before + behind);
            tokens.extend(encoded.get_ids().iter().skip(before).take(kept));
        }
        Ok(())
    }

    /// A window a text, cut off where it is too long.
    fn one_by_one(&mut self, texts: &[String]) -> Result<Vec<Window>, CalibError> {
        let around = self.encode("")?.get_ids().len();
        if around >= self.length {
            let found = format!("the tokenizer puts {around} tokens around a text, and a sample has {}", self.length);
            return Err(CalibError::NoSamples { path: self.path.clone(), found });
        }
        let truncation = TruncationParams { max_length: self.length, ..TruncationParams::default() };
        let set = self.tokenizer.with_truncation(Some(truncation)).map(drop);
        set.map_err(|error| CalibError::Tokenizer { path: self.file.clone(), problem: error.to_string() })?;
        let windows = texts.iter().map(|text| Ok(self.window(self.encode(text)?.get_ids().to_vec())));
        let has_text = |window: &Result<Window, _>| !matches!(window, Ok(Window { tokens, .. }) if tokens.is_empty());
        windows.filter(has_text).collect()
    }

    /// These tokens, filled up where the graph takes one length alone.
    fn window(&self, mut tokens: Vec<u32>) -> Window {
        let filling = if self.is_fixed { self.length.saturating_sub(tokens.len()) } else { 0 };
        tokens.resize(tokens.len() + filling, self.filler);
        Window { tokens, filling, past: 0 }
    }
}

/// The tokenizer in a file.
fn read_tokenizer(file: &Path) -> Result<Tokenizer, String> {
    let words = |error: std::io::Error| error.to_string();
    let too_large = |needed| format!("it has {needed} bytes, at most {MAX_TOKENIZER_BYTES} are read");
    let bytes = read_at_most(file, MAX_TOKENIZER_BYTES).map_err(words)?.map_err(too_large)?;
    // Where it is none, the library gives up.
    serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|error| error.to_string())?;
    survived(|| Tokenizer::from_bytes(&bytes))
}

/// What the library gives; of some files and texts it makes panics, which become messages.
fn survived<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the library `tokenizers` gives up on it".to_owned()),
    }
}

/// A text in parts of about [`PART_BYTES`] that end where a line does; most texts are one.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut end) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        end += line.len();
        if end - start >= PART_BYTES {
            parts.extend(text.get(start..end));
            start = end;
        }
    }
    parts.extend(text.get(start..).filter(|rest| !rest.is_empty()));
    parts
}

/// The texts of a file.
fn read_texts(path: &Path, options: &TextOptions, is_packed: bool) -> Result<Vec<String>, CalibError> {
    let io = |source| CalibError::Io { path: path.into(), source };
    let malformed = |source| CalibError::Malformed { path: path.into(), source };
    let too_large = |needed| malformed(FormatError::TooLarge { needed, limit: MAX_TEXT_BYTES });
    let bytes = read_at_most(path, MAX_TEXT_BYTES).map_err(io)?.map_err(too_large)?;
    let text = String::from_utf8(bytes).map_err(|error| io(std::io::Error::new(ErrorKind::InvalidData, error)))?;
    let is_lines = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    match (is_lines, &options.key, is_packed) {
        (true, key, _) => {
            let key = key.as_deref().unwrap_or(KEY);
            lines.map(|(at, line)| text_of(line, key).map_err(|why| malformed(why.at(at + 1)))).collect()
        }
        (false, Some(_), _) => Err(CalibError::NoKeys { path: path.into() }),
        (false, None, true) => Ok(Some(text).into_iter().filter(|text| !text.trim().is_empty()).collect()),
        (false, None, false) => Ok(lines.map(|(_, line)| line.to_owned()).collect()),
    }
}

/// Why a line holds no text.
enum Line {
    Json(serde_json::Error),
    NoText(String),
}

impl Line {
    fn at(self, line: usize) -> FormatError {
        FormatError::Line {
            line,
            problem: match self {
                Self::Json(error) => format!("it is no JSON: {error}"),
                Self::NoText(key) => format!("it is no object with a text under `{key}`; name another with --text-key"),
            },
        }
    }
}

fn text_of(line: &str, key: &str) -> Result<String, Line> {
    let object: serde_json::Value = serde_json::from_str(line).map_err(Line::Json)?;
    object.get(key).and_then(|text| text.as_str()).map(str::to_owned).ok_or_else(|| Line::NoText(key.to_owned()))
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
