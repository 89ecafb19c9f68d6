//! Links between the pages that people read lead somewhere.

use std::path::{Component, Path, PathBuf};

use crate::support::{Failures, Text, root};

/// Where links go, with the number of the line.
fn links(text: &Text) -> Vec<(usize, String)> {
    let of_line = |(line, words): (usize, &str)| {
        let ends = words.match_indices("](").map(|(at, mark)| at + mark.len());
        let target = |at: usize| words.get(at..).and_then(|rest| rest.split(')').next()).unwrap_or_default().to_owned();
        ends.map(|at| (line, target(at))).collect::<Vec<_>>()
    };
    text.prose().into_iter().flat_map(of_line).collect()
}

/// `path` without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// What is wrong with a link.
fn problem(from: &Text, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let name = match file {
        "" => PathBuf::from(&from.name),
        file => plain(&Path::new(&from.name).parent().unwrap_or(Path::new("")).join(file)),
    };
    let name = name.to_string_lossy().replace('\\', "/");
    if from.name.starts_with("docs/src/") && !name.starts_with("docs/src/") {
        return Some("it leads out of the book, and is dead where that is built".to_owned());
    }
    if !root().join(&name).exists() {
        return Some("there is no such file".to_owned());
    }
    let anchor = anchor?;
    let anchors = Text::read(&name).anchors();
    (!anchors.iter().any(|known| known == anchor)).then(|| format!("{name} has no such heading"))
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let mut failures = Failures::default();
    for text in Text::all() {
        for (line, link) in links(&text) {
            let problem = problem(&text, &link);
            failures.check(problem.is_none(), || {
                format!("{}, line {line}: `{link}`: {}", text.name, problem.unwrap_or_default())
            });
        }
    }
    failures.finish();
}

#[test]
fn headings_of_a_page_differ() {
    let mut failures = Failures::default();
    for text in Text::of_the_book() {
        let mut anchors = text.anchors();
        anchors.sort();
        let twice: Vec<&[String]> = anchors.windows(2).filter(|pair| pair.first() == pair.last()).collect();
        failures.check(twice.is_empty(), || format!("{}: {twice:?}", text.name));
    }
    failures.finish();
}

#[test]
fn the_summary_lists_every_chapter() {
    let summary = Text::read("docs/src/SUMMARY.md");
    let listed: Vec<String> = links(&summary).into_iter().map(|(_, link)| link).collect();
    let mut failures = Failures::default();
    for text in Text::of_the_book() {
        let chapter = text.name.strip_prefix("docs/src/").filter(|name| *name != "SUMMARY.md");
        failures.check(chapter.is_none_or(|name| listed.iter().any(|link| link == name)), || text.name.clone());
    }
    failures.finish();
}
