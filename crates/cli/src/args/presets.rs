//! Configuration files that come with the program.

/// Each preset by its name.
const PRESETS: [(&str, &str); 5] = [
    ("cpu", include_str!("presets/cpu.toml")),
    ("small", include_str!("presets/small.toml")),
    ("smallest", include_str!("presets/smallest.toml")),
    ("decoder", include_str!("presets/decoder.toml")),
    ("npu", include_str!("presets/npu.toml")),
];

/// Their names.
pub(crate) fn names() -> [&'static str; 5] {
    PRESETS.map(|(name, _)| name)
}

/// What stands in the preset of this name.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
