//! Plain text tables and numbers for people.

pub(crate) use onnxquant::words::{bytes, decibels, short};

use crate::screen::{shortened, width};

/// Names on a line.
const NAMES_SHOWN: usize = 5;
/// Columns of a name in a text.
const NAME_SHOWN: usize = 40;
/// Columns that a name in a table keeps while other columns can go.
const NAME_KEPT: usize = 24;
/// Columns that a text at the end of a row has at least.
const LAST_KEPT: usize = 12;
/// What has more columns is no number with its unit.
const NUMBER: usize = 24;
/// Columns between those of a table.
const GAP: usize = 2;

/// Rows of cells as they are told.
pub(crate) struct Table {
    /// The first of them is the head.
    pub(crate) rows: Vec<Vec<String>>,
    /// Columns that go where a screen is too narrow, in the order in which they do.
    pub(crate) spare: &'static [usize],
}

impl Table {
    pub(crate) fn new(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Self {
        let head = head.iter().map(|&word| word.to_owned()).collect();
        Self { rows: std::iter::once(head).chain(rows).collect(), spare: &[] }
    }

    /// Cells padded to columns, those of numbers to the right. Where that is wider than `columns` of a screen, spare ones
    /// go, names at the beginning of rows are shortened, and texts at their end go on below.
    pub(crate) fn text(&self, columns: Option<usize>) -> String {
        let mut shape = Shape::of(&self.rows);
        let Some(most) = columns else { return shape.text() };
        for &spare in self.spare {
            if shape.total() > most && shape.least() > most {
                shape.drop_column(spare);
            }
        }
        shape.shorten_names(most);
        shape.wrap_ends(most);
        shape.text()
    }
}

/// A table in the making.
struct Shape {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
    is_numeric: Vec<bool>,
    /// Which columns are shown.
    shown: Vec<bool>,
}

impl Shape {
    fn of(rows: &[Vec<String>]) -> Self {
        let clean = |cell: &String| shortened(cell, usize::MAX);
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let is_numeric = (0..columns).map(|column| is_numeric(&rows, column)).collect();
        let mut shape = Self { rows, widths: vec![0; columns], is_numeric, shown: vec![true; columns] };
        (0..columns).for_each(|column| shape.measure(column));
        shape
    }

    fn measure(&mut self, column: usize) {
        let widest = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
        self.widths[column] = widest.unwrap_or(0);
    }

    /// Columns of the whole.
    fn total(&self) -> usize {
        let shown = self.widths.iter().zip(&self.shown).filter(|(_, shown)| **shown);
        shown.map(|(width, _)| width + GAP).sum::<usize>().saturating_sub(GAP)
    }

    /// The same with names as short as they are while other columns can go.
    fn least(&self) -> usize {
        let name = self.widths.first().copied().unwrap_or(0);
        self.total() - name + name.min(NAME_KEPT)
    }

    fn drop_column(&mut self, column: usize) {
        if let Some(shown) = self.shown.get_mut(column) {
            *shown = false;
        }
    }

    fn shorten_names(&mut self, most: usize) {
        let excess = self.total().saturating_sub(most);
        let Some(&name) = self.widths.first().filter(|_| excess > 0) else { return };
        let room = name.saturating_sub(excess).max(NAME_KEPT.min(most / 3));
        for cell in self.rows.iter_mut().filter_map(|row| row.first_mut()) {
            *cell = shortened(cell, room);
        }
        self.measure(0);
    }

    /// Texts at the end of rows go on in rows of their own.
    fn wrap_ends(&mut self, most: usize) {
        let Some(last) = self.shown.iter().rposition(|&shown| shown).filter(|&last| last > 0) else { return };
        if self.total() <= most || self.is_numeric[last] {
            return;
        }
        let room = (most + self.widths[last]).saturating_sub(self.total()).max(LAST_KEPT);
        let rows = std::mem::take(&mut self.rows);
        self.rows = rows.into_iter().flat_map(|row| lines_of(row, last, room)).collect();
        self.measure(last);
    }

    fn text(&self) -> String {
        let cell = |column: usize, text: &str| {
            let padding = " ".repeat(self.widths[column].saturating_sub(width(text)));
            if self.is_numeric[column] { padding + text } else { text.to_owned() + &padding }
        };
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().filter(|(column, _)| self.shown[*column]);
            let cells = cells.map(|(column, text)| cell(column, text)).collect::<Vec<_>>();
            cells.join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// A row whose cell `last` has no more than `room` columns, and rows that hold what follows.
fn lines_of(row: Vec<String>, last: usize, room: usize) -> Vec<Vec<String>> {
    let mut lines = vec![String::new()];
    for word in row.get(last).map_or("", String::as_str).split_whitespace() {
        let current = lines.last().map_or(0, |line| width(line));
        match lines.last_mut() {
            Some(line) if current == 0 => line.push_str(word),
            Some(line) if current + 1 + width(word) <= room => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    let next = lines.split_off(1);
    let with = |mut row: Vec<String>, text: String| {
        if let Some(cell) = row.get_mut(last) {
            *cell = text;
        }
        row
    };
    let empty = vec![String::new(); row.len()];
    let first = with(row, lines.pop().unwrap_or_default());
    std::iter::once(first).chain(next.into_iter().map(|text| with(empty.clone(), text))).collect()
}

fn is_numeric(rows: &[Vec<String>], column: usize) -> bool {
    let starts_as_number = |text: &String| text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
    let is_number = |text: &String| starts_as_number(text) && width(text) <= NUMBER;
    rows.iter().skip(1).filter_map(|row| row.get(column)).all(is_number)
}

/// A shape as 64x3x7x7.
pub(crate) fn shape(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// A name in quotes, in a text.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", shortened(name, NAME_SHOWN))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |name: &str, end: &str| [name, "MatMul", "1024", "12.5", end].map(str::to_owned).to_vec();
        let long = "/model/layers.11/mlp/down_proj/MatMul_with_a_long_name";
        let rows = [row(long, "8 bits per channel, stored as INT8"), row("head", "float: excluded by the settings")];
        Table {
            spare: &[1, 2],
            ..Table::new(&["layer", "operator", "weights", "error", "what is done"], rows.into_iter())
        }
    }

    #[test]
    fn tables_fit_a_screen_and_are_whole_in_a_pipe() {
        let whole = table().text(None);
        assert!(whole.contains("/model/layers.11/mlp/down_proj/MatMul_with_a_long_name"), "{whole}");
        assert!(whole.contains("12.5  8 bits per channel, stored as INT8\n"), "{whole}");
        for columns in [40, 50, 80] {
            let shown = table().text(Some(columns));
            assert!(shown.lines().all(|line| width(line) <= columns), "{columns}\n{shown}");
            assert!(shown.contains("/mode") && shown.contains("...") && shown.contains("12.5"), "{columns}\n{shown}");
            let words: Vec<&str> = shown.split_whitespace().collect();
            assert!(words.contains(&"excluded") && words.contains(&"settings"), "{columns}\n{shown}");
            assert_eq!(shown.contains("weights"), columns == 80, "{columns}\n{shown}");
        }
    }

    #[test]
    fn names_of_any_kind_break_no_row() {
        let rows = std::iter::once(vec!["a\nb\u{1b}[1m".to_owned(), "1".to_owned()]);
        assert_eq!(Table::new(&["layer", "error"], rows).text(None), "layer    error\na?b?[1m      1\n");
    }
}
