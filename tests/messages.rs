//! Every message has its remedy in the book: errors, warnings, what is missed, advice, and why layers stay in float.
//!
//! They are collected from the sources of all crates: what `thiserror` says, what is refused as usage, and the words of a
//! few files and functions. What varies is an ellipsis here and there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Failures, Text, root};

/// Functions in which every sentence is a message.
const FUNCTIONS: [&str; 8] = [
    "warnings",
    "unlikely",
    "missed",
    "missed_accuracy",
    "missed_perplexity",
    "not_measured",
    "mispredicted",
    "check_layer_rules",
];

/// Files in which every sentence is one.
const FILES: [&str; 3] = ["report/doubts.rs", "report/advice.rs", "plan/float_weights.rs"];

/// Files in which whatever is displayed is one.
const DISPLAYED: [&str; 4] =
    ["layers/skip_reason.rs", "plan/why_float.rs", "src/violation.rs", "statistics/measurement.rs"];

/// Words beside what varies, from which on a text is a message: of what is surely one, of what is refused, of a sentence
/// among other texts.
const SURELY: usize = 1;
const REFUSED: usize = 2;
const SENTENCE: usize = 3;

/// The source files of the libraries and of the command, without those of tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in
        std::fs::read_dir(folder).expect("there are sources").map(|entry| entry.expect("it can be listed").path())
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "testing" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.contains("test") {
            found.push(path);
        }
    }
}

/// A source file without its comments and its tests, which stand at its end.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file is text");
    let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    own.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The strings in `text`, as they are written.
fn strings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut signs = text.chars();
    let mut open: Option<String> = None;
    while let Some(sign) = signs.next() {
        match (&mut open, sign) {
            (Some(string), '\\') => match signs.next() {
                // A line goes on behind its indentation.
                Some('\n') => {
                    let rest = signs.as_str().trim_start();
                    signs = rest.chars();
                }
                escaped => string.extend(escaped),
            },
            (Some(_), '"') => found.extend(open.take()),
            (Some(string), sign) => string.push(sign),
            (None, '"') => open = Some(String::new()),
            (None, _) => {}
        }
    }
    found
}

/// `text` up to the bracket that closes the first one.
fn bracketed(text: &str, brackets: [char; 2]) -> &str {
    let (mut depth, mut is_string, mut is_escaped) = (0, false, false);
    for (at, sign) in text.char_indices() {
        match sign {
            _ if is_escaped => is_escaped = false,
            '\\' if is_string => is_escaped = true,
            '"' => is_string = !is_string,
            sign if !is_string && sign == brackets[0] => depth += 1,
            sign if !is_string && sign == brackets[1] => {
                depth -= 1;
                if depth == 0 {
                    return text.get(..=at).unwrap_or(text);
                }
            }
            _ => {}
        }
    }
    text
}

/// What stands behind each `mark` of `text`.
fn behind<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(mark).filter_map(move |(at, mark)| text.get(at + mark.len()..))
}

/// A string as the page writes it: an ellipsis for what varies, single spaces.
fn shown(string: &str) -> String {
    let mut shown = String::new();
    for (at, part) in string.split('{').enumerate() {
        let fixed = if at == 0 { Some(part) } else { part.split_once('}').map(|(_, rest)| rest) };
        if at > 0 {
            shown.push('…');
        }
        shown.push_str(fixed.unwrap_or_default());
    }
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Words of at least two letters.
fn words(message: &str) -> usize {
    let is_sign = |sign: char| !sign.is_ascii_alphabetic();
    message.split(is_sign).filter(|word| word.len() > 1).count()
}

/// Every message, with the file that says it.
fn messages() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(root().join("crates")).expect("there are crates") {
        sources(&folder.expect("it can be listed").path().join("src"), &mut files);
    }
    let mut found = BTreeMap::new();
    for path in files {
        let (name, code) = (path.to_string_lossy().replace('\\', "/"), code(&path));
        for (string, least) in of_file(&name, &code) {
            let message = shown(&string);
            if words(&message) >= least {
                found.insert(message, name.clone());
            }
        }
    }
    found
}

/// Strings of a file that may be messages, with the words from which on they are.
fn of_file(name: &str, code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut all = |text: &str, least: usize| found.extend(strings(text).into_iter().map(|string| (string, least)));
    if ["/onnxquant/src/", "/cli/src/"].iter().any(|crates| name.contains(crates)) {
        for mark in ["Error::Usage(", "refused("] {
            behind(code, mark).for_each(|rest| all(bracketed(&format!("({rest}"), ['(', ')']), REFUSED));
        }
        behind(code, "let problem =").for_each(|rest| all(rest.split(';').next().unwrap_or_default(), SENTENCE));
    }
    for function in FUNCTIONS {
        for rest in behind(code, &format!("fn {function}(")) {
            let body = rest.find('{').and_then(|at| rest.get(at..)).unwrap_or_default();
            all(bracketed(body, ['{', '}']), SENTENCE);
        }
    }
    if FILES.iter().any(|file| name.ends_with(file)) {
        all(code, SENTENCE);
    }
    if DISPLAYED.iter().any(|file| name.ends_with(file)) {
        for mark in ["write!(", "write_str("] {
            behind(code, mark).for_each(|rest| all(bracketed(&format!("({rest}"), ['(', ')']), SURELY));
        }
    }
    let of_errors = behind(code, "#[error(").filter_map(|rest| {
        let first = strings(bracketed(&format!("({rest}"), ['(', ')'])).into_iter().next();
        first.map(|string| (string, SURELY))
    });
    let of_errors: Vec<(String, usize)> = of_errors.collect();
    found.extend(of_errors);
    found
}

/// The messages of the page, and what is to be done about each.
fn remedies() -> BTreeMap<String, String> {
    let page = Text::read("docs/src/messages.md");
    let tables = page.tables().into_iter().filter(|table| table.rows.first().is_some_and(|row| row[0] == "message"));
    let rows = tables.flat_map(|table| table.rows.into_iter().skip(1));
    let of_row = |row: Vec<String>| {
        let remedy = row.get(1).cloned().unwrap_or_default();
        let messages = row.first().map(|cell| cell.replace('\\', "")).unwrap_or_default();
        let messages: Vec<String> = messages.split("<br>").map(str::to_owned).collect();
        messages.into_iter().map(move |message| (message, remedy.clone()))
    };
    rows.flat_map(of_row).collect()
}

#[test]
fn every_message_has_a_remedy_in_the_book_and_no_other_stands_there() {
    let (messages, remedies) = (messages(), remedies());
    assert!(messages.len() > 200, "only {} messages were found", messages.len());
    let mut failures = Failures::default();
    for (message, file) in &messages {
        let has_remedy = remedies.get(message).is_some_and(|remedy| !remedy.is_empty());
        failures.check(has_remedy, || format!("`{message}` of {file} has no remedy in docs/src/messages.md"));
    }
    for message in remedies.keys() {
        failures
            .check(messages.contains_key(message), || format!("nothing says `{message}`, which messages.md explains"));
    }
    failures.finish();
}

#[test]
fn messages_are_found_as_they_are_written() {
    let code = "#[error(\"cannot read `{}` as {kind}\", path.display())]\nfn missed(&self) -> String {\n\
                let parts = format!(\"{x:.2} dB, \\\n     {y} wanted \\\"so\\\"\");\n}\nlet problem = \"no (such) thing\";";
    let found = of_file("/onnxquant/src/x.rs", code);
    let found: Vec<String> = found.iter().map(|(string, _)| shown(string)).collect();
    assert_eq!(found, ["no (such) thing", "… dB, … wanted \"so\"", "cannot read `…` as …"]);
}
