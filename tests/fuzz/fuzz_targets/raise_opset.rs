#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onnxquant_fuzz::run("raise_opset", data));
