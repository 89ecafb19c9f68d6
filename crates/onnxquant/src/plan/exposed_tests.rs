use super::*;
use crate::testing::{detector, names};

#[test]
fn what_reaches_outputs_without_a_layer_in_between_is_exposed() {
    let model = detector();
    let graph = model.graph();
    let computed = exposed(graph).into_iter().filter(|value| graph.value(*value).constant().is_none());
    assert_eq!(names(graph, computed), ["b", "both", "c", "pixels", "scores", "y", "z"]);
}

#[test]
fn ranges_of_exposed_values_clip_nothing() {
    assert_eq!(unclipped(RangeMethod::Percentile(99.99)), RangeMethod::MinMax);
    assert_eq!(unclipped(RangeMethod::MeanSquaredError), RangeMethod::MinMax);
    assert_eq!(unclipped(RangeMethod::Stretched(1.25)), RangeMethod::Stretched(1.25));
}
