//! The pages that people read: the book, README and what lies beside it.

use std::path::{Path, PathBuf};

use super::root;

/// A Markdown file of the repository.
pub struct Text {
    /// From the repository on, with `/`.
    pub name: String,
    pub text: String,
}

/// Code, or whatever else stands between fences or is indented.
pub struct Block {
    /// The first line's number, from 1.
    pub line: usize,
    /// Behind the fence; nothing where it is indented.
    pub language: String,
    /// What the comment right above says: `<!-- file: eval.py -->`.
    pub comment: Option<String>,
    pub lines: Vec<String>,
}

/// The rows of a table, cell by cell; the head is the first, the line below it is left out.
pub struct Table {
    pub line: usize,
    pub rows: Vec<Vec<String>>,
}

impl Text {
    /// Of a file, by its name from the repository on.
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), text }
    }

    /// Every file of this kind but those that are made.
    pub fn all() -> Vec<Self> {
        let mut names = Vec::new();
        collect(&root(), &mut names);
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// README and the chapters of the book.
    pub fn of_the_book() -> Vec<Self> {
        let is_chapter = |text: &Self| text.name.starts_with("docs/src/") || text.name == "README.md";
        Self::all().into_iter().filter(is_chapter).collect()
    }

    /// Blocks between fences; indented ones where the paragraph above has ended, in no list.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let (mut is_fenced, mut comment, mut above) = (false, None, "");
        for (at, line) in self.text.lines().enumerate() {
            let new = |language: &str, comment| {
                let language = language.to_owned();
                Block { line: at + 1, language, comment, lines: Vec::new() }
            };
            let indented = line.strip_prefix("    ").filter(|_| !is_fenced);
            let goes_on = above.starts_with("    ");
            match (line.strip_prefix("```"), indented) {
                (Some(_), _) if is_fenced => is_fenced = false,
                (Some(language), _) => {
                    blocks.push(new(language, comment.take()));
                    is_fenced = true;
                }
                (None, Some(_)) if above.is_empty() => blocks.push(new("", comment.take())),
                _ => {}
            }
            if let (Some(block), false) = (blocks.last_mut(), line.starts_with("```")) {
                let is_code = is_fenced || (indented.is_some() && (above.is_empty() || goes_on));
                block.lines.extend(is_code.then(|| indented.unwrap_or(line).to_owned()));
            }
            let said = line.strip_prefix("<!-- ").and_then(|text| text.strip_suffix(" -->"));
            comment = said.map(str::to_owned);
            above = line;
        }
        blocks
    }

    /// The lines outside blocks, with their numbers.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_fenced = false;
        let mut found = Vec::new();
        for (at, line) in self.text.lines().enumerate() {
            let is_fence = line.starts_with("```");
            is_fenced ^= is_fence;
            if !is_fence && !is_fenced && !line.starts_with("    ") {
                found.push((at + 1, line));
            }
        }
        found
    }

    pub fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<Table> = Vec::new();
        let mut last = 0;
        for (line, text) in self.prose().into_iter().filter(|(_, text)| text.starts_with('|')) {
            if line != last + 1 {
                tables.push(Table { line, rows: Vec::new() });
            }
            last = line;
            if let Some(table) = tables.last_mut().filter(|_| !text.starts_with("|---")) {
                table.rows.push(cells(text));
            }
        }
        tables
    }

    /// Names under which headings can be linked to, as GitHub and mdBook make them.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter_map(|(_, line)| {
            let rest = line.trim_start_matches('#');
            (rest.len() < line.len()).then(|| rest.trim())
        });
        headings.map(anchor).collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
    kept.map(|sign| if sign == ' ' { '-' } else { sign.to_ascii_lowercase() }).collect()
}

/// The cells of a line of a table; a bar that is meant stands behind a backslash.
fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{1}");
    inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// The words in backticks.
pub fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn collect(folder: &Path, names: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    for path in entries.map(|entry| entry.expect("the folder can be listed").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "target" || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, names);
        } else if name.ends_with(".md") {
            names.push(relative(&path));
        }
    }
}

fn relative(path: &Path) -> String {
    let parts: PathBuf = path.strip_prefix(root()).expect("it lies in the repository").into();
    parts.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}
