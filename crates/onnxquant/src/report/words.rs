//! Numbers for people.

/// Bytes in decimal units.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// A ratio or an error with three significant digits.
pub fn short(x: f64) -> String {
    if x != 0.0 && x.abs() < 1e-3 { format!("{x:.2e}") } else { format!("{x:.3}") }
}

/// Decibels; infinite where nothing differs.
pub fn decibels(sqnr_db: f64) -> String {
    if sqnr_db == f64::INFINITY { "inf (equal)".to_owned() } else { format!("{sqnr_db:.1} dB") }
}

/// Words of a command line as a shell takes them.
pub fn command_line(words: &[String]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    let word = |word: &String| match !word.is_empty() && word.chars().all(is_plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_would_split_are_quoted() {
        let words = ["onnxquant", "a b.onnx", "it's", "--exclude", "*/head", ""].map(str::to_owned);
        assert_eq!(command_line(&words), r"onnxquant 'a b.onnx' 'it'\''s' --exclude '*/head' ''");
    }
}
