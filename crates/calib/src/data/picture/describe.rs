//! Says what is done to pictures.

use super::recipe::{ChannelOrder, Recipe};
use super::{Preparation, fit::Size};

/// Larger deviations than this many times the largest pixel leave hardly any values.
const LIKELY: f32 = 32.0;

impl Preparation {
    /// What pictures become: `224x224 (bicubic, center crop), RGB, scaled 1/255, mean 0.5, std 0.5`.
    pub(crate) fn describe(&self) -> String {
        let size = self.fixed_size().ok().flatten().map_or("sizes of their own".to_owned(), words_of_size);
        let kernel = self.recipe.filter.kernel.name();
        let how: Vec<String> = [Some(kernel.to_owned()), self.recipe.fit.words()].into_iter().flatten().collect();
        let order = match (self.channels, self.recipe.channel_order) {
            (1, _) => "grey",
            (_, ChannelOrder::Rgb) => "RGB",
            (_, ChannelOrder::Bgr) => "BGR",
        };
        let mut parts = vec![format!("{size} ({})", how.join(", ")), order.to_owned()];
        match self.spec.element.is_float() {
            true => parts.extend(self.arithmetic()),
            false => parts.push("pixels of 0 to 255 as they are".to_owned()),
        }
        if !self.origin.is_empty() {
            parts.push(format!("after {}", self.origin));
        }
        parts.join(", ")
    }

    fn arithmetic(&self) -> Vec<String> {
        let Recipe { scale, mean, std, .. } = self.recipe;
        let per_byte = 1.0 / scale;
        let mut parts = Vec::new();
        if (per_byte - 255.0).abs() < 1e-3 {
            parts.push("scaled 1/255".to_owned());
        } else if (scale - 1.0).abs() > f32::EPSILON {
            parts.push(format!("scaled {scale}"));
        }
        let mean = mean.get(..self.channels).unwrap_or(&mean);
        let std = std.get(..self.channels).unwrap_or(&std);
        if mean.iter().any(|&mean| mean != 0.0) {
            parts.push(format!("mean {}", numbers(mean)));
        }
        if std.iter().any(|&std| std != 1.0) {
            parts.push(format!("std {}", numbers(std)));
        }
        parts
    }

    /// Where mean and deviation do not go together with the scale.
    pub(crate) fn unlikely(&self) -> Option<String> {
        if !self.spec.element.is_float() {
            return None;
        }
        let Recipe { scale, mean, std, .. } = self.recipe;
        let most = 255.0 * scale;
        let of = |what: &str, given: &[f32], remedy: &str| {
            Some(format!("{what} {} goes with pixels of another range than 0 to {most}: {remedy}", numbers(given)))
        };
        if mean.iter().any(|&mean| mean > most) {
            return of("mean", &mean, &format!("was it {} that was meant?", numbers(&mean.map(|mean| mean / 255.0))));
        }
        if std.iter().any(|&std| std > LIKELY * most) {
            return of("std", &std, &format!("was it {} that was meant?", numbers(&std.map(|std| std / 255.0))));
        }
        let is_small = mean.iter().all(|&mean| mean > 0.0 && mean < most / 255.0);
        let remedy = "were they to be scaled to 0..1 first, as --image-preset unit does?";
        if is_small && most > 1.0 { of("mean", &mean, remedy) } else { None }
    }
}

fn words_of_size((height, width): Size) -> String {
    format!("{height}x{width}")
}

/// One number where all are the same.
fn numbers(numbers: &[f32]) -> String {
    let is_one = numbers.windows(2).all(|pair| pair.first() == pair.last());
    let shown = if is_one { numbers.get(..1).unwrap_or_default() } else { numbers };
    // No more digits than tell numbers apart.
    shown.iter().map(|number| ((number * 1e4).round() / 1e4).to_string()).collect::<Vec<_>>().join(" ")
}
