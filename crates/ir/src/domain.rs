//! Operator domains, of which the default one has two names.

/// `ai.onnx` is another name of the default domain.
pub(crate) fn plain_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Whether both names mean one domain.
pub(crate) fn same_domain(a: &str, b: &str) -> bool {
    plain_domain(a) == plain_domain(b)
}
