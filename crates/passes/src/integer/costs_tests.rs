use onnxquant_ir::Model;

use super::times::Size;
use super::*;
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
        assert!(tables.iter().all(|table| all.iter().any(|known| std::ptr::eq(*table, *known))), "{cpu}");
    }
    assert_eq!(all.len(), 2);
}

#[test]
fn layer_is_quantized_at_run_time_where_that_pays_on_every_class() {
    // The quantizing of the input counts more the fewer outputs there are.
    let mut paying = Vec::new();
    for outputs in 8..80 {
        let model = layer(64, outputs);
        let node = only_site(&model).node;
        let pays = |cpu| costs(&model, 10_000, cpu).dynamic_pays(model.graph(), node);
        assert_eq!(pays(Cpu::Portable), pays(Cpu::Vnni) && pays(Cpu::Avx2), "{outputs} outputs");
        paying.push((pays(Cpu::Vnni), pays(Cpu::Avx2)));
    }
    for case in [(false, false), (true, false), (true, true)] {
        assert!(paying.contains(&case), "no layer is of the kind {case:?}");
    }
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
fn table_of_vnni_has_the_figures_that_were_measured() {
    let model = layer(256, 512);
    let (graph, node) = (model.graph(), only_site(&model).node);
    let (macs, weights, input) = (32.0 * 256.0 * 512.0, 256.0 * 512.0, 32.0 * 256.0);
    let float = 1500.0 + 0.0175 * macs + 0.19 * weights;
    let codes = 4500.0 + 0.0060 * macs + 0.065 * weights + 0.40 * input;
    for cpu in [Cpu::Vnni, Cpu::Arm64] {
        let saved = costs(&model, 32, cpu).saved_dynamic(graph, node);
        assert!((saved - (float - codes)).abs() < 1e-6, "{cpu}: {saved}");
    }
}

#[test]
fn derived_figures_give_the_ratios_they_come_from() {
    let weights = 384.0 * 1536.0;
    for (rows, measured) in [(1.0, 1.7), (4.0, 0.82), (16.0, 0.63), (128.0, 0.66), (512.0, 0.60)] {
        let size = Size { macs: rows * weights, weights, outputs: rows * 1536.0 };
        let [times] = Times::of(Cpu::Avx2)[..] else { panic!("one table is for AVX2") };
        let found = times.dense_float.time(&size) / times.dense_weight_only.time(&size);
        assert_eq!(found > 1.0, measured > 1.0, "{rows} rows: {found}");
        assert!((0.7..1.2).contains(&(found / measured)), "{rows} rows: {found}, measured {measured}");
    }
}
