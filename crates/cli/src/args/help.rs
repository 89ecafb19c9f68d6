//! The help: options in groups, and the few that most people use in the short one.

use clap::{Arg, Command, CommandFactory};

use super::Cli;
use crate::screen::COLUMNS;

const EXAMPLES: &str = "\
Examples:
  onnxquant model.onnx small.onnx --calib samples/
  onnxquant model.onnx small.onnx --calib samples/ --scheme w4
  onnxquant model.onnx small.onnx --calib samples/ --scheme w8 --dry-run
  onnxquant model.onnx small.onnx --calib photos/ --image-preset imagenet
  onnxquant model.onnx small.onnx --calib samples/ --average-bits 3.5
  onnxquant model.onnx small.onnx --calib samples/ --report run.html
  onnxquant model.onnx small.onnx --weights-only
  onnxquant decoder/ small/ --calib texts.txt --scheme w4
  onnxquant inspect model.onnx
  onnxquant compare model.onnx small.onnx --data samples/ --layers
  onnxquant bench model.onnx small.onnx --calib samples/
  onnxquant report before.json after.json
  onnxquant calibrate model.onnx --calib samples/ --state run/

Exit codes:
  0 done
  1 written, but what was asked for was missed
  2 bad input or usage, or what the machine refuses
  3 a defect of this program
  75 of a share of a run: others have to do something first";

const MORE: &str = "\
All options and examples: onnxquant --help
Options of a command: onnxquant inspect --help";

/// The options that most people use: those of the short help, by the name of their field.
const COMMON: [&str; 10] =
    ["calib", "weights_only", "samples", "scheme", "exclude", "min_sqnr", "target", "preset", "dry_run", "report"];

/// Options, by the name of their field, and the group in which the help lists them.
const GROUPS: [(&str, &[&str]); 7] = [
    (
        "Data",
        &[
            "calib",
            "weights_only",
            "samples",
            "calib_map",
            "preprocessor",
            "image_preset",
            "image_size",
            "mean",
            "std",
            "layout",
            "channel_order",
            "tokenizer",
            "sequence_length",
            "text_key",
            "lengths",
        ],
    ),
    (
        "What to write",
        &[
            "scheme",
            "bits",
            "granularity",
            "symmetric",
            "asymmetric",
            "average_bits",
            "target_size",
            "plan",
            "save_plan",
            "include",
            "exclude",
            "layer_rules",
            "format",
            "embeddings",
            "kv_cache",
            "requantize",
            "keep_type",
            "external_data",
        ],
    ),
    (
        "Accuracy",
        &[
            "min_sqnr",
            "max_loss",
            "max_perplexity_ratio",
            "metric_command",
            "min_metric",
            "max_metric_loss",
            "method",
            "no_fallback",
            "one_pass",
            "beam",
            "shrink",
            "damping",
            "saturation",
            "scale",
            "range",
            "allow_float",
        ],
    ),
    (
        "Target",
        &[
            "target",
            "cpu",
            "ort_min",
            "opset_max",
            "activation_type",
            "activation_bits",
            "power_of_two_scales",
            "reduce_range",
        ],
    ),
    (
        "Machine",
        &[
            "threads",
            "max_memory",
            "memory_limit",
            "state",
            "shard",
            "wait",
            "calibration_cache",
            "engine",
            "ort_lib",
            "python",
            "verify",
        ],
    ),
    ("Reports", &["report", "dry_run", "log", "quiet"]),
    ("Configuration", &["config", "preset", "print_config", "config_schema"]),
];

/// The command line, with all that its help says.
pub(crate) fn command() -> Command {
    let command = Cli::command().max_term_width(COLUMNS).after_help(MORE).after_long_help(EXAMPLES);
    let command = command.mut_args(|arg| {
        let is_common = COMMON.contains(&arg.get_id().as_str()) || arg.is_positional();
        grouped(arg).hide_short_help(!is_common)
    });
    command.mut_subcommands(|command| command.mut_args(grouped))
}

/// An option in its group.
pub(super) fn grouped(arg: Arg) -> Arg {
    let group = group(arg.get_id().as_str());
    if arg.is_positional() { arg } else { arg.help_heading(group) }
}

fn group(id: &str) -> Option<&'static str> {
    GROUPS.iter().find(|(_, ids)| ids.contains(&id)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::width;

    fn shown(words: &[&str]) -> String {
        let error = command().try_get_matches_from(std::iter::once(&"onnxquant").chain(words)).unwrap_err();
        error.render().to_string()
    }

    #[test]
    fn every_option_is_in_one_group() {
        let mut command = command();
        command.build();
        let options: Vec<&Arg> =
            command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()).collect();
        for option in &options {
            let id = option.get_id().as_str();
            assert!(["help", "version"].contains(&id) || group(id).is_some(), "{id}");
        }
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
        let others: Vec<String> = command
            .get_subcommands()
            .flat_map(|command| command.get_arguments())
            .map(|arg| arg.get_id().to_string())
            .collect();
        for (at, id) in listed.iter().enumerate() {
            assert!(!listed[..at].contains(id), "{id} is in two groups");
            let is_option =
                options.iter().any(|option| option.get_id() == *id) || others.iter().any(|other| other == id);
            assert!(is_option, "{id} is no option");
        }
        assert!(COMMON.iter().all(|id| group(id).is_some()));
    }

    #[test]
    fn the_short_help_has_ten_options_and_says_where_the_others_are() {
        let text = shown(&["-h"]);
        let options: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("      --")).collect();
        // The help and the version have a letter as well.
        assert_eq!(options.len(), COMMON.len(), "{text}");
        assert!(text.contains("onnxquant --help") && text.lines().count() < 60, "{text}");
    }

    #[test]
    fn the_help_is_in_groups_and_no_wider_than_a_terminal() {
        let long = shown(&["--help"]);
        let places: Vec<usize> = GROUPS.iter().map(|(name, _)| long.find(&format!("\n{name}:\n")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        assert!(long.find("Examples:").is_some_and(|at| at > places[6]) && long.contains("Exit codes:"), "{long}");
        for words in [&["-h"][..], &["--help"], &["inspect", "--help"], &["compare", "--help"], &["bench", "-h"]] {
            let text = shown(words);
            let wide: Vec<&str> = text.lines().filter(|line| width(line) > COLUMNS).collect();
            assert!(wide.is_empty(), "{words:?}: {wide:?}");
        }
    }
}
