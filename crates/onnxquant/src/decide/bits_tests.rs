use std::cell::RefCell;

use onnxquant_calib::{Measurement, NotMeasured};

use super::*;
use crate::decide::testing::of_power;

/// Layers of so many weights each; errors fall by 6 dB a bit, and layer 0 harms the outputs a hundred times as much.
fn harms(parameters: &[u64]) -> Harms {
    let bytes = |&parameters: &u64| WIDTHS.map(|bits| parameters * u64::from(bits) / 8);
    Harms {
        units: (0..parameters.len()).map(|layer| vec![layer]).collect(),
        parameters: parameters.to_vec(),
        errors: vec![WIDTHS.map(|bits| 0.25f64.powi(bits as i32)); parameters.len()],
        sensitivity: (0..parameters.len()).map(|layer| if layer == 0 { 100.0 } else { 1.0 }).collect(),
        bytes: parameters.iter().map(bytes).collect(),
        rest_bytes: 1000,
    }
}

/// What the layers do to the outputs, as the sensitivity has it.
fn power(harms: &Harms, widths: &Widths) -> f64 {
    widths.iter().enumerate().map(|(layer, &width)| harms.sensitivity[layer] * harms.errors[layer][width]).sum()
}

/// The bytes of the file: what the table says, and so many more.
fn file(harms: &Harms, widths: &Widths, more: u64) -> u64 {
    harms.rest_bytes + harms.spent(widths) + more
}

fn average(harms: &Harms, bits: f64, measure: Option<&dyn Measure<Widths>>) -> Option<Vec<u32>> {
    let none = |_: &Widths| -> Result<u64, Error> { panic!("an average is not weighed") };
    let found = harms.within(Budget::AverageBits(bits), measure, &none).unwrap();
    found.map(|widths| bits_of(&widths))
}

#[test]
fn bits_go_where_they_harm_least_and_the_average_is_kept() {
    let harms = harms(&[1000, 1000, 1000, 1000]);
    assert_eq!(average(&harms, 8.0, None), Some(vec![8, 8, 8, 8]));
    assert_eq!(average(&harms, 2.0, None), Some(vec![2, 2, 2, 2]));
    assert_eq!(average(&harms, 1.9, None), None);
    let found = average(&harms, 3.5, None).unwrap();
    assert!(found[0] > found[1] && found.iter().sum::<u32>() <= 14, "{found:?}");
}

#[test]
fn the_plan_that_measures_best_is_taken_and_the_first_of_equals() {
    let harms = harms(&[1000, 1000, 1000, 1000]);
    let by_harm = average(&harms, 3.0, None).unwrap();
    assert_ne!(by_harm, [3, 3, 3, 3]);
    let uniform: Widths = vec![1; 4];
    let likes_uniform = |widths: &Widths| Ok(of_power(if *widths == uniform { 0.1 } else { 0.2 }));
    assert_eq!(average(&harms, 3.0, Some(&likes_uniform)), Some(vec![3, 3, 3, 3]));
    let indifferent = |_: &Widths| Ok(of_power(0.1));
    assert_eq!(average(&harms, 3.0, Some(&indifferent)).as_ref(), Some(&by_harm));
    // What was not measured is worse than what was.
    let lost = |widths: &Widths| match *widths == uniform {
        true => Ok(of_power(0.9)),
        false => Ok(Measurement::NotMeasured(NotMeasured::NoOutputs)),
    };
    assert_eq!(average(&harms, 3.0, Some(&lost)), Some(vec![3, 3, 3, 3]));
}

#[test]
fn layers_that_read_one_weight_have_one_width_and_count_once() {
    let mut harms = harms(&[1000, 0, 1000]);
    harms.units = vec![vec![0, 1], vec![2]];
    let found = average(&harms, 5.0, None).unwrap();
    assert_eq!(found, [8, 8, 2], "10 bits for the two weights");
}

#[test]
fn the_budget_for_a_file_is_corrected_by_what_it_has_too_many() {
    let harms = harms(&[8000, 8000]);
    let size = |bytes: u64, more: u64| {
        let weigh = |widths: &Widths| Ok(file(&harms, widths, more));
        let found = harms.within(Budget::TargetBytes(bytes), None, &weigh).unwrap();
        found.inspect(|widths| assert!(file(&harms, widths, more) <= bytes, "{widths:?} for {bytes}"))
    };
    // 1000 bytes a bit and layer.
    assert_eq!(size(1000 + 16_000, 0), Some(vec![3, 3]));
    let narrower = size(1000 + 16_000, 10).unwrap();
    assert!(narrower.contains(&3) && narrower != [3, 3], "{narrower:?}");
    assert_eq!(size(1000 + 4000, 0), Some(vec![0, 0]));
    assert_eq!(size(1000 + 4000, 10), None);
    assert_eq!(size(500, 0), None);
    assert_eq!(harms.least_bytes(), 5000);
}

#[test]
fn an_sqnr_takes_the_narrowest_widths_that_reach_it() {
    let harms = harms(&[1000, 1000, 1000]);
    let measure = |widths: &Widths| Ok(of_power(power(&harms, widths)));
    let at = |wanted_db: f64| bits_of(&harms.at_sqnr(wanted_db, Some(&measure)).unwrap());
    assert_eq!(at(-10.0), [2, 2, 2]);
    assert_eq!(at(100.0), [8, 8, 8], "the most exact where none reaches it");
    let found = harms.at_sqnr(10.0, Some(&measure)).unwrap();
    assert!(power(&harms, &found) <= 0.1);
    assert!(found[0] > found[1] && found[1] < 3, "{found:?}");
}

#[test]
fn a_solution_that_misses_the_sqnr_moves_the_aim() {
    let harms = harms(&[1000, 1000, 1000, 1000, 1000, 1000]);
    let measure = |widths: &Widths| Ok(of_power(power(&harms, widths)));
    let solve = |off_db: f64, wanted_db: f64| {
        let tried = RefCell::new(Vec::new());
        let best = harms.reach(wanted_db, Some(&measure), |widths| {
            let reached = -10.0 * power(&harms, widths).log10() + off_db;
            tried.borrow_mut().push((harms.spent(widths), reached));
            Ok((reached, reached))
        });
        (best.unwrap(), tried.into_inner())
    };
    // In earnest it is 6 dB worse than the quick codes: more bits are tried until it is reached.
    let (best, tried) = solve(-6.0, 10.0);
    assert!(tried[0].1 < 10.0 && best >= 10.0, "{best}: {tried:?}");
    // 20 dB better: fewer bits do.
    let (best, tried) = solve(20.0, 10.0);
    let least = tried.iter().filter(|(_, reached)| *reached >= 10.0).map(|(bytes, _)| bytes).min();
    assert!(least < Some(&tried[0].0) && tried.iter().any(|(bytes, reached)| least == Some(bytes) && *reached == best));
    // Never: the most exact one.
    let (best, tried) = solve(-200.0, 10.0);
    assert!(tried.iter().all(|(_, reached)| *reached <= best));
}
