use onnxquant_ir::Model;
use onnxquant_ir::onnx::{ModelProto, NodeProto, OperatorSetIdProto};

use super::*;
use crate::tables::{TableForm, find_table, find_tables, write_table};
use crate::testing::{array, assert_valid, constant_named, floats, input_names, message, node, op_types};

/// Two experts of 32 and 64 units.
const DIMS: [[usize; 3]; 2] = [[2, 64, 32], [2, 32, 64]];

fn mixture(attributes: &[(&str, i64)], gates: bool) -> ModelProto {
    let inputs = ["x", "r", "w1", "", "w2", "b2", if gates { "w3" } else { "" }];
    let attributes = attributes.iter().map(|(name, value)| int_attribute(name, *value)).collect();
    let moe = NodeProto { domain: Some(MICROSOFT.into()), ..node("MoE", &inputs, &["y"], attributes) };
    let [first, second] = DIMS;
    let constants = vec![
        ("w1", floats(&first, 1)),
        ("w2", floats(&second, 2)),
        ("b2", floats(&[2, 32], 3)),
        ("w3", floats(&first, 4)),
    ];
    let mut proto = message("x r", constants, vec![moe], "y");
    proto.opset_import.push(OperatorSetIdProto { domain: Some(MICROSOFT.into()), version: Some(1) });
    proto
}

fn coded(bits: u32, columns: usize) -> CodedTable {
    let half = 1 << (bits - 1);
    let codes = (0..4096).map(|at: i32| ((at * 7) % (2 * half) - half) as i8).collect();
    let scales = (0..4096 / EXPERT_BLOCK).map(|at| 0.5 + at as f32).collect();
    CodedTable { bits, columns, block: EXPERT_BLOCK, codes, scales }
}

#[test]
fn a_mixture_of_experts_becomes_one_of_codes() {
    for bits in [8, 4] {
        let mut model = Model::from_proto(mixture(&[("normalize_routing_weights", 1), ("k", 1)], false)).unwrap();
        let tables: Vec<Table> = find_tables(model.graph()).into_iter().filter(Table::is_whole).collect();
        assert_eq!(tables.len(), 2);
        for (at, table) in tables.iter().enumerate() {
            let found =
                find_table(model.graph(), table.value).and_then(|found| found.of_experts(model.graph())).unwrap();
            assert_eq!((found.kind, found.bits(3), found.bits(8)), (TableKind::Experts, 4, 8));
            let stored = write_table(model.graph_mut(), &found, &coded(bits, DIMS[at][2]), TableForm::Rows).unwrap();
            assert_eq!(stored, 4096 * bits as usize / 8 + 4 * 128);
            assert_valid(&model);
        }
        assert_eq!(op_types(&model), ["QMoE"]);
        let (_, made) = model.graph().nodes().next().unwrap();
        let names = input_names(model.graph(), made);
        assert_eq!(names, ["x", "r", "w1_quantized", "w1_scale", "", "w2_quantized", "w2_scale", "b2"]);
        let attributes = ["expert_weight_bits", "block_size", "k"].map(|name| made.int(name, 0));
        assert_eq!(attributes, [i64::from(bits), 32, 1]);
        let codes = constant_named(model.graph(), "w2_quantized");
        assert_eq!(codes.dims, [2, 32, 64 * i64::from(bits) / 8]);
        // The first codes are -half and 7 - half.
        let first = if bits == 8 { [0, 7] } else { [7 << 4, 14 | 5 << 4] };
        assert_eq!(codes.raw_data.as_ref().unwrap()[..2], first);
        assert_eq!(array(constant_named(model.graph(), "w2_scale")).shape(), [2, 32, 2]);
    }
}

#[test]
fn other_mixtures_are_decoded_as_a_whole() {
    let normalized = ("normalize_routing_weights", 1);
    type Case<'a> = (&'a str, &'a [(&'a str, i64)], bool);
    let cases: [Case<'_>; 4] = [
        ("not normalized", &[], false),
        ("gates", &[normalized], true),
        ("halves side by side", &[normalized, ("swiglu_fusion", 2)], false),
        ("sparse", &[normalized, ("use_sparse_mixer", 1)], false),
    ];
    for (what, attributes, gates) in cases {
        let mut model = Model::from_proto(mixture(attributes, gates)).unwrap();
        let table = find_table(model.graph(), model.graph().find("w1").unwrap()).unwrap();
        assert_eq!(table.kind, TableKind::Whole, "{what}");
        assert!(table.clone().of_experts(model.graph()).is_none(), "{what}");
        let coded = CodedTable { block: 32, ..coded(8, 32) };
        write_table(model.graph_mut(), &table, &coded, TableForm::Rows).unwrap();
        assert_valid(&model);
        assert_eq!(op_types(&model), ["Cast", "Mul", "MoE"], "{what}");
    }
}
