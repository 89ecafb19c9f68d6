//! Any bytes decode to an error or to a model that is the same after another round.

#![no_main]

use libfuzzer_sys::fuzz_target;
use onnxquant_proto::{Bytes, decode_model, encode_model};

fuzz_target!(|data: &[u8]| {
    let Ok(model) = decode_model(Bytes::copy_from_slice(data)) else { return };
    let once = encode_model(&model).expect("no larger than its input");
    let again = decode_model(once.clone().into()).expect("what was encoded decodes");
    assert_eq!(encode_model(&again).expect("no larger than its input"), once);
});
