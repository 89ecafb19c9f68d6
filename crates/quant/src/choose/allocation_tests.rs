use super::*;
use proptest::prelude::*;

fn choices(points: &[(f64, u64)]) -> Vec<Choice> {
    points.iter().map(|&(error, cost)| Choice { error, cost }).collect()
}

fn total(layers: &[Vec<Choice>], chosen: &[usize]) -> Choice {
    let each = || layers.iter().zip(chosen).map(|(choices, &at)| choices[at]);
    Choice { error: each().map(|c| c.error).sum(), cost: each().map(|c| c.cost).sum() }
}

/// Every combination of widths.
fn all(layers: &[Vec<Choice>]) -> Vec<Vec<usize>> {
    layers.iter().fold(vec![vec![]], |found, choices| {
        let longer = |start: &Vec<usize>| (0..choices.len()).map(|at| [&start[..], &[at]].concat()).collect::<Vec<_>>();
        found.iter().flat_map(longer).collect()
    })
}

#[test]
fn a_sensitive_layer_gets_the_bits() {
    let layers = [choices(&[(4.0, 2), (1.0, 4)]), choices(&[(400.0, 2), (100.0, 4)])];
    assert_eq!(least_error(&layers, 6), Some(vec![0, 1]));
    assert_eq!(least_error(&layers, 8), Some(vec![1, 1]));
    assert_eq!(cheapest(&layers, 104.0), Some(vec![0, 1]));
    assert_eq!(cheapest(&layers, 103.9), Some(vec![1, 1]));
}

#[test]
fn what_cannot_be_had_is_refused() {
    let layers = [choices(&[(4.0, 2), (1.0, 4)])];
    assert_eq!(least_error(&layers, 1), None);
    assert_eq!(cheapest(&layers, 0.5), None);
    assert_eq!(least_error(&[choices(&[(f64::NAN, 1)])], 9), None);
    assert_eq!(least_error(&[vec![]], 9), None);
    assert_eq!(least_error(&[], 0), Some(vec![]));
}

#[test]
fn what_is_left_goes_to_points_off_the_hull() {
    // 3 bits lie above the line from 2 to 4 bits, which do not fit.
    let layers = [choices(&[(10.0, 2), (8.0, 3), (0.0, 4)])];
    assert_eq!(least_error(&layers, 3), Some(vec![1]));
}

fn layers() -> impl Strategy<Value = Vec<Vec<Choice>>> {
    let choice = (0u32..1000, 1u64..60).prop_map(|(error, cost)| Choice { error: f64::from(error), cost });
    prop::collection::vec(prop::collection::vec(choice, 1..5), 1..6)
}

proptest! {
    #[test]
    fn least_error_keeps_the_budget_and_is_a_step_from_the_optimum(layers in layers(), budget in 0u64..200) {
        let fits = all(&layers).into_iter().map(|chosen| total(&layers, &chosen)).filter(|c| c.cost <= budget);
        let optimum = fits.map(|c| c.error).min_by(f64::total_cmp);
        let found = least_error(&layers, budget).map(|chosen| total(&layers, &chosen));
        prop_assert_eq!(found.is_some(), optimum.is_some());
        if let (Some(found), Some(optimum)) = (found, optimum) {
            prop_assert!(found.cost <= budget && found.error >= optimum);
            let range = |choices: &Vec<Choice>| {
                let errors = choices.iter().map(|c| c.error);
                errors.clone().fold(0.0, f64::max) - errors.fold(f64::INFINITY, f64::min)
            };
            let gap = layers.iter().map(range).fold(0.0, f64::max);
            prop_assert!(found.error <= optimum + gap, "{} over {optimum}", found.error);
        }
    }

    #[test]
    fn budgets_on_the_path_are_met_with_the_optimum(layers in layers(), stop in 0usize..20) {
        let mut path = Path::new(&layers).unwrap();
        for step in path.steps().into_iter().take(stop) {
            path.chosen[step.layer] = step.to;
        }
        let budget = u64::try_from(path.cost()).unwrap();
        let fits = all(&layers).into_iter().map(|chosen| total(&layers, &chosen)).filter(|c| c.cost <= budget);
        let optimum = fits.map(|c| c.error).min_by(f64::total_cmp).unwrap();
        prop_assert_eq!(total(&layers, &least_error(&layers, budget).unwrap()).error, optimum);
    }

    #[test]
    fn cheapest_keeps_the_limit_and_wastes_no_single_step(layers in layers(), limit in 0u32..3000) {
        let limit = f64::from(limit);
        let possible = all(&layers).iter().any(|chosen| total(&layers, chosen).error <= limit);
        let found = cheapest(&layers, limit);
        prop_assert_eq!(found.is_some(), possible);
        let Some(found) = found else { return Ok(()) };
        prop_assert!(total(&layers, &found).error <= limit);
        for layer in 0..layers.len() {
            for to in 0..layers[layer].len() {
                let mut other = found.clone();
                other[layer] = to;
                let (before, after) = (total(&layers, &found), total(&layers, &other));
                prop_assert!(after.cost >= before.cost || after.error > limit);
            }
        }
    }
}
