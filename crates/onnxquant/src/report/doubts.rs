//! What people hardly meant: little or nothing of the model is quantized.

use crate::config::Activations;
use crate::report::run::Report;

/// Layers that are rounded without data are most of them from this part of the weights on.
const MOST: f64 = 0.5;

impl Report {
    /// Why what was written may not be what was meant, in words: nothing is quantized, an option matches nothing, no layer
    /// runs on the codes that were asked for, most weights are rounded without the samples that were given.
    ///
    /// They make a run [miss](Report::missed) what was asked for unless [`allow_float`](crate::Config::allow_float) is set.
    pub fn doubts(&self) -> Vec<String> {
        let unmatched = self.unmatched.iter().map(|option| format!("`{option}` matches no layer"));
        let others = [self.nothing_quantized(), self.no_integers(), self.mostly_without_data()];
        unmatched.chain(others.into_iter().flatten()).collect()
    }

    fn nothing_quantized(&self) -> Option<String> {
        if self.is_quantized() {
            return None;
        }
        let largest = self.float_weights.iter().filter(|weight| !weight.is_vector).max_by_key(|weight| weight.bytes);
        Some(match (self.skipped.first(), largest) {
            (Some(skipped), _) => {
                let (layer, why) = (&skipped.layer, &skipped.why);
                format!("nothing is quantized: `{}` ({}): {why}", layer.label, layer.op_type)
            }
            (None, Some(weight)) => {
                let readers = weight.operators.join(", ");
                format!("nothing is quantized: `{}`, read by {readers}: {}", weight.name, weight.reason)
            }
            (None, None) => "nothing is quantized: the model has no float weights; those on codes already are quantized anew with --requantize"
                .to_owned(),
        })
    }

    /// Integers were named, and no layer runs on them. Whoever wants accuracy as well has said what goes first.
    fn no_integers(&self) -> Option<String> {
        let has_goal = self.settings.has_goal();
        let is_named = matches!(self.settings.activations, Activations::Static | Activations::Dynamic);
        let has_none = self.layers.iter().all(|layer| layer.float_because.is_some());
        if !is_named || has_goal || self.layers.is_empty() || !has_none {
            return None;
        }
        let first = self.layers.first()?;
        Some(format!("no layer runs on codes: `{}`: {}", first.label, first.float_because.as_deref()?))
    }

    fn mostly_without_data(&self) -> Option<String> {
        self.engine.as_ref()?;
        let unseen = self.first_readers().filter(|layer| layer.calibration_rows.is_none());
        let (unseen, all) = (unseen.map(|layer| layer.parameters).sum::<usize>(), self.weights());
        let is_most = unseen as f64 > MOST * all as f64;
        is_most.then(|| format!("{unseen} of {all} weights are rounded without data"))
    }
}
