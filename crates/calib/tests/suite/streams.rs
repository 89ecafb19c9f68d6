//! Two networks side by side.

use std::sync::Arc;

use ndarray::Array1;
use onnxquant_calib::{
    CalibSet, MOST_PARTS, MomentSums, Network, PairRequest, PartMoments, SharedEngine, StatKind, StatRequest, Stream,
    collect, collect_pair_parts, collect_pairs, compare_streams, engine, open_session,
};
use onnxquant_proto::onnx::ModelProto;
use onnxquant_quant::{GramStats, MatrixView};

use crate::models::{self, data, input, model, node, noise, tensor};

const K: usize = 16;

fn embedded() -> SharedEngine {
    Arc::new(engine())
}

/// Three layers; the second lies beside a branch, and its result is given a shape that follows from an earlier value's.
fn network(first_weight: u64) -> ModelProto {
    let nodes = vec![
        node("MatMul", &["x", "w1"], &["y"]),
        node("Shape", &["y"], &["s"]),
        node("Relu", &["y"], &["a"]),
        node("MatMul", &["a", "w2"], &["z"]),
        node("Reshape", &["z", "s"], &["r"]),
        node("Add", &["r", "a"], &["q"]),
        node("MatMul", &["q", "w3"], &["o"]),
    ];
    let weight = |name, seed| tensor(name, &[16, 16], &noise(seed, K * K));
    model(vec![input("x", &[-1, 16])], nodes, vec![weight("w1", first_weight), weight("w2", 8), weight("w3", 9)])
}

/// 40 samples of up to 6 rows: more shapes than plans are kept for.
fn samples(folder: &std::path::Path, model: &ModelProto) -> CalibSet {
    let sample = |i: usize| vec![("x", models::array(i as u64, &[1 + i % 6, K]))];
    data(folder, model, &(0..40).map(sample).collect::<Vec<_>>())
}

fn request(value: &str) -> StatRequest {
    let view = MatrixView::Dense { inputs: K, outputs: 1, transposed: false };
    StatRequest { value: value.into(), view, kind: StatKind::Gram }
}

/// The moments of the three layers' inputs, gathered from cut to cut.
fn stages(quantized: &ModelProto, float: &ModelProto, data: &CalibSet, limit_bytes: usize) -> Vec<GramStats> {
    let all: Vec<usize> = (0..data.len()).collect();
    let (mut seen, mut reference) =
        (Stream::new(embedded(), &all, limit_bytes), Stream::new(embedded(), &all, limit_bytes));
    let names = ["x", "a", "q"].map(str::to_owned);
    let stage = |stage: usize| {
        let later = &names[stage + 1..];
        let wanted = PairRequest { seen: request(&names[stage]), reference: names[stage].clone(), is_selected: false };
        let sets = [&all[..]];
        let quantized = Network { stream: &mut seen, model: quantized, whole: &|| Ok(quantized.clone()), later };
        let float = Network { stream: &mut reference, model: float, whole: &|| Ok(float.clone()), later };
        let stats = collect_pairs([quantized, float], data, &sets, &[wanted], &|_| ()).unwrap();
        stats.into_iter().flatten().flatten().next().unwrap()
    };
    (0..3).map(stage).collect()
}

fn whole(model: &ModelProto, data: &CalibSet) -> Vec<GramStats> {
    let all: Vec<usize> = (0..data.len()).collect();
    let session = open_session(engine(), model, &["x", "a", "q"].map(str::to_owned), data).unwrap();
    let requests = ["x", "a", "q"].map(request);
    collect(&session, data, &all, &requests, &|_| ()).unwrap().into_iter().flatten().collect()
}

fn bits(stats: &[GramStats]) -> Vec<u64> {
    let one = |s: &GramStats| {
        let drift =
            s.drift().map(|d| d.cross().iter().chain(d.own().iter()).map(|&x| f64::from(x)).collect::<Vec<_>>());
        s.gram().unwrap().iter().copied().chain(drift.unwrap_or_default()).map(f64::to_bits).collect::<Vec<_>>()
    };
    stats.iter().flat_map(one).collect()
}

#[test]
fn from_cut_to_cut_comes_what_the_whole_network_gives() {
    let folder = tempfile::tempdir().unwrap();
    let (float, quantized) = (network(7), network(70));
    let data = samples(folder.path(), &float);
    let found = stages(&quantized, &float, &data, usize::MAX);
    let (seen, reference) = (whole(&quantized, &data), whole(&float, &data));
    assert!(found[0].drift().is_none(), "both networks have the same inputs");
    for (layer, stats) in found.iter().enumerate() {
        let scale = seen[layer].mean_square().sum();
        let difference = &stats.gram().unwrap() - &seen[layer].gram().unwrap();
        assert!(difference.iter().all(|d| d.abs() < 1e-5 * scale), "layer {layer}");
        let moved = stats.drift().map_or(Array1::zeros(K), |drift| drift.mean().to_owned());
        let expected = &reference[layer].mean() - &seen[layer].mean();
        assert!((&moved - &expected).iter().all(|d| d.abs() < 1e-4 * scale.sqrt()), "layer {layer}");
    }
    assert!(found[1].drift().is_some() && found[2].drift().is_some());
}

#[test]
fn a_stream_needs_no_weights_of_what_it_has_computed_and_all_of_them_where_a_piece_cannot_be_run() {
    let folder = tempfile::tempdir().unwrap();
    let network = network(7);
    let data = samples(folder.path(), &network);
    let without = |name: &str| {
        let mut model = network.clone();
        let graph = model.graph.as_mut().unwrap();
        let weight = graph.initializer.iter_mut().find(|tensor| tensor.name() == name).unwrap();
        *weight = tensor(name, &[0], &[]);
        model
    };
    let all: Vec<usize> = (0..data.len()).collect();
    let outputs = |lost: &str, gives_whole: bool| {
        let streams = &mut [Stream::new(embedded(), &all, usize::MAX), Stream::new(embedded(), &all, usize::MAX)];
        let later = ["o".to_owned()];
        let mut found = None;
        for (wanted, model) in [("a", network.clone()), ("o", without(lost))] {
            let whole = || Ok(if gives_whole { network.clone() } else { model.clone() });
            let [seen, reference] = streams;
            let quantized = Network { stream: seen, model: &model, whole: &whole, later: &later };
            let float = Network { stream: reference, model: &network, whole: &|| Ok(network.clone()), later: &later };
            let wanted = [wanted.to_owned()];
            found = Some(compare_streams(float, quantized, &data, ([&wanted; 2], &[&all]), &[], &|_| ()));
        }
        found.unwrap()
    };
    // `w1` has done its work; without `w2` the piece from `a` on cannot be run.
    for (lost, gives_whole) in [("w1", false), ("w2", true)] {
        let found = outputs(lost, gives_whole).unwrap().remove(0).remove(0);
        let sqnr_db = found.found.measured().unwrap().sqnr_db();
        assert!(found.samples == all.len() && sqnr_db > 100.0, "{lost}: {found:?}");
    }
    assert!(outputs("w2", false).is_err());
}

#[test]
fn equal_networks_do_not_drift() {
    let folder = tempfile::tempdir().unwrap();
    let float = network(7);
    let data = samples(folder.path(), &float);
    assert!(stages(&float, &float, &data, usize::MAX).iter().all(|stats| stats.drift().is_none()));
}

#[test]
fn neither_threads_nor_the_temporary_file_change_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (float, quantized) = (network(7), network(70));
    let data = samples(folder.path(), &float);
    let run = |threads, limit_bytes| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(&stages(&quantized, &float, &data, limit_bytes)))
    };
    let expected = run(1, usize::MAX);
    for (threads, limit_bytes) in [(3, usize::MAX), (1, 0), (2, 2000)] {
        assert_eq!(run(threads, limit_bytes), expected, "{threads} threads, {limit_bytes} bytes");
    }
}

/// Both networks with `first` samples on their way and `waiting` ones at the inputs: the moments of the layers' inputs,
/// and on how many samples the outputs can be compared then.
fn with_waiting(data: &CalibSet, first: &[usize], waiting: &[usize]) -> (Vec<GramStats>, usize) {
    let (float, quantized) = (network(7), network(70));
    let stream = || Stream::with_waiting(embedded(), first, waiting, usize::MAX);
    let (mut seen, mut reference) = (stream(), stream());
    let names = ["x", "a", "q", "o"].map(str::to_owned);
    let all: Vec<usize> = (0..data.len()).collect();
    let mut stats = Vec::new();
    for (stage, name) in names[..3].iter().enumerate() {
        let later = &names[stage + 1..];
        let mut seen_request = request(name);
        seen_request.kind = StatKind::RoughGram;
        let wanted = PairRequest { seen: seen_request, reference: name.clone(), is_selected: false };
        let quantized = Network { stream: &mut seen, model: &quantized, whole: &|| Ok(quantized.clone()), later };
        let float = Network { stream: &mut reference, model: &float, whole: &|| Ok(float.clone()), later };
        let found = collect_pairs([quantized, float], data, &[&all], &[wanted], &|_| ()).unwrap();
        stats.extend(found.into_iter().flatten().flatten());
    }
    let quantized = Network { stream: &mut seen, model: &quantized, whole: &|| Ok(quantized.clone()), later: &[] };
    let float = Network { stream: &mut reference, model: &float, whole: &|| Ok(float.clone()), later: &[] };
    let sets: [&[usize]; 2] = [&all[..1], &all[1..]];
    let outputs = compare_streams(float, quantized, data, ([&names[3..]; 2], &sets), &[], &|_| ()).unwrap();
    assert_eq!(outputs[0][0].samples, 1);
    (stats, outputs.iter().map(|outputs| outputs[0].samples).sum())
}

#[test]
fn samples_that_wait_come_when_the_others_have_too_few_rows() {
    let folder = tempfile::tempdir().unwrap();
    let data = samples(folder.path(), &network(7));
    let all: Vec<usize> = (0..data.len()).collect();
    let ((together, compared), (late, late_compared)) =
        (with_waiting(&data, &all, &[]), with_waiting(&data, &all[..10], &all[10..]));
    assert_eq!((compared, late_compared), (data.len(), data.len()));
    for (together, late) in together.iter().zip(&late) {
        assert_eq!((together.n_rows(), together.n_samples()), (late.n_rows(), late.n_samples()));
        let scale = together.mean_square().sum();
        let moments = |stats: &GramStats| {
            let drift = stats.drift().map(|drift| drift.cross().iter().map(|&b| f64::from(b)).collect::<Vec<_>>());
            stats.gram().unwrap().iter().copied().chain(drift.unwrap_or_default()).collect::<Vec<_>>()
        };
        let (together, late) = (moments(together), moments(late));
        assert_eq!(together.len(), late.len());
        assert!(together.iter().zip(&late).all(|(a, b)| (a - b).abs() < 1e-5 * scale));
    }
}

#[test]
fn samples_wait_while_the_others_have_rows_enough_and_reach_the_outputs_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let sample = |i: usize| vec![("x", models::array(i as u64, &[900, K]))];
    let data = data(folder.path(), &network(7), &(0..6).map(sample).collect::<Vec<_>>());
    let (stats, compared) = with_waiting(&data, &[0, 2, 4], &[1, 3, 5]);
    assert!(stats.iter().all(|stats| stats.n_samples() == 3 && stats.n_rows() >= 2048));
    assert_eq!(compared, 6);
    let (stats, _) = with_waiting(&data, &[0, 2], &[1, 3, 4, 5]);
    assert!(stats.iter().all(|stats| stats.n_samples() == 6), "1,800 rows are too few");
}

/// Rows of `x` whose first number exceeds a threshold, behind a layer; `picked` is what the second layer reads.
fn selecting(first_weight: &[f32]) -> ModelProto {
    let nodes = vec![
        node("MatMul", &["x", "w1"], &["y"]),
        node("Slice", &["y", "zero", "one", "one"], &["scores"]),
        node("Squeeze", &["scores", "one"], &["flat"]),
        node("Greater", &["flat", "threshold"], &["chosen"]),
        node("NonZero", &["chosen"], &["places"]),
        node("Squeeze", &["places", "zero"], &["rows"]),
        node("Gather", &["y", "rows"], &["picked"]),
        node("MatMul", &["picked", "w2"], &["o"]),
    ];
    let number = |name: &str, value: i64| onnxquant_proto::onnx::TensorProto {
        data_type: Some(7),
        raw_data: Some(value.to_le_bytes().to_vec().into()),
        ..tensor(name, &[1], &[])
    };
    let weights = vec![
        tensor("w1", &[16, 16], first_weight),
        tensor("w2", &[16, 16], &noise(8, K * K)),
        tensor("threshold", &[], &[0.3]),
        number("zero", 0),
        number("one", 1),
    ];
    model(vec![input("x", &[-1, 16])], nodes, weights)
}

#[test]
fn selected_rows_are_paired_where_both_networks_select_them_and_counted_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let exact = noise(7, K * K);
    let (float, quantized) =
        (selecting(&exact), selecting(&exact.iter().map(|w| (w * 8.0).round() / 8.0).collect::<Vec<_>>()));
    // The last samples select nothing.
    let sample = |i: usize| vec![("x", models::array(i as u64, &[12, K]).mapv(|x| if i < 20 { x } else { 0.01 * x }))];
    let data = data(folder.path(), &float, &(0..24).map(sample).collect::<Vec<_>>());
    let gather = |samples: &[usize], is_selected: bool| {
        let all: Vec<usize> = (0..data.len()).collect();
        let (mut seen, mut reference) =
            (Stream::new(embedded(), &all, usize::MAX), Stream::new(embedded(), &all, usize::MAX));
        let later = ["o".to_owned()];
        let wanted = PairRequest { seen: request("picked"), reference: "picked".to_owned(), is_selected };
        let quantized =
            Network { stream: &mut seen, model: &quantized, whole: &|| Ok(quantized.clone()), later: &later };
        let float = Network { stream: &mut reference, model: &float, whole: &|| Ok(float.clone()), later: &later };
        collect_pairs([quantized, float], &data, &[samples], &[wanted], &|_| ()).unwrap().remove(0).remove(0)
    };
    let with_rows: Vec<usize> = (0..20).collect();
    let found = &gather(&with_rows, true)[0];
    assert!(
        found.n_unpaired() > 0 && found.n_unpaired() < found.n_rows() / 2,
        "{} {}",
        found.n_unpaired(),
        found.n_rows()
    );
    assert!(found.drift().is_some());
    let counts_alone = &gather(&with_rows, false)[0];
    assert!(counts_alone.n_unpaired() > 0 && counts_alone.n_unpaired() <= found.n_unpaired());
    assert!(gather(&[20, 21, 22, 23], true).is_empty(), "there is not a single row");
}

#[test]
fn parts_that_are_run_apart_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (float, quantized) = (network(7), network(70));
    let data = samples(folder.path(), &float);
    let all: Vec<usize> = (0..data.len()).collect();
    let names = ["x", "a", "q"].map(str::to_owned);
    let (first, waiting) = (&all[..30], &all[30..]);
    // By process: both streams, of which it runs some parts.
    let processes = |shares: &[std::ops::Range<usize>]| -> Vec<u64> {
        let stream =
            |own: &std::ops::Range<usize>| Stream::of_parts(embedded(), (first, waiting), own.clone(), usize::MAX);
        let mut streams: Vec<[Stream; 2]> = shares.iter().map(|own| [stream(own), stream(own)]).collect();
        let mut found = Vec::new();
        for (stage, name) in names.iter().enumerate() {
            let later = &names[stage + 1..];
            let wanted = [PairRequest { seen: request(name), reference: name.clone(), is_selected: false }];
            let mut parts = Vec::new();
            for [seen, reference] in &mut streams {
                let quantized = Network { stream: seen, model: &quantized, whole: &|| Ok(quantized.clone()), later };
                let float = Network { stream: reference, model: &float, whole: &|| Ok(float.clone()), later };
                let mut take = |part: PartMoments| {
                    parts.push(part);
                    Ok(())
                };
                collect_pair_parts([quantized, float], &data, &[&all], &wanted, &|_| (), &mut take).unwrap();
            }
            // What each tells the others.
            for process in 0..shares.len() {
                for part in shares[process].clone().filter(|part| *part < MOST_PARTS) {
                    let cuts = [0, 1].map(|stream| streams[process][stream].cut_shapes(part));
                    for other in (0..shares.len()).filter(|other| *other != process) {
                        let [seen, reference] = cuts.clone();
                        streams[other][0].learn(part, seen);
                        streams[other][1].learn(part, reference);
                    }
                }
            }
            parts.sort_by_key(|part| (part.waited, part.part));
            let seen = [wanted[0].seen.clone()];
            let mut sum = MomentSums::new(&seen).unwrap();
            parts.into_iter().flat_map(|part| part.sums).for_each(|part| sum.add(part).unwrap());
            found.extend(sum.finish(&seen).unwrap().into_iter().flatten());
        }
        bits(&found)
    };
    let all = 0..MOST_PARTS;
    let one = processes(std::slice::from_ref(&all));
    for shares in [vec![0..8, 8..16], vec![0..1, 1..7, 7..16], vec![12..16, 0..12]] {
        assert_eq!(processes(&shares), one, "{shares:?}");
    }
}
