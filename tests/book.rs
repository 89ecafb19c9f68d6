//! The book and README tell what is so: their commands run, their screens are what is printed, and they know the options
//! that there are.
//!
//! Blocks of the language `sh`, and indented ones with commands of this program, run as they stand, page by page, in a folder
//! that holds what the pages name: see [`place`]. A comment above a block says more:
//!
//! | comment | meaning |
//! |---|---|
//! | `<!-- not run: WHY -->` | what the command needs is not there |
//! | `<!-- file: NAME -->` | the block is this file, and lies there before the page's commands run |
//! | `<!-- printed -->` | the last block of commands prints these lines, numbers aside |

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Block, Failures, Fixture, Page, Run, Text, code_spans, files_in, folder, library, onnxquant};
use crate::{pictures, texts};

/// Commands that are not run, and why.
const OTHERS: [(&str, &str); 4] = [
    ("cargo xtask ", "continuous integration runs what must hold of them"),
    ("cargo install ", "it builds everything anew"),
    ("pip install ", "it changes the machine; `cargo xtask test` installs the package in a fresh environment"),
    ("optimum-cli ", "it downloads a model"),
];

/// Options of other programs that pages name.
const OF_OTHERS: [&str; 21] = [
    "--bin",
    "--bless",
    "--check",
    "--kills",
    "--large",
    "--locked",
    "--model",
    "--no-default-features",
    "--path",
    "--profile",
    "--release",
    "--rm",
    "--seconds",
    "--seed",
    "--static",
    "--twice",
    "--upgrade",
    "--volume",
    "--wheel",
    "--without-avx512",
    "--worse-because",
];

/// The commands that take options of their own.
const COMMANDS: [&str; 8] = ["", "inspect", "compare", "bench", "report", "calibrate", "solve", "finish"];

/// Puts what pages name into a folder: the float model, samples and labelled data of `digits_mlp`; a model of pictures
/// with some; a decoder with its tokenizer and texts; the fixture of README.
fn place(folder: &Path) {
    let copy = |from: &Path, to: &Path| {
        std::fs::copy(from, to).expect("a fixture can be copied");
    };
    let make = |name: &str| std::fs::create_dir_all(folder.join(name)).expect("a folder can be made");
    let samples = |of: Fixture, to: &Path| {
        let files = std::fs::read_dir(of.calib()).expect("there are samples").map(|file| file.expect("it is there"));
        files.for_each(|file| copy(&file.path(), &to.join(file.file_name())));
    };
    ["samples", "target", "fixtures/mnist_cnn/calib"].into_iter().for_each(make);
    copy(&Fixture::MLP.model(), &folder.join("model.onnx"));
    samples(Fixture::MLP, &folder.join("samples"));
    copy(&Fixture::MLP.test_set(), &folder.join("test.npz"));
    copy(&Fixture::CNN.model(), &folder.join("fixtures/mnist_cnn/model.onnx"));
    samples(Fixture::CNN, &folder.join("fixtures/mnist_cnn/calib"));
    pictures::fill(folder, "photos.onnx", "photos");
    texts::fill_folder(folder, "decoder");
}

/// The search path with the command, and with the Python that has ONNX Runtime.
fn search_path() -> OsString {
    let python = std::env::var_os("ONNXQUANT_PYTHON").map(PathBuf::from);
    let own = [Some(PathBuf::from(env!("CARGO_BIN_EXE_onnxquant"))), python];
    let own = own.into_iter().flatten().filter_map(|program| program.parent().map(Path::to_owned));
    let others = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(own.chain(std::env::split_paths(&others))).expect("paths can be joined")
}

/// What is said in the comment above, behind `key`.
fn said<'a>(block: &'a Block, key: &str) -> Option<&'a str> {
    block.comment.as_deref()?.strip_prefix(key)
}

/// The commands of a block, where there are any; a line that ends in a backslash goes on.
fn commands(block: &Block) -> Vec<String> {
    let lines = block.lines.join("\n").replace("\\\n", "");
    let lines = lines.lines().map(|line| match line.strip_prefix("cargo run --release --bin onnxquant -- ") {
        Some(arguments) => format!("onnxquant {arguments}"),
        None => line.to_owned(),
    });
    let is_other = |line: &String| OTHERS.iter().any(|(start, _)| line.starts_with(start));
    lines.filter(|line| !line.is_empty() && !is_other(line)).collect()
}

/// A line of a screen without its numbers, and without what depends on them.
fn masked(line: &str) -> String {
    let no_numbers = |word: &str| !word.chars().any(|sign| sign.is_ascii_digit());
    line.split_whitespace().filter(|word| no_numbers(word)).collect::<Vec<_>>().join(" ")
}

/// Runs the commands of a page in `folder`; what went wrong.
fn run_page(page: &Text, folder: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let blocks = page.blocks();
    for (name, block) in blocks.iter().filter_map(|block| Some((said(block, "file: ")?, block))) {
        std::fs::write(folder.join(name), block.lines.join("\n") + "\n").expect("a file can be written");
    }
    let mut printed = String::new();
    for block in &blocks {
        let mut problem = |text: String| problems.push(format!("{}, line {}: {text}", page.name, block.line));
        if said(block, "printed").is_some() {
            let found: Vec<String> = printed.lines().map(masked).collect();
            let missing = block.lines.iter().find(|line| !found.contains(&masked(line)));
            missing.into_iter().for_each(|line| problem(format!("`{line}` is not printed:\n{printed}")));
        }
        let has_command = block.lines.iter().any(|line| line.starts_with("onnxquant "));
        let is_shell = block.language == "sh" || (block.language.is_empty() && has_command);
        if said(block, "not run: ").is_some() || !(is_shell || has_command) {
            continue;
        }
        if !is_shell {
            problem("a block with commands has the language `sh`, or a comment that it is not run".to_owned());
            continue;
        }
        let commands = commands(block);
        if let Some(foreign) = commands.iter().find(|command| !command.starts_with("onnxquant ")) {
            problem(format!("`{foreign}` is no command of this program"));
            continue;
        }
        printed.clear();
        for command in commands {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &command])
                .current_dir(folder)
                .env("PATH", search_path())
                .env("ORT_DYLIB_PATH", library());
            let run = Run::of(&mut shell);
            if run.code != Some(0) {
                problem(format!("`{command}` has exit code {:?}:\n{}{}", run.code, run.stdout, run.stderr));
            }
            printed.push_str(&run.stdout);
            printed.push_str(&run.stderr);
        }
    }
    problems
}

#[test]
fn every_command_of_the_book_and_of_readme_runs() {
    let mut failures = Failures::default();
    for page in Text::of_the_book() {
        let folder = folder();
        place(folder.path());
        let problems = run_page(&page, folder.path());
        failures.check(problems.is_empty(), || problems.join("\n  "));
        for name in files_in(folder.path()).into_iter().filter(|name| name.ends_with(".html")) {
            let html = std::fs::read_to_string(folder.path().join(&name)).expect("it was written");
            let fault = Page::parse(&html).err();
            failures.check(fault.is_none(), || format!("{}: {name}: {}", page.name, fault.unwrap_or_default()));
        }
    }
    failures.finish();
}

/// The headings of the page of a report, all that it can have.
fn headings() -> Vec<String> {
    let text = include_str!("../crates/onnxquant/src/report/page/report.html");
    let of = |heading: &str| {
        let words = heading.split("</h2>").next().unwrap_or_default();
        let parts = words.split("{%").map(|part| part.split_once("%}").map_or(part, |(_, words)| words));
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    text.split("<h2>").skip(1).flat_map(of).collect()
}

#[test]
fn every_section_of_the_page_of_a_report_is_explained() {
    let text = Text::read("docs/src/reports.md");
    let told: Vec<String> = text.tables().into_iter().flat_map(|table| table.rows).flatten().collect();
    let headings = headings();
    assert!(headings.len() > 10, "{headings:?}");
    let missing: Vec<&String> =
        headings.iter().filter(|heading| !told.iter().any(|cell| cell.contains(*heading))).collect();
    assert!(missing.is_empty(), "docs/src/reports.md does not tell {missing:?}");
}

/// Options by their long names, as `--help` of a command lists them.
fn options_of(command: &str) -> BTreeSet<String> {
    let words: Vec<&str> = [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
    let help = Run::of(&mut onnxquant(&words)).succeeded().stdout;
    let of_line = |line: &str| {
        let first = line.trim_start();
        let long = first
            .split_once("--")
            .filter(|(short, _)| short.is_empty() || short.ends_with(", "))
            .map(|(_, name)| name)?;
        let is_listed = first.starts_with("--") || (first.starts_with('-') && first.len() > 4);
        is_listed.then(|| named(long))
    };
    help.lines().filter_map(of_line).collect()
}

/// The option at the start of `text`, which stands behind its dashes.
fn named(text: &str) -> String {
    let name: String = text.chars().take_while(|sign| sign.is_ascii_alphanumeric() || *sign == '-').collect();
    format!("--{name}")
}

/// Options that some words name: dashes at their start or behind a blank or a bracket, and a letter.
fn options_in(words: &str) -> Vec<String> {
    let words = words.split([' ', '`', '(', '[', '\'']);
    let names = words.filter_map(|word| word.strip_prefix("--")).filter(|name| name.starts_with(char::is_alphabetic));
    names.map(named).collect()
}

/// Options that a page names in backticks or in blocks, with the line.
fn named_options(page: &Text) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, words) in page.prose() {
        found.extend(code_spans(words).into_iter().flat_map(options_in).map(|option| (line, option)));
    }
    for block in page.blocks() {
        found.extend(block.lines.iter().flat_map(|words| options_in(words)).map(|option| (block.line, option)));
    }
    found
}

#[test]
fn the_page_of_options_tells_every_option_and_no_other() {
    let known: BTreeSet<String> = COMMANDS.into_iter().flat_map(options_of).collect();
    assert!(known.len() > 60, "{known:?}");
    let page = Text::read("docs/src/options.md");
    let cells = page.tables().into_iter().flat_map(|table| table.rows).flat_map(|row| row.into_iter().take(2));
    let told: BTreeSet<String> = cells
        .flat_map(|cell| {
            let codes: Vec<String> = code_spans(&cell).into_iter().map(str::to_owned).collect();
            codes.into_iter().filter_map(|code| code.strip_prefix("--").map(named)).collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<&String> = known.difference(&told).collect();
    let unknown: Vec<&String> = told.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not told: {missing:?}; no options: {unknown:?}");
}

#[test]
fn options_that_the_book_names_exist() {
    let mut known: BTreeSet<String> = COMMANDS.into_iter().flat_map(options_of).collect();
    known.extend(OF_OTHERS.map(str::to_owned));
    let mut failures = Failures::default();
    for page in Text::of_the_book() {
        for (line, option) in named_options(&page) {
            failures.check(known.contains(&option), || format!("{}, line {line}: `{option}`", page.name));
        }
    }
    failures.finish();
}
