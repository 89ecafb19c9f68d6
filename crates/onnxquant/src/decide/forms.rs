//! Decides which weights become floats when the model loads, because `MatMulNBits` would be slower than floats.

use std::collections::HashSet;

use onnxquant_ir::ValueId;

use crate::config::Config;
use crate::decide::decided::Decided;
use crate::error::Error;
use crate::plan::layers::PlannedLayer;

/// Marks the layers for which codes of 8 bits in `MatMulNBits` would be slower than floats on a processor where the file is
/// served, with as many rows as the first sample has. Layers of which no sample shows the rows keep their form.
///
/// Layers that read one weight have one form, so that the file holds its codes once.
pub(crate) fn mark_slow_layers(decided: &mut Decided, config: &Config) -> Result<(), Error> {
    let Decided { plan, assignment, .. } = decided;
    let is_slow = |layer: &&PlannedLayer| !assignment.nbits_pays(layer.site.node);
    let slow: HashSet<ValueId> = plan.layers.iter().filter(is_slow).map(|layer| layer.site.weight).collect();
    for layer in plan.layers.iter_mut().filter(|layer| slow.contains(&layer.site.weight)) {
        *layer = layer.slow(config)?;
    }
    Ok(())
}
