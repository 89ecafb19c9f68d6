use super::*;

#[test]
fn versions_before_the_table_of_functions_are_too_old() {
    for (version, expected) in
        [("1.16.3", true), ("0.5.0", true), ("", true), ("1.17.0", false), ("1.32.0", false), ("2.0.0", false)]
    {
        assert_eq!(is_too_old(version), expected, "{version}");
    }
}

unsafe extern "system" fn no_table(_: u32) -> *const OrtApi {
    null()
}

unsafe extern "system" fn old() -> *const c_char {
    c"1.16.3".as_ptr()
}

unsafe extern "system" fn new() -> *const c_char {
    c"1.32.0".as_ptr()
}

unsafe extern "system" fn nameless() -> *const c_char {
    null()
}

#[test]
fn libraries_without_a_version_or_the_functions_are_refused() {
    let refused = |version| {
        let base = OrtApiBase { GetApi: no_table, GetVersionString: version };
        // SAFETY: these functions return static strings, or nothing.
        unsafe { functions(&base) }.map(|(_, version)| version).expect_err("it has no functions")
    };
    assert!(matches!(refused(old), Refusal::TooOld(version) if version == "1.16.3"));
    assert!(matches!(refused(new), Refusal::Broken(why) if why.contains("1.32.0") && why.contains("1.17")));
    assert!(matches!(refused(nameless), Refusal::Broken(why) if why.contains("version")));
}
