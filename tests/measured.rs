//! Tables of figures name the command by which they were measured.

use crate::support::{Failures, Table, Text, code_spans};

/// From this part of its cells on, beside the first column, a table is one of figures.
const FIGURES: f64 = 0.5;

/// `2.0x`, `86.0 % (85.75 %)`, `x 1.048`, `-`.
fn is_figure(cell: &str) -> bool {
    let plain = cell.trim_start_matches(['`', 'x', ' ', '-', '+', '<']);
    plain.starts_with(|sign: char| sign.is_ascii_digit()) && cell.contains(|sign: char| sign.is_ascii_digit())
}

fn holds_figures(table: &Table) -> bool {
    let body: Vec<&String> = table.rows.iter().skip(1).flat_map(|row| row.iter().skip(1)).collect();
    let figures = body.iter().filter(|cell| is_figure(cell)).count();
    !body.is_empty() && figures as f64 >= FIGURES * body.len() as f64
}

/// The words between the last heading above a table and the next one below it.
fn section(text: &Text, table: &Table) -> String {
    let prose = text.prose();
    let is_heading = |line: &str| line.starts_with('#');
    let above = prose.iter().rposition(|(line, words)| *line < table.line && is_heading(words)).unwrap_or(0);
    let words = prose.iter().skip(above).take_while(|(line, words)| *line < table.line || !is_heading(words));
    words.map(|(_, words)| *words).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_table_of_figures_names_its_command() {
    let mut failures = Failures::default();
    for text in Text::of_the_book() {
        for table in text.tables().iter().filter(|table| holds_figures(table)) {
            let section = section(&text, table);
            let is_command =
                |code: &&str| ["onnxquant ", "cargo xtask ", "python "].iter().any(|start| code.starts_with(start));
            failures.check(code_spans(&section).iter().any(is_command), || {
                format!("{}, line {}: by which command was it measured?", text.name, table.line)
            });
        }
    }
    failures.finish();
}
