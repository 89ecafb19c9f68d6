//! Plain text tables and numbers for people.

pub(crate) use onnxquant::words::{bytes, decibels, short};

/// Names on a line.
const NAMES_SHOWN: usize = 5;
/// Characters of a name in a table.
const NAME_SHOWN: usize = 60;

/// Rows of cells, padded to columns; the first row is the head. Columns of numbers go to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths = (0..columns).map(|column| width(column).unwrap_or(0)).collect::<Vec<_>>();
    let numeric = (0..columns).map(|column| is_numeric(rows, column)).collect::<Vec<_>>();
    let cell = |column: usize, text: &str| match numeric[column] {
        true => format!("{text:>width$}", width = widths[column]),
        false => format!("{text:<width$}", width = widths[column]),
    };
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, text)| cell(column, text)).collect::<Vec<_>>();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn is_numeric(rows: &[Vec<String>], column: usize) -> bool {
    let starts_as_number = |text: &String| text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
    rows.iter().skip(1).filter_map(|row| row.get(column)).all(starts_as_number)
}

/// A shape as 64x3x7x7.
pub(crate) fn shape(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// The first few of a list.
pub(crate) fn listed(mut words: impl Iterator<Item = String>) -> String {
    let mut shown: Vec<String> = words.by_ref().take(NAMES_SHOWN).collect();
    let more = words.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

/// A name with its middle left out where it would make a table too wide.
pub(crate) fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_SHOWN {
        return name.to_owned();
    }
    let half = NAME_SHOWN / 2;
    let (head, tail) = (name.chars().take(half), name.chars().skip(length - half));
    head.chain("...".chars()).chain(tail).collect()
}
