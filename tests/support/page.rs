//! Reads HTML and SVG as far as pages of this program go.

use std::collections::BTreeSet;

/// Elements without an end.
const VOID: [&str; 2] = ["meta", "br"];

/// A page that was checked to be well-formed.
#[derive(Debug)]
pub struct Page {
    pub text: String,
    pub ids: BTreeSet<String>,
    /// Where links lead.
    pub links: Vec<String>,
    /// Names of all elements.
    pub elements: BTreeSet<String>,
}

impl Page {
    /// What is wrong with `text`, or what it holds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut page =
            Self { text: text.to_owned(), ids: BTreeSet::new(), links: Vec::new(), elements: BTreeSet::new() };
        let mut open: Vec<String> = Vec::new();
        let mut rest = text.strip_prefix("<!doctype html>").ok_or("it does not begin as a page")?;
        while let Some(at) = rest.find('<') {
            check_text(&rest[..at], open.last())?;
            let end = tag_end(&rest[at..]).ok_or_else(|| format!("a tag has no end: {}", shown(&rest[at..])))?;
            let tag = &rest[at + 1..at + end];
            rest = &rest[at + end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                let expected = open.pop();
                if expected.as_deref() != Some(name) {
                    return Err(format!("`</{name}>` closes {expected:?}, before {}", shown(rest)));
                }
                continue;
            }
            let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            page.attributes(&tag[name.len()..])?;
            if !tag.ends_with('/') && !VOID.contains(&name.as_str()) {
                open.push(name.clone());
            }
            page.elements.insert(name);
        }
        if open.is_empty() { Ok(page) } else { Err(format!("left open: {open:?}")) }
    }

    fn attributes(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text.trim().trim_end_matches('/').trim();
        while !rest.is_empty() {
            let (name, behind) = rest.split_once("=\"").ok_or_else(|| format!("no attribute: {}", shown(rest)))?;
            let (value, behind) =
                behind.split_once('"').ok_or_else(|| format!("no end of `{name}`: {}", shown(behind)))?;
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                return Err(format!("no name of an attribute: {}", shown(name)));
            }
            check_text(value, None)?;
            match name {
                "id" if !self.ids.insert(value.to_owned()) => return Err(format!("two elements are `{value}`")),
                "href" | "src" | "data" | "action" | "srcset" => self.links.push(value.to_owned()),
                _ => {}
            }
            rest = behind.trim_start();
        }
        Ok(())
    }

    /// The section of this name, to its end.
    pub fn section(&self, id: &str) -> Option<&str> {
        let begin = self.text.find(&format!("<section id=\"{id}\""))?;
        let text = &self.text[begin..];
        Some(&text[..text.find("</section>")?])
    }
}

/// The place of the `>` that ends a tag; attributes may hold others.
fn tag_end(text: &str) -> Option<usize> {
    let mut is_quoted = false;
    text.char_indices().find_map(|(at, c)| {
        is_quoted ^= c == '"';
        (c == '>' && !is_quoted).then_some(at)
    })
}

/// In text nothing looks like a tag, and every `&` begins a reference.
fn check_text(text: &str, inside: Option<&String>) -> Result<(), String> {
    if inside.is_some_and(|name| name == "style") {
        return Ok(());
    }
    if text.contains('<') || text.contains('>') {
        return Err(format!("not escaped: {}", shown(text)));
    }
    let is_reference = |text: &str| {
        text.find(';').is_some_and(|end| end < 10 && text[..end].chars().all(|c| c.is_ascii_alphanumeric() || c == '#'))
    };
    match text.match_indices('&').find(|(at, _)| !is_reference(&text[at + 1..])) {
        Some((at, _)) => Err(format!("not escaped: {}", shown(&text[at..]))),
        None => Ok(()),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Text of a page as it is read.
pub fn unescaped(text: &str) -> String {
    let quotes = [("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&#x2f;", "/")];
    let pairs = quotes.into_iter().chain([("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]);
    pairs.fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
