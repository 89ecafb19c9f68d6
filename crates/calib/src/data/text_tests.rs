//! Texts, with a tokenizer that has a number for each of a few words.

use std::fs;
use std::path::Path;

use super::*;
use crate::data::{CalibSet, Dim, InputSpec};
use crate::tensor::{ElementType, Tensor};

/// A tokenizer of words; with `processor` as what stands around a text.
fn tokenizer(processor: &str) -> String {
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "post_processor": {processor}, "decoder": null,
        "model": {{"type": "WordLevel", "unk_token": "[UNK]", "vocab": {{"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3,
        "a": 4, "b": 5, "c": 6, "d": 7, "e": 8}}}}}}"#
    )
}

/// Puts `[CLS]` before a text and `[SEP]` behind it.
const AROUND: &str = r#"{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}"#;
/// Puts `[CLS]` before a text.
const BEFORE: &str = r#"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
    {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}}"#;

fn spec(name: &str, dims: &[usize]) -> InputSpec {
    let dim = |&n: &usize| if n == 0 { Dim::Unknown } else { Dim::Fixed(n) };
    InputSpec {
        name: name.into(),
        element: ElementType::I64,
        dims: Some(dims.iter().map(dim).collect()),
        optional: false,
    }
}

/// The samples of `texts` in a file of this name, for a graph with these inputs.
fn open(
    name: &str,
    texts: &str,
    processor: &str,
    inputs: &[InputSpec],
    text: TextOptions,
) -> Result<CalibSet, CalibError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer(processor)).unwrap();
    let path = folder.path().join(name);
    fs::write(&path, texts).unwrap();
    let options =
        DataOptions { text: Some(text), model_folder: Some(folder.path().to_owned()), ..DataOptions::default() };
    CalibSet::open(&path, inputs, &options)
}

fn of_length(length: usize) -> TextOptions {
    TextOptions { length: Some(length), ..TextOptions::default() }
}

/// The tokens of every sample.
fn tokens(set: &CalibSet) -> Vec<Vec<i64>> {
    let values = |sample| match &set.load(sample).unwrap()[0].1 {
        Tensor::I64(array) => array.iter().copied().collect(),
        other => panic!("{other:?}"),
    };
    (0..set.len()).map(values).collect()
}

fn decoder() -> Vec<InputSpec> {
    let cache = InputSpec { element: ElementType::F32, ..spec("past_key_values.0.key", &[0, 2, 0, 4]) };
    vec![spec("input_ids", &[0, 0]), spec("attention_mask", &[0, 0]), cache]
}

#[test]
fn a_decoder_reads_full_windows_and_empty_caches() {
    let set = open("t.txt", "a b c\nd e\na", "null", &decoder(), of_length(2)).unwrap();
    assert_eq!(tokens(&set), [[4, 5], [6, 7], [8, 4]]);
    assert_eq!(set.shapes(2), [vec![1, 2], vec![1, 2], vec![1, 2, 0, 4]]);
    assert_eq!(set.describe(1).split_once(" of").map(|(head, _)| head), Some("sample 1"));
    // What is behind the last full window is left out; texts that fill none are one sample.
    assert_eq!(tokens(&open("t.txt", "a b c", "null", &decoder(), of_length(2)).unwrap()), [[4, 5]]);
    assert_eq!(tokens(&open("t.txt", "a b c", "null", &decoder(), of_length(9)).unwrap()), [[4, 5, 6]]);
}

#[test]
fn texts_of_a_decoder_stand_one_after_the_other_with_what_the_tokenizer_adds() {
    let lines = "{\"text\": \"a b\"}\n\n{\"text\": \"c\", \"more\": 1}\n{\"text\": \"d e a\"}\n";
    let set = open("t.jsonl", lines, BEFORE, &decoder(), of_length(3)).unwrap();
    assert_eq!(tokens(&set), [[1, 4, 5], [1, 6, 1], [7, 8, 4]]);
    let named = TextOptions { key: Some("more".into()), ..of_length(3) };
    let set = open("t.jsonl", "{\"more\": \"a b c\"}", "null", &decoder(), named).unwrap();
    assert_eq!(tokens(&set), [[4, 5, 6]]);
}

#[test]
fn long_texts_are_tokenized_in_parts_as_a_whole() {
    let text = "a b c d\n".repeat(3 * PART_BYTES / 8);
    assert_eq!(parts(&text).len(), 3);
    assert_eq!(parts(&text).concat(), text);
    let options = DataOptions { samples: Some(usize::MAX), ..DataOptions::default() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.txt");
    fs::write(&path, &text).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer(AROUND)).unwrap();
    let inputs = TextInputs::new(&path, &decoder(), &GenaiDecoder::default()).unwrap();
    let options = DataOptions { model_folder: Some(folder.path().to_owned()), text: Some(of_length(2)), ..options };
    let windows = read_windows(&path, &inputs, &options, usize::MAX).unwrap();
    let found: Vec<u32> = windows.into_iter().flat_map(|window| window.tokens).collect();
    let words = 4 * 3 * PART_BYTES / 8;
    assert_eq!((found.len(), found[0], found[words + 1]), (words + 2, 1, 2));
    assert!(found[1..=words].chunks(4).all(|words| words == [4, 5, 6, 7]));
}

#[test]
fn an_encoder_reads_one_text_a_sample() {
    let ids = [spec("input_ids", &[0, 0]), spec("attention_mask", &[0, 0])];
    let set = open("t.txt", "a b c d\n\ne\n", AROUND, &ids, of_length(4)).unwrap();
    assert_eq!(tokens(&set), [vec![1, 4, 5, 2], vec![1, 8, 2]]);
    // Types of tokens are for encoders, and a fixed length is filled up.
    let types = [spec("input_ids", &[1, 4]), spec("token_type_ids", &[1, 4]), spec("attention_mask", &[1, 4])];
    let set = open("t.txt", "a b c d e\ne\n", "null", &types, TextOptions::default()).unwrap();
    assert_eq!(tokens(&set), [[4, 5, 6, 7], [8, 3, 3, 3]]);
    let mask = set.load(1).unwrap().swap_remove(2).1;
    assert_eq!(mask, Tensor::I64(ndarray::array![[1, 0, 0, 0]].into_dyn()));
    // Without anything behind a text it is a decoder.
    let set = open("t.txt", "a b\nc", "null", &ids, of_length(3)).unwrap();
    assert_eq!(tokens(&set), [[4, 5, 6]]);
}

#[test]
fn the_length_is_what_tokenizer_and_model_take() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.txt");
    fs::write(&path, "a b c d e ".repeat(200)).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer("null")).unwrap();
    let options = DataOptions { model_folder: Some(folder.path().to_owned()), ..DataOptions::default() };
    let length = || CalibSet::open(&path, &decoder(), &options).unwrap().shapes(0)[0][1];
    assert_eq!(length(), 512);
    fs::write(folder.path().join("genai_config.json"), r#"{"model": {"context_length": 40}}"#).unwrap();
    assert_eq!(length(), 40);
    let truncation = r#""truncation": {"max_length": 20, "strategy": "LongestFirst", "stride": 0}"#;
    let text = tokenizer("null").replace(r#""truncation": null"#, truncation);
    fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    assert_eq!(length(), 20);
    assert_eq!(CalibSet::open(&path, &decoder(), &options).unwrap().len(), 50);
}

#[test]
fn texts_that_cannot_be_used_are_refused() {
    let unknown = TextOptions { tokenizer: Some("/nowhere/t.json".into()), ..TextOptions::default() };
    let key = || TextOptions { key: Some("body".into()), ..TextOptions::default() };
    let fixed = vec![spec("input_ids", &[1, 8])];
    let types = [spec("input_ids", &[0, 0]), spec("token_type_ids", &[0, 0])].to_vec();
    let rows = [
        ("t.txt", "a", decoder(), unknown, "/nowhere/t.json"),
        ("t.txt", "a", decoder(), key(), "is no .jsonl file"),
        ("t.txt", " ", decoder(), of_length(2), "its texts have no tokens"),
        ("t.txt", "a", fixed, of_length(4), "the graph takes 8"),
        ("t.txt", "a", types, of_length(2), "puts 2 tokens around a text"),
        ("t.jsonl", "{\"text\": \"a\"}\nword", decoder(), of_length(1), "line 2: it is no JSON"),
        ("t.jsonl", "{\"text\": \"a\"}", decoder(), key(), "line 1: it is no object with a text under `body`"),
        ("t.txt", "a", vec![spec("x", &[0])], of_length(1), "`x`"),
    ];
    for (name, text, inputs, options, expected) in rows {
        let error = open(name, text, AROUND, &inputs, options).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let message = format!("{error}: {source}");
        assert!(message.contains(expected), "{message}, expected {expected}");
    }
    let message = open("t.npz", "", "null", &decoder(), of_length(1)).unwrap_err().to_string();
    assert!(message.contains("holds no texts"), "{message}");
}

#[test]
fn samples_continue_their_first_half() {
    let inputs = decoder();
    let mut set = open("t.txt", &"a b c d e ".repeat(16), "null", &inputs, of_length(5)).unwrap();
    assert_eq!(set.to_continue(), [0, 5, 10, 15]);
    assert_eq!(set.caches()[0].0, "past_key_values.0.key");
    let first = set.first_half(5).unwrap().unwrap();
    assert_eq!(first[0].1, Tensor::I64(ndarray::array![[4, 5]].into_dyn()));
    assert_eq!(first[2].1.shape(), [1, 2, 0, 4]);
    let cache = |past: usize| {
        let array = ndarray::Array::from_shape_fn((1, 2, past, 4), |(_, b, c, d)| (100 * b + 10 * c + d) as f32);
        [("past_key_values.0.key".to_owned(), Tensor::F32(array.into_dyn()))]
    };
    assert!(!set.continue_behind(5, &cache(3)).unwrap() && !set.continue_behind(5, &[]).unwrap());
    assert_eq!(set.shapes(5)[0], [1, 5]);
    assert!(set.continue_behind(5, &cache(2)).unwrap());
    let sample = set.load(5).unwrap();
    let shapes: Vec<&[usize]> = sample.iter().map(|(_, tensor)| tensor.shape()).collect();
    assert_eq!(shapes, [&[1, 3][..], &[1, 5], &[1, 2, 2, 4]]);
    assert_eq!(set.shapes(5), shapes);
    assert_eq!(sample[0].1, Tensor::I64(ndarray::array![[6, 7, 8]].into_dyn()));
    assert_eq!(sample[2].1, cache(2)[0].1);
    assert_eq!(set.first_half(5).unwrap().unwrap(), first);
    set.start_over(5).unwrap();
    assert_eq!(set.shapes(5)[0], [1, 5]);
    assert!(!set.starts_late());
}

#[test]
fn no_tokenizer_is_told_with_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.txt");
    fs::write(&path, "a").unwrap();
    let open = |model_folder| {
        let options = DataOptions { model_folder, ..DataOptions::default() };
        CalibSet::open(&path, &decoder(), &options).unwrap_err().to_string()
    };
    assert!(open(Some(folder.path().to_owned())).contains("tokenizer.json"));
    assert!(open(None).ends_with("--tokenizer"));
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(open(Some(folder.path().to_owned())).contains("cannot tokenize with"));
    assert!(Path::new(&path).exists());
}
