//! Texts as wide as a screen.

use std::io::{stderr, stdout};

use terminal_size::terminal_size_of;
use unicode_width::UnicodeWidthStr;

/// Columns of a summary where no terminal says that there are fewer.
pub const COLUMNS: usize = 80;
/// A terminal with fewer columns is taken for one with so many.
const LEAST: usize = 40;
/// Columns before the words of lines that go on.
const INDENT: usize = 8;
/// Stands for what a shortened name had in its middle.
const LEFT_OUT: &str = "...";

/// Columns of the standard output; nothing where that is no terminal.
pub(crate) fn output_columns() -> Option<usize> {
    terminal_size_of(stdout()).map(|(width, _)| usize::from(width.0).max(LEAST))
}

/// Columns of the standard error; nothing where that is no terminal.
pub(crate) fn error_columns() -> Option<usize> {
    terminal_size_of(stderr()).map(|(width, _)| usize::from(width.0).max(LEAST))
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// A name in at most so many columns: where it is longer, its middle is left out. Control characters, which move the
/// cursor of a terminal, become question marks.
pub(crate) fn shortened(name: &str, most: usize) -> String {
    let shown: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if width(&shown) <= most {
        return shown;
    }
    let room = most.saturating_sub(LEFT_OUT.len());
    // The end of a name says more than its beginning.
    let head = start(shown.chars(), room / 2);
    let tail: String = start(shown.chars().rev(), room - width(&head)).chars().rev().collect();
    head + LEFT_OUT + &tail
}

/// The first characters, as many as fit.
fn start(characters: impl Iterator<Item = char>, most: usize) -> String {
    let mut text = String::new();
    for c in characters {
        text.push(c);
        if width(&text) > most {
            text.pop();
            break;
        }
    }
    text
}

/// The same text in at most so many columns, where there is a limit: lines that are longer go on below, indented.
pub(crate) fn fitted(text: String, columns: Option<usize>) -> String {
    match columns {
        Some(columns) => text.lines().map(|line| wrapped(line, columns)).collect(),
        None => text,
    }
}

/// One line as one or more.
fn wrapped(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return format!("{line}\n");
    }
    let label = label_end(line);
    let (mut text, mut current) = (String::new(), line[..label].to_owned());
    let mut is_first = true;
    for word in line[label..].split_whitespace() {
        let word = shortened(word, columns - INDENT);
        let gap = usize::from(!is_first);
        if width(&current) + gap + width(&word) > columns {
            text += current.trim_end();
            text.push('\n');
            current = format!("{:INDENT$}{word}", "");
        } else {
            current += if is_first { "" } else { " " };
            current += &word;
        }
        is_first = false;
    }
    text + &current + "\n"
}

/// Where the words of a line begin behind its label, or behind what indents it.
fn label_end(line: &str) -> usize {
    let is_label = line.char_indices().nth(INDENT - 1).is_some_and(|(_, c)| c == ' ');
    let at = line.char_indices().nth(INDENT).map_or(0, |(at, _)| at);
    if is_label { at } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_both_ends() {
        assert_eq!(shortened("conv1", 5), "conv1");
        assert_eq!(shortened("/model/layers.11/mlp/down_proj/MatMul", 20), "/model/l...oj/MatMul");
        assert_eq!(width(&shortened("/model/layers.11/mlp/down_proj/MatMul", 21)), 21);
        assert_eq!(shortened("\u{1b}[2Jname\n", 20), "?[2Jname?");
        let wide = "\u{5c42}".repeat(30);
        assert!(width(&shortened(&wide, 21)) <= 21 && shortened(&wide, 21).contains(LEFT_OUT));
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let text = format!(
            "size    {}\n        {}\nno label {}\nshort\n",
            "word ".repeat(40),
            "x".repeat(300),
            "a ".repeat(99)
        );
        for columns in [40, 50, 80] {
            let shown = fitted(text.clone(), Some(columns));
            assert!(shown.lines().all(|line| width(line) <= columns), "{columns}:\n{shown}");
            assert!(shown.starts_with("size    word word") && shown.ends_with("\nshort\n"), "{shown}");
            assert!(shown.contains(LEFT_OUT) && !shown.contains("  word\n word"), "{shown}");
        }
        assert_eq!(fitted("size    1 kB -> 1 B\n".to_owned(), Some(80)), "size    1 kB -> 1 B\n");
        assert_eq!(fitted("size    aa bb cc\n".to_owned(), Some(12)), "size    aa\n        bb\n        cc\n");
    }
}
