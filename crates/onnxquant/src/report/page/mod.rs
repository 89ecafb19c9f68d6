//! A report as a page: one HTML file that needs no network, for screens of any size, light and dark.
//!
//! `report.html` has the words of a run, `compare.html` those of two models, `style.css` the looks, `svg` the plots.
//! Everything that comes from a file, such as the names of layers, is escaped: by the template engine in the words, by
//! `svg` in the plots.

mod compared;
mod rows;
mod svg;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::Serialize;

use crate::error::Error;
use crate::report::stored::StoredReport;
use crate::report::words;
use rows::Rows;

/// The parts of the pages.
const PARTS: [(&str, &str); 6] = [
    ("compare.html", include_str!("compare.html")),
    ("figures.html", include_str!("figures.html")),
    ("head.html", include_str!("head.html")),
    ("report.html", include_str!("report.html")),
    ("outputs.html", include_str!("outputs.html")),
    ("style.css", include_str!("style.css")),
];

impl StoredReport {
    /// The report as a page.
    ///
    /// # Errors
    /// None but defects of this program.
    pub fn page(&self) -> Result<String, Error> {
        let rows = Rows::of(&self.parts);
        rendered("report.html", &minijinja::context! { report => Value::from_serialize(&self.whole), rows => rows })
    }
}

/// A page with what it needs to know.
fn rendered<S: Serialize>(name: &str, context: &S) -> Result<String, Error> {
    let mut pages = Environment::new();
    pages.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    // Reports of earlier versions lack parts.
    pages.set_undefined_behavior(UndefinedBehavior::Chainable);
    pages.set_trim_blocks(true);
    pages.set_lstrip_blocks(true);
    pages.add_filter("bytes", |bytes: f64| words::bytes(bytes.max(0.0) as u64));
    pages.add_filter("short", |x: Value| number(&x).map_or("-".to_owned(), words::short));
    pages.add_filter("db", |x: Value| number(&x).map_or("no difference".to_owned(), words::decibels));
    pages.add_filter("shell", |words: Vec<String>| words::command_line(&words));
    pages.add_filter("times", |x: Value| number(&x).map_or("-".to_owned(), |x| format!("{x:.2}")));
    let failed = |error: minijinja::Error| Error::Internal(format!("the page cannot be made: {error:#}"));
    for (name, text) in PARTS {
        pages.add_template(name, text).map_err(failed)?;
    }
    pages.get_template(name).and_then(|page| page.render(context)).map_err(failed)
}

/// What is not finite stands as `null` in JSON.
fn number(x: &Value) -> Option<f64> {
    f64::try_from(x.clone()).ok()
}
