//! What the fuzz targets share.

#[path = "../bodies.rs"]
pub mod bodies;

/// Gives `data` to the target of this name.
pub fn run(name: &str, data: &[u8]) {
    let found = bodies::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, body) = found.expect("the target is in the table");
    body(data);
}
