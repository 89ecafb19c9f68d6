//! Decides which layers run on integers, and on which scales.
//!
//! | scheme | Conv | MatMul, Gemm |
//! |---|---|---|
//! | static | regions | regions |
//! | dynamic | weights only | codes of the input made at run time |
//! | auto | regions | in a region behind a Conv, else codes made at run time |
//!
//! | file | what it does |
//! |---|---|
//! | `plan` | which operators run on codes, and what each layer becomes |
//! | `scales` | scales and zero points of tensors, from the distributions of their values |
//! | `exposed` | tensors that make outputs without a layer in between, and what their codes must not spoil |
//! | `choose_range` | how ranges are found, by the error of the outputs on held-out samples |
//! | `equalize` | even channels where what makes a tensor can take the factors |
//! | `retreat` | takes layers back to float until the outputs are as exact as asked |
//! | `report` | what was decided and why |
//!
//! Regions come from [`onnxquant_passes::integer`].

mod choose_range;
mod equalize;
mod exposed;
mod plan;
mod report;
mod retreat;
mod scales;

use std::sync::Arc;

use onnxquant_ir::Model;

use crate::compare::Reference;
use crate::config::{Activations, Config};
use crate::error::Error;
use crate::judge::Judge;
use crate::observe::Observer;
use crate::plan::Plan;
use crate::report::Weights;
use crate::rescale::rescale;
use crate::write::Arithmetic;

use choose_range::choose_ranges;
use equalize::equalize;
use exposed::mixing_scales;
pub(crate) use plan::{Form, IntegerPlan};
pub(crate) use retreat::{Goal, retreat};
pub use scales::Origin;
use scales::{Histograms, Scales};

/// Held-out samples on which integers are judged before weights are fitted.
const FIRST_SAMPLES: usize = 8;

/// The integer plan of `config`; empty where activations stay floats.
///
/// Channels of values are rescaled where that makes the codes of activations finer; the layers of `plan` are found
/// anew then.
pub(crate) fn plan_integers(
    model: &mut Model,
    plan: &mut Plan,
    config: &Config,
    observer: &Observer<'_>,
) -> Result<IntegerPlan, Error> {
    if config.activations == Activations::Float || plan.layers.is_empty() {
        return Ok(IntegerPlan::default());
    }
    let mut integers = IntegerPlan::new(model, plan, config, observer)?;
    let rescaled = rescale(model, plan, config, &integers.dynamic, observer)?;
    if rescaled > 0 {
        integers = IntegerPlan::new(model, plan, config, observer)?;
    }
    integers.rescaled = rescaled;
    let has_regions = !integers.regions.units.is_empty();
    if !has_regions && (integers.is_empty() || Goal::of(config).is_none()) {
        return Ok(integers);
    }
    let calibration = observer.calibration();
    let float = Arc::new(Reference::new(model.clone(), calibration, &calibration.split.held_out)?);
    if has_regions {
        integers.equalized = equalize(model, plan, &mut integers, config, observer, &float)?;
        find_scales(&mut integers, model, config, observer, float.clone())?;
    }
    let judge = Judge::beside(float, model, calibration, Arithmetic::File);
    let samples = judge.first_samples(FIRST_SAMPLES);
    let measure = |plan: &IntegerPlan| judge.with_float_weights(plan, samples, observer.progress());
    retreat(&mut integers, &judge, config, Weights::Float, &measure)?;
    Ok(integers)
}

/// Gives the tensors of the regions their scales: by the method that is asked for, else by those that leave the
/// outputs of held-out samples the least error, in comparison with `float`.
fn find_scales(
    integers: &mut IntegerPlan,
    model: &Model,
    config: &Config,
    observer: &Observer<'_>,
    float: Arc<Reference>,
) -> Result<(), Error> {
    let histograms = observed(integers, model, config, observer, usize::MAX)?;
    match config.range {
        Some(range) => {
            let scales = Scales::uniform(model.graph(), integers, &histograms, range, Origin::Settings, config)?;
            integers.set_scales(model.graph(), scales)?;
        }
        None => {
            let judge = Judge::beside(float, model, observer.calibration(), Arithmetic::File);
            choose_ranges(integers, &histograms, &judge, config, observer.progress())?;
        }
    }
    integers.keep_distributions(histograms);
    Ok(())
}

/// The distributions of all tensors in the regions, over at most so many samples; what cannot stand on one scale leaves
/// the regions.
fn observed(
    integers: &mut IntegerPlan,
    model: &Model,
    config: &Config,
    observer: &Observer<'_>,
    most_samples: usize,
) -> Result<Histograms, Error> {
    let histograms = Histograms::observe(model, integers, observer, most_samples)?;
    let mixing = mixing_scales(model.graph(), integers, &histograms, config)?;
    integers.leave_in_float(model.graph(), &mixing);
    Ok(histograms)
}
