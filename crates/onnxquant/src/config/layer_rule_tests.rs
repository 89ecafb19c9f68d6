use super::*;

fn rule(text: &str) -> LayerRule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn layers() -> Vec<NamedLayer> {
    let layer = |label: &str, op_type: &str| NamedLayer { label: label.to_owned(), op_type: op_type.to_owned() };
    vec![layer("stem", "Conv"), layer("a/mlp/up", "MatMul"), layer("b/mlp/up", "MatMul"), layer("head", "Gemm")]
}

#[test]
fn layers_are_found_by_name_operator_and_place() {
    let cases: [(&str, &[&str]); 11] = [
        (r#"name = "stem", bits = 4"#, &["stem"]),
        (r#"name = "*/mlp/*", bits = 4"#, &[]),
        (r#"match = "*/mlp/*", bits = 4"#, &["a/mlp/up", "b/mlp/up"]),
        (r#"op-type = "Conv", float = true"#, &["stem"]),
        (r#"position = "first", bits = 8"#, &["stem"]),
        (r#"position = "last", bits = 8"#, &["head"]),
        (r#"position = 2, bits = 8"#, &["a/mlp/up"]),
        (r#"op_type = "MatMul", position = "last", bits = 8"#, &["b/mlp/up"]),
        (r#"match = "*up", op-type = "MatMul", position = 2, bits = 8"#, &["b/mlp/up"]),
        (r#"match = "*up", op-type = "Conv", bits = 8"#, &[]),
        (r#"position = 5, bits = 8"#, &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(rule(text).pick(&layers()), expected, "{text}");
    }
}

#[test]
fn a_rule_is_read_as_it_is_shown() {
    for text in [
        r#"name = "head", bits = 2"#,
        r#"match = '*/{mlp,"x"}/*', op-type = "Conv", position = "first", bits = 4"#,
        r#"position = 3, float = true"#,
    ] {
        assert_eq!(rule(text).to_string(), text);
        assert_eq!(rule(&format!("{{ {text} }}")).to_string(), text);
    }
}

#[test]
fn schemes_stand_for_bits_and_blocks() {
    let codes = |text: &str| rule(&format!(r#"match = "a", {text}"#)).codes();
    let own = |bits, granularity| Some(OwnCodes { bits: Some(bits), granularity, method: None });
    assert_eq!(codes(r#"scheme = "w8""#), own(8, None));
    assert_eq!(codes(r#"scheme = "w4""#), own(4, Some(Granularity::Block(32))));
    assert_eq!(codes(r#"scheme = "w4", granularity = "channel""#), own(4, Some(Granularity::Channel)));
    let fitted = OwnCodes { method: Some(Method::Feedback), ..OwnCodes::default() };
    assert_eq!(codes(r#"method = "feedback""#), Some(fitted));
    assert_eq!(
        rule(r#"match = "a", scheme = "w4", method = "feedback""#).to_string(),
        r#"match = "a", bits = 4, granularity = "block:32", method = "feedback""#
    );
}

#[test]
fn mistakes_are_told_with_their_key() {
    let cases = [
        (r#"bits = 4"#, None, "which layers"),
        (r#"match = "a""#, None, "what do these layers get"),
        (r#"match = "a", bits = 9"#, Some("bits"), "1 to 8"),
        (r#"match = "a", bits = "4""#, Some("bits"), "1 to 8"),
        (r#"match = "a", float = false"#, Some("float"), "left out"),
        (r#"match = "a", bits = 4, float = true"#, Some("float"), "not both"),
        (r#"match = "a", scheme = "w8a8""#, Some("scheme"), "whole model"),
        (r#"match = "a", scheme = "w4", bits = 3"#, Some("scheme"), "left out beside"),
        (r#"match = "a", granularity = "row""#, Some("granularity"), "channel"),
        (r#"match = "a", method = "best""#, Some("method"), "feedback"),
        (r#"match = "a", range = "mse""#, Some("range"), "whole model"),
        (r#"match = "a[", bits = 4"#, Some("match"), "bad pattern"),
        (r#"position = 0, bits = 4"#, Some("position"), "from 1 on"),
        (r#"position = "middle", bits = 4"#, Some("position"), "\"last\""),
        ("match =", None, "no rule"),
        ("match = \"a\", bits = 4 }\nother = { bits = 3", None, "more than one"),
    ];
    for (text, key, part) in cases {
        let error = text.parse::<LayerRule>().unwrap_err();
        assert_eq!(error.key(), key, "{text}: {error}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[test]
fn the_last_rule_holds_and_rules_without_layers_are_told() {
    let rules = [
        r#"match = "*up", bits = 4"#,
        r#"match = "b/*", float = true"#,
        r#"match = "zz", bits = 2"#,
        r#"match = "head", bits = 2"#,
        r#"match = "stem", bits = 2"#,
        r#"match = "stem", bits = 3"#,
    ]
    .map(rule);
    let ruled = Ruled::new(&rules, &layers());
    let of = |label| ruled.treatment(label);
    let bits = |bits| Some(Treatment::Codes(OwnCodes { bits: Some(bits), ..OwnCodes::default() }));
    assert_eq!(of("a/mlp/up"), bits(4));
    assert_eq!((of("b/mlp/up"), of("stem")), (Some(Treatment::Float), bits(3)));
    assert_eq!((of("head"), of("elsewhere")), (bits(2), None));
    let all = ["stem", "a/mlp/up", "head"];
    assert_eq!(ruled.unmatched(all.into_iter()), [r#"--layer 'match = "zz", bits = 2'"#]);
    // The head has no codes of its own: they are those of a table.
    let told = ruled.unmatched(all[..2].iter().copied());
    assert_eq!(told, [r#"--layer 'match = "zz", bits = 2'"#, r#"--layer 'match = "head", bits = 2'"#]);
}
