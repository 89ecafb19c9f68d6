use onnxquant_quant::{Certificate, Method};

use super::*;

fn solved() -> Solved {
    let certificate = Certificate {
        achieved: Some(0.1 + 0.2),
        bound: None,
        attainable: None,
        effective_dimension: Some(2.5),
        hypotheses: Vec::new(),
        max_unsaturated: Some(3),
        n_rows: None,
        max_abs_change: 1.0 / 3.0,
    };
    let findings = Findings {
        saturating_pairs: Some(0),
        calibration_rows: Some(7),
        method: Method::Feedback,
        error: Some(5e-324),
        validation_error: Some(f64::from(0.1f32)),
        notes: vec!["a \"note\"\n".to_owned()],
        certificate,
        verdict: None,
    };
    let solution = LayerSolution {
        codes: Array3::from_shape_fn((2, 5, 3), |(g, k, m)| (g * 15 + k * 3 + m) as i16 - 8),
        scales: Array3::from_shape_fn((2, 2, 3), |(g, b, m)| 0.1 * (1 + g + b + m) as f32),
        zero_points: Array3::from_shape_fn((2, 2, 3), |(g, _, _)| g as i16),
        block_size: 4,
        alphabet: Alphabet::Integers,
        preprocessed: None,
        promise: None,
        notes: Vec::new(),
    };
    Solved { solution, correction: vec![-0.0, 1e-40, 3.5], findings }
}

#[test]
fn a_layer_is_read_back_bit_by_bit() {
    let solved = solved();
    let bytes = with_check(encode("a/b", &solved).unwrap());
    let (label, found) = decode(&bytes).unwrap();
    assert_eq!(label, "a/b");
    assert_eq!(found.findings, solved.findings);
    assert_eq!(found.solution.codes, solved.solution.codes);
    assert_eq!(found.solution.scales, solved.solution.scales);
    assert_eq!(found.solution.zero_points, solved.solution.zero_points);
    let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&found.correction), bits(&solved.correction));
}

#[test]
fn a_key_of_another_run_is_refused_by_what_differs() {
    let key = || Key {
        format: FORMAT,
        version: "1".to_owned(),
        algorithms: ALGORITHMS,
        engine: "e".to_owned(),
        model: "m".to_owned(),
        samples: "s".to_owned(),
        settings: "{}".to_owned(),
    };
    let folder = Path::new("state");
    let check = |found: &str| {
        let checked = key().check(folder, found.as_bytes());
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    };
    let text = |key: &Key| toml::to_string(key).unwrap();
    assert_eq!(check(&text(&key())), "");
    type Change = fn(&mut Key);
    let others: [(&str, Change); 7] = [
        ("version of this program", |key| key.format -= 1),
        ("version of this program", |key| key.version.push('0')),
        ("version of the algorithms", |key| key.algorithms += 1),
        ("engine", |key| key.engine.push('0')),
        ("model", |key| key.model.clear()),
        ("samples", |key| key.samples.push('0')),
        ("settings", |key| key.settings.push(' ')),
    ];
    for (name, change) in others {
        let mut other = key();
        change(&mut other);
        let problem = check(&text(&other));
        assert!(problem.contains(&format!("made with another {name}; remove it")), "{name}: {problem}");
    }
    // Of a program that kept less, or more.
    let old = check("version = \"1\"\nmodel = \"m\"\nsamples = \"s\"\nsettings = \"{}\"\n");
    assert!(
        old.contains("another version of this program, another version of the algorithms, another engine"),
        "{old}"
    );
    assert_eq!(check(&(text(&key()) + "more = 1\n")), "");
    assert!(check("no toml").contains("run.toml"));
}

#[test]
fn damaged_bytes_are_noticed() {
    let bytes = with_check(encode("a", &solved()).unwrap());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(decode(&damaged).is_none(), "byte {at}");
        assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
    }
}
