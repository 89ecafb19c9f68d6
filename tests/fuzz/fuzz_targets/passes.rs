#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onnxquant_passes::testing::random_graphs::check(data));
