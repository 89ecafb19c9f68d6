use onnxquant_ir::Model;

use super::times::Size;
use super::*;
use crate::integer::kernels::find_units;
use crate::testing::{floats, model, node, only_site, site_map};

/// `y = MatMul(x)` with a weight of so many inputs and outputs.
fn layer(inputs: usize, outputs: usize) -> Model {
    model("x", vec![("w", floats(&[inputs, outputs], 1))], vec![node("MatMul", &["x", "w"], &["y"], vec![])], "y")
}

/// Its times for so many rows.
fn costs(model: &Model, rows: usize, cpu: Cpu) -> Costs {
    let (graph, site) = (model.graph(), only_site(model));
    let y = graph.node(site.node).output(0).expect("a MatMul has a result");
    let sizes = [(site.input, rows * site.view.inputs()), (y, rows * site.view.outputs())].into();
    Costs::new(graph, &site_map(model), sizes, Alternative::WeightOnly, cpu)
}

#[test]
fn every_processor_has_tables_and_a_portable_file_all_of_them() {
    let all = Times::of(Cpu::Portable);
    for cpu in Cpu::ALL {
        let tables = Times::of(cpu);
        assert!(!tables.is_empty(), "{cpu}");
        assert!(tables.iter().all(|(_, table)| all.iter().any(|(_, known)| std::ptr::eq(*table, *known))), "{cpu}");
    }
    assert_eq!(all.len(), 2);
}

#[test]
fn layer_is_quantized_at_run_time_where_that_pays_on_every_class() {
    // The quantizing of the input counts more the fewer outputs there are, the start of the kernel the fewer rows. The
    // kernels that it is weighed against differ by class.
    let mut paying = Vec::new();
    for (rows, outputs) in (4..80).flat_map(|outputs| [(1, outputs), (10_000, outputs)]) {
        let model = layer(64, outputs);
        let node = only_site(&model).node;
        let pays = |cpu| costs(&model, rows, cpu).dynamic_pays(model.graph(), node);
        assert_eq!(pays(Cpu::Portable), pays(Cpu::Vnni) && pays(Cpu::Avx2), "{rows} rows, {outputs} outputs");
        paying.push((pays(Cpu::Vnni), pays(Cpu::Avx2)));
    }
    for case in [(false, false), (true, true)] {
        assert!(paying.contains(&case), "no layer is of the kind {case:?}");
    }
    assert!(paying.iter().any(|(vnni, avx2)| vnni != avx2), "the classes never differ");
}

#[test]
fn time_is_saved_as_on_the_class_that_gains_least() {
    let choice = |float, codes| Choice { float, codes };
    // Twice as fast on one, 1.25 times on the other, which saves more nanoseconds.
    assert_eq!(saved_where_worst([choice(100.0, 50.0), choice(1000.0, 800.0)].into_iter()), 200.0);
    assert_eq!(saved_where_worst([choice(100.0, 50.0), choice(10.0, 12.0)].into_iter()), -2.0);
    assert_eq!(saved_where_worst([].into_iter()), 0.0);
}

#[test]
fn layer_of_unknown_size_is_quantized_and_saves_nothing() {
    let model = layer(64, 64);
    let (graph, node) = (model.graph(), only_site(&model).node);
    let costs = Costs::new(graph, &site_map(&model), HashMap::new(), Alternative::WeightOnly, Cpu::Portable);
    assert!(costs.dynamic_pays(graph, node));
    assert_eq!(costs.saved_dynamic(graph, node), 0.0);
}

#[test]
fn the_table_of_avx2_agrees_with_what_another_processor_of_that_class_gave() {
    let model = layer(384, 1536);
    let node = only_site(&model).node;
    for (rows, measured) in [(1, 1.7), (4, 0.82), (16, 0.63), (128, 0.66), (512, 0.60)] {
        assert_eq!(costs(&model, rows, Cpu::Avx2).nbits_pays(node), measured > 1.0, "{rows} rows");
        // The table counts weights that are read from memory; there they lay in a cache, which few rows show.
        let found = as_nbits(&model, rows, Cpu::Avx2);
        let is_near = (0.7..1.2).contains(&(found / measured));
        assert!(is_near || rows < 128, "{rows} rows: {found}, measured {measured}");
    }
}

/// How many times as fast as in float a layer is as `MatMulNBits` of 8 bits.
fn as_nbits(model: &Model, rows: usize, cpu: Cpu) -> f64 {
    let (graph, node) = (model.graph(), only_site(model).node);
    let costs = costs(model, rows, cpu);
    let class = costs.classes().next().expect("there is a table").against_floats();
    let unit = find_units(graph, &site_map(model), |_| true).remove(0);
    let float = class.in_float(graph, &unit) as f64;
    float / (float - class.saved_as(graph, node, Served::NBits(8)))
}

#[test]
fn weights_on_codes_are_slower_than_floats_where_one_class_says_so() {
    let model = layer(384, 1536);
    let node = only_site(&model).node;
    for (cpu, rows, pays) in [
        (Cpu::Portable, 1, true),
        (Cpu::Portable, 16, false),
        (Cpu::Avx2, 16, false),
        (Cpu::Vnni, 16, true),
        (Cpu::Vnni, 512, true),
    ] {
        assert_eq!(costs(&model, rows, cpu).nbits_pays(node), pays, "{cpu}, {rows} rows");
    }
}

#[test]
fn codes_are_faster_than_floats_in_every_table_where_layers_are_large() {
    // Whatever machine a table was measured on.
    let weights = 1024.0 * 1024.0;
    let size = Size { macs: 256.0 * weights, weights, outputs: 256.0 * 1024.0, pointers: 0.0 };
    for (cpu, times) in Times::of(Cpu::Portable) {
        let float = times.dense_float.time(&size);
        for (what, codes) in [("dynamic", &times.dense_dynamic), ("codes", &times.dense_codes)] {
            assert!((1.3..8.0).contains(&(float / codes.time(&size))), "{cpu}, {what}");
        }
    }
}
