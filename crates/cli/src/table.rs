//! Plain text tables and numbers for people.

/// Names on a line.
const NAMES_SHOWN: usize = 5;

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

/// Bytes in decimal units.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// A ratio or an error with three significant digits.
pub(crate) fn short(x: f64) -> String {
    if x != 0.0 && x.abs() < 1e-3 { format!("{x:.2e}") } else { format!("{x:.3}") }
}

/// Decibels; infinite where nothing differs.
pub(crate) fn decibels(sqnr_db: f64) -> String {
    if sqnr_db == f64::INFINITY { "inf (equal)".to_owned() } else { format!("{sqnr_db:.1} dB") }
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
