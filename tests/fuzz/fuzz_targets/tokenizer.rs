#![no_main]

// Panics of the library are caught where it is called; only those that are not end the process.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |data: &[u8]| onnxquant_fuzz::run("tokenizer", data)
);
