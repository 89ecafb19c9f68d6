use onnxquant_ir::Model;
use proptest::prelude::*;

use super::*;
use crate::decode::fold_planes::fold_planes;
use crate::testing::{assert_valid, constant_named, model, node};
use crate::write::share_constants::stored_bytes;

/// A model whose node `y` reads `x`; what is written before it is added as an input that does not matter.
fn written(bytes: &[u8], dims: &[usize], fields: Fields) -> (Model, usize) {
    let mut model = model("x", vec![], vec![node("Max", &["x"], &["y"], vec![])], "y");
    let graph = model.graph_mut();
    let before = graph.order()[0];
    let (value, stored) = write_planes(graph, before, "w", bytes, dims, fields);
    graph.set_input(before, 1, Some(value));
    let stored = stored_bytes(graph, &stored);
    (model, stored)
}

proptest! {
    #[test]
    fn planes_are_joined_to_the_bytes_they_were_made_of(
        used in 1u32..=8,
        lifted in any::<bool>(),
        wide in any::<bool>(),
        seed in proptest::collection::vec(any::<u8>(), 1..70),
    ) {
        let width = if wide { 8 } else { 4 };
        let lift = u32::from(lifted);
        prop_assume!(used + lift <= width && (used < width));
        let of_field = |code: u8| (code & ((1u16 << used) - 1) as u8) << lift;
        let bytes: Vec<u8> = match wide {
            true => seed.iter().map(|&byte| of_field(byte)).collect(),
            false => seed.iter().map(|&byte| of_field(byte & 15) | of_field(byte >> 4) << 4).collect(),
        };
        let (mut model, stored) = written(&bytes, &[1, bytes.len()], Fields { width, used, lift });
        assert_valid(&model);
        // Rounded up to whole runs.
        let run = bytes.len().div_ceil(width as usize);
        prop_assert_eq!(stored, run * used as usize);
        prop_assert!(fold_planes(model.graph_mut()) > 0);
        assert_valid(&model);
        let names: Vec<&str> = model.graph().initializers().iter().map(|&id| model.graph().value(id).name()).collect();
        prop_assert_eq!(&names, &["w_bytes"]);
        let found = constant_named(model.graph(), "w_bytes");
        prop_assert_eq!(&found.dims, &[1, bytes.len() as i64]);
        prop_assert_eq!(tensor::to_raw(found).unwrap().to_vec(), bytes);
    }
}

#[test]
fn three_bits_take_three_bits() {
    let (_, stored) = written(&[0x21; 64], &[64], Fields { width: 4, used: 3, lift: 0 });
    assert_eq!(stored, 128 * 3 / 8);
}
