//! What a run gives.

use onnxquant::Report;
use onnxquant::storage::as_given;

/// What a run gives.
#[derive(Debug)]
pub enum Answer {
    /// What was done to the model that was written.
    Quantized(Box<Report>),
    /// How two models differ.
    Compared {
        /// For the standard output.
        text: String,
        /// What was asked for and was missed.
        missed: Option<String>,
    },
    /// A text for the standard output.
    Text(String),
}

/// Why a run gives nothing.
#[derive(Debug)]
pub enum Failure {
    /// Words that the command does not know, or that ask it about itself (`--help`).
    Words(clap::Error),
    /// Bad input, usage, or what the machine refuses.
    Input(anyhow::Error),
    /// A defect of this program.
    Defect(String),
    /// Other processes have to do something first.
    Waiting(String),
    /// Whoever asked for it [stopped](crate::Stopped) it.
    Stopped,
}

impl Failure {
    /// What went wrong, without the words `error: ` before it and the advice to read the help behind it.
    pub fn message(&self) -> String {
        let told = match self {
            Self::Words(error) => bare(&error.render().to_string()),
            Self::Input(error) => format!("{error:#}"),
            Self::Defect(problem) => problem.clone(),
            Self::Waiting(what) => format!("waiting for others: {what}"),
            Self::Stopped => "the run was stopped".to_owned(),
        };
        as_given(&told)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast_ref::<onnxquant::Error>() {
            Some(onnxquant::Error::Waiting(what)) => Self::Waiting(what.clone()),
            Some(defect) if defect.is_internal() => Self::Defect(format!("{error:#}")),
            _ => Self::Input(error),
        }
    }
}

impl From<onnxquant::Error> for Failure {
    fn from(error: onnxquant::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Words(error)
    }
}

/// The first paragraphs of what clap says.
fn bare(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let end = ["\n\nUsage:", "\n\nFor more information"].into_iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::command;

    fn said(words: &[&str]) -> String {
        Failure::from(command().try_get_matches_from(words).unwrap_err()).message()
    }

    #[test]
    fn what_is_wrong_with_words_is_told_without_advice_about_the_command() {
        let unknown = said(&["onnxquant", "in", "out", "--calib", "c", "--shceme=w4"]);
        assert!(
            unknown.starts_with("unexpected argument '--shceme' found") && unknown.contains("'--scheme'"),
            "{unknown}"
        );
        assert!(!unknown.contains("Usage") && !unknown.contains("--help"), "{unknown}");
        let value = said(&["onnxquant", "in", "out", "--calib", "c", "--scheme=w9"]);
        assert!(value.contains("invalid value 'w9'") && value.contains("possible values: w8"), "{value}");
    }
}
