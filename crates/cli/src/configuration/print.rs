//! The configuration as a file, and the schema of such files. Both are made of the options of the command.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use onnxquant::LayerRule;
use serde_json::{Map, Value, json};

use super::file::{EXTENDS, is_list, is_relative_path, is_switch, keys, takes_rules};
use crate::args::{QuantizeArgs, has_no_effect, presets};

/// All settings of a run as a file that gives the same run. Defaults without effect are comments: as keys they would be
/// refused. Those of `without` are left out.
pub(super) fn effective(command: &Command, matches: &ArgMatches, args: &QuantizeArgs, without: &[&str]) -> String {
    let mut text = String::new();
    for (name, arg) in keys(command).filter(|(_, arg)| !without.contains(&arg.get_id().as_str())) {
        let id = arg.get_id().as_str();
        let Some(value) = value(arg, matches) else { continue };
        let is_default = matches.value_source(id) != Some(ValueSource::CommandLine);
        let comment = if is_default && !is_switch(arg) && has_no_effect(id, args) { "# " } else { "" };
        text += &format!("{comment}{name} = {value}\n");
    }
    text
}

/// The value of an option in TOML; nothing where it has none.
fn value(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    if is_switch(arg) {
        return Some(matches.get_flag(id).to_string());
    }
    if takes_rules(arg) {
        let rules: Vec<String> = matches.get_many(id)?.map(|rule: &LayerRule| format!("{{ {rule} }}")).collect();
        return Some(format!("[{}]", rules.join(", ")));
    }
    let texts: Vec<String> = matches.get_raw(id)?.map(|text| text.to_string_lossy().into_owned()).collect();
    let values: Vec<String> = texts.iter().map(|text| literal(arg, text)).collect();
    match is_list(arg) {
        true => Some(format!("[{}]", values.join(", "))),
        false => values.into_iter().next(),
    }
}

/// A text as a number where it is one, and else in quotes; paths lead there from everywhere.
fn literal(arg: &Arg, text: &str) -> String {
    if is_relative_path(arg, text) {
        let path = std::path::absolute(Path::new(text)).map(|path| path.to_string_lossy().into_owned());
        return toml::Value::String(path.unwrap_or_else(|_| text.to_owned())).to_string();
    }
    let is_number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
        || text.parse::<f64>().is_ok_and(|number| number.is_finite() && number.to_string() == text);
    if is_number { text.to_owned() } else { toml::Value::String(text.to_owned()).to_string() }
}

/// The JSON Schema of a configuration file.
pub(super) fn schema(command: &Command) -> Value {
    let mut properties: Map<String, Value> =
        keys(command).map(|(name, arg)| (name.to_owned(), property(arg))).collect();
    let about = format!("What is read before this file: a preset ({}) or another file.", presets::names().join(", "));
    properties.insert(EXTENDS.to_owned(), json!({ "description": about, "type": "string" }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of onnxquant",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(arg: &Arg) -> Value {
    let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let single = json!({ "type": ["string", "number"] });
    let mut found = match () {
        () if is_switch(arg) => json!({ "type": "boolean" }),
        () if takes_rules(arg) => json!({ "type": "array", "items": rule() }),
        () if is_list(arg) => json!({ "anyOf": [single, { "type": "array", "items": single }] }),
        () => one_value(arg),
    };
    if let Some(object) = found.as_object_mut() {
        object.insert("description".to_owned(), about.into());
    }
    found
}

/// A table `[[layer]]`.
fn rule() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "description": "The name of one layer" },
            "match": { "type": "string", "description": "A glob of names" },
            "op-type": { "type": "string", "description": "An operator, such as Conv" },
            "position": {
                "anyOf": [{ "enum": ["first", "last"] }, { "type": "integer", "minimum": 1 }],
                "description": "The place among the layers that the other keys match",
            },
            "scheme": { "enum": ["w8", "w4"], "description": "Bits a weight, and blocks of 32 for `w4`" },
            "bits": { "type": "integer", "minimum": 1, "maximum": 8, "description": "Bits a weight" },
            "granularity": { "type": "string", "description": "`tensor`, `channel` or `block:N`" },
            "method": { "type": "string", "description": "How the codes are found" },
            "float": { "const": true, "description": "The layers stay in float" },
        },
        "anyOf": [{ "required": ["name"] }, { "required": ["match"] }, { "required": ["op-type"] }, { "required": ["position"] }],
        "oneOf": [
            {
                "anyOf": [
                    { "required": ["scheme"] }, { "required": ["bits"] }, { "required": ["granularity"] },
                    { "required": ["method"] },
                ],
            },
            { "required": ["float"] },
        ],
    })
}

fn one_value(arg: &Arg) -> Value {
    let words: Vec<Value> = arg.get_possible_values().iter().flat_map(|word| either(word.get_name())).collect();
    match words.is_empty() {
        false => json!({ "enum": words }),
        // Several numbers may be a list, as in `mean = [0.5, 0.4, 0.3]`.
        true => json!({ "type": ["string", "number", "array"], "items": { "type": ["string", "number"] } }),
    }
}

/// A word, and the number that it is.
fn either(word: &str) -> Vec<Value> {
    let number = word.parse::<i64>().ok().map(Value::from);
    std::iter::once(Value::from(word)).chain(number).collect()
}
