//! How well two language models foretell the tokens of a text.
//!
//! # Problem
//!
//! The error of logits says little about what a model generates: most of it lies in tokens that nobody would choose.
//!
//! # Method
//!
//! Logits `[batch, sequence, vocabulary]` at one place are scores of the token that follows, which the sample holds:
//! `input_ids` `[batch, sequence]`, or the only input of integers of that shape. Over all places that an `attention_mask`
//! does not hide, the mean negative log-likelihood of the token that follows is taken of both models, and the mean
//! Kullback-Leibler divergence of the second from the first; perplexity is the exponential of the first (Jelinek et al.,
//! Perplexity - a measure of the difficulty of speech recognition tasks, 1977).
//!
//! # Failure
//!
//! A network that foretells something else, such as the token that was hidden at that place, has such outputs too. It does
//! no better than chance at what follows, where a language model does: then nothing is told.

use ndarray::{ArrayD, ArrayView1, Axis, Ix2, Ix3};
use serde::{Deserialize, Serialize};

use crate::data::{InputSpec, Sample};
use crate::tensor::{ElementType, Tensor};

/// The input that holds tokens, where there are several of integers.
const IDS: &str = "input_ids";
/// The input that says which places hold a token.
const MASK: &str = "attention_mask";

/// What two language models say about the tokens of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenError {
    /// Tokens foretold.
    pub tokens: usize,
    /// Mean negative log-likelihood of a token in the first model, in nats.
    pub float_loss: f64,
    /// The same in the second.
    pub loss: f64,
    /// Mean Kullback-Leibler divergence of the second model's distribution from the first's, in nats.
    pub divergence: f64,
}

/// The tokens of a sample, by place.
pub(crate) struct Tokens {
    ids: ArrayD<i64>,
    /// Places that hold none; the last are those of `ids`.
    mask: Option<ArrayD<i64>>,
}

/// What is gathered over samples.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TokenSums {
    tokens: usize,
    float_loss: f64,
    loss: f64,
    divergence: f64,
    vocabulary: usize,
}

/// Whether samples of these inputs may hold tokens.
pub(crate) fn may_hold_tokens(inputs: &[InputSpec]) -> bool {
    inputs.iter().any(|input| matches!(input.element, ElementType::I64 | ElementType::I32))
}

impl Tokens {
    /// Those of a sample, if it has any.
    pub(crate) fn of(sample: &Sample) -> Option<Self> {
        let rows = |name: &str| sample.iter().find(|(found, _)| found == name).and_then(|(_, tensor)| integers(tensor));
        let mut others = sample.iter().filter(|(name, _)| name != MASK).filter_map(|(_, tensor)| integers(tensor));
        let only = others.next().filter(|_| others.next().is_none());
        Some(Self { ids: rows(IDS).or(only)?, mask: rows(MASK) })
    }
}

/// Integers `[batch, sequence]`.
fn integers(tensor: &Tensor) -> Option<ArrayD<i64>> {
    let found = match tensor {
        Tensor::I64(a) => a.clone(),
        Tensor::I32(a) => a.mapv(i64::from),
        _ => return None,
    };
    (found.ndim() == 2).then_some(found)
}

impl TokenSums {
    /// Adds a sample: what both models give for it.
    pub(crate) fn take_in(&mut self, tokens: &Tokens, float: &ArrayD<f64>, other: &ArrayD<f64>) {
        let views = (float.view().into_dimensionality::<Ix3>(), other.view().into_dimensionality::<Ix3>());
        let (Ok(float), Ok(other)) = views else { return };
        let Ok(ids) = tokens.ids.view().into_dimensionality::<Ix2>() else { return };
        let (batch, sequence, vocabulary) = float.dim();
        let is_known = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < vocabulary);
        if ids.dim() != (batch, sequence) || !ids.iter().all(is_known) {
            return;
        }
        let is_seen = |row: usize, at: usize| {
            let mask = tokens.mask.as_ref().map(|mask| mask.index_axis(Axis(0), row));
            // It counts what lies before the sequence too.
            let place = mask.as_ref().and_then(|mask| (mask.len() + at).checked_sub(sequence));
            mask.zip(place).is_none_or(|(mask, place)| mask.get(place).is_none_or(|seen| *seen != 0))
        };
        let fits = tokens.mask.as_ref().is_none_or(|mask| mask.shape()[0] == batch);
        for row in (0..batch).filter(|_| fits) {
            for at in (1..sequence).filter(|&at| is_seen(row, at - 1) && is_seen(row, at)) {
                let logits = [&float, &other].map(|logits| logits.index_axis(Axis(0), row));
                let [p, q] = logits.map(|logits| logits.index_axis_move(Axis(0), at - 1));
                self.foretell(&p.view(), &q.view(), ids[[row, at]] as usize);
            }
        }
        self.vocabulary = vocabulary;
    }

    fn foretell(&mut self, p: &ArrayView1<'_, f64>, q: &ArrayView1<'_, f64>, token: usize) {
        let (norm_p, norm_q) = (log_sum(p), log_sum(q));
        self.tokens += 1;
        self.float_loss += norm_p - p[token];
        self.loss += norm_q - q[token];
        let terms = p.iter().zip(q).map(|(&p, &q)| (p - norm_p, q - norm_q));
        // What has no probability adds nothing.
        let terms = terms.filter(|(p, _)| p.is_nan() || *p > f64::NEG_INFINITY).map(|(p, q)| p.exp() * (p - q));
        self.divergence += terms.sum::<f64>();
    }

    /// Adds what was gathered of other samples.
    pub(crate) fn add(&mut self, part: Self) {
        self.tokens += part.tokens;
        self.float_loss += part.float_loss;
        self.loss += part.loss;
        self.divergence += part.divergence;
        self.vocabulary = self.vocabulary.max(part.vocabulary);
    }

    /// The means; nothing where there were no tokens, or the first model foretells them no better than chance.
    pub(crate) fn finish(self) -> Option<TokenError> {
        let mean = |sum: f64| sum / self.tokens as f64;
        let found = TokenError {
            tokens: self.tokens,
            float_loss: mean(self.float_loss),
            loss: mean(self.loss),
            divergence: mean(self.divergence),
        };
        (self.tokens > 0 && found.float_loss < (self.vocabulary as f64).ln()).then_some(found)
    }
}

/// The logarithm of the sum of the exponentials.
fn log_sum(logits: &ArrayView1<'_, f64>) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use ndarray::{IxDyn, arr2, arr3};

    use super::*;

    fn sample(inputs: Vec<(&str, Tensor)>) -> Sample {
        inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
    }

    fn ids(rows: &[[i64; 3]]) -> Tensor {
        Tensor::I64(arr2(rows).into_dyn())
    }

    fn found(inputs: Vec<(&str, Tensor)>, float: &ArrayD<f64>, other: &ArrayD<f64>) -> Option<TokenError> {
        let mut sums = TokenSums::default();
        sums.take_in(&Tokens::of(&sample(inputs))?, float, other);
        sums.finish()
    }

    /// Logits of probabilities.
    fn logits(rows: [[f64; 2]; 3]) -> ArrayD<f64> {
        arr3(&[rows]).mapv(f64::ln).into_dyn()
    }

    #[test]
    fn the_token_that_follows_is_foretold() {
        let float = logits([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]]);
        let other = logits([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]]);
        let error = found(vec![("input_ids", ids(&[[0, 1, 1]]))], &float, &other).unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{error:?}");
        assert_eq!(error.tokens, 2);
        near(error.float_loss, -(0.75_f64.ln() + 0.5_f64.ln()) / 2.0);
        near(error.loss, 2.0_f64.ln());
        near(error.divergence, (0.25 * 0.5_f64.ln() + 0.75 * 1.5_f64.ln()) / 2.0);
    }

    #[test]
    fn what_the_mask_hides_is_passed_over() {
        let float = logits([[0.25, 0.75], [0.4, 0.6], [0.1, 0.9]]);
        let mask = |row: &[i64]| Tensor::I64(ArrayD::from_shape_vec(IxDyn(&[1, row.len()]), row.to_vec()).unwrap());
        // A past of two tokens; padding on the left, and on the right.
        for (row, tokens) in [(&[1, 1, 1, 1, 1][..], 2), (&[0, 0, 0, 1, 1], 1), (&[1, 1, 0], 1)] {
            let inputs = vec![("attention_mask", mask(row)), ("input_ids", ids(&[[0, 1, 1]]))];
            assert_eq!(found(inputs, &float, &float).map(|error| error.tokens), Some(tokens), "{row:?}");
        }
        let hidden = vec![("attention_mask", mask(&[0, 0, 0])), ("input_ids", ids(&[[0, 1, 1]]))];
        assert_eq!(found(hidden, &float, &float), None);
    }

    #[test]
    fn other_outputs_and_inputs_tell_nothing() {
        let float = logits([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]]);
        let one = || ("tokens", ids(&[[0, 1, 1]]));
        assert!(found(vec![one()], &float, &float).is_some());
        assert_eq!(found(vec![one(), ("types", ids(&[[0, 0, 0]]))], &float, &float), None);
        assert_eq!(found(vec![("tokens", ids(&[[0, 2, 1]]))], &float, &float), None);
        assert_eq!(found(vec![("tokens", ids(&[[0, 1, 1], [0, 1, 1]]))], &float, &float), None);
        assert_eq!(found(vec![one()], &float.clone().into_shape_with_order(IxDyn(&[3, 2])).unwrap(), &float), None);
        // It tells the token at its own place.
        let masked = logits([[0.99, 0.01], [0.01, 0.99], [0.99, 0.01]]);
        assert_eq!(found(vec![("tokens", ids(&[[0, 1, 0]]))], &masked, &masked), None);
    }
}
