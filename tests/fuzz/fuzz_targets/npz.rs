//! Any bytes read as an archive of arrays give arrays or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = onnxquant_calib::read_npz(data);
});
