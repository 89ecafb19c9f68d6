//! What a model of texts is given, made of their tokens.
//!
//! | input | value |
//! |---|---|
//! | `input_ids`, or what `genai_config.json` calls so | the tokens |
//! | `attention_mask` | ones, for the past and the tokens; zeros where a text was filled up |
//! | `position_ids` | the place of each token, the past counted |
//! | `token_type_ids` | zeros |
//! | `past*`, and the caches that `genai_config.json` names | no tokens: heads and their size are as declared, else as in `genai_config.json` |

use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use super::genai_config::GenaiDecoder;
use super::masks::of_type;
use super::{Dim, InputSpec};
use crate::error::CalibError;
use crate::tensor::{ElementType, Tensor};

/// Where a cache counts tokens, from its last axis.
const PAST_FROM_END: usize = 2;

/// The tokens of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) tokens: Vec<u32>,
    /// Tokens at the end that only fill the window.
    pub(crate) filling: usize,
    /// Tokens before it, which caches hold.
    pub(crate) past: usize,
}

impl Window {
    /// Its first half and, behind it, the second one; none where it is too short, or filled up.
    pub(crate) fn halves(&self) -> Option<(Self, Self)> {
        let (first, second) = self.tokens.split_at(self.tokens.len() / 2);
        let half = |tokens: &[u32], past| Self { tokens: tokens.to_vec(), filling: 0, past };
        let is_whole = self.filling == 0 && self.past == 0 && !first.is_empty();
        is_whole.then(|| (half(first, 0), half(second, first.len())))
    }
}

/// What an input holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Tokens,
    Mask,
    Positions,
    Types,
    /// A cache of no tokens, with this shape.
    Cache(Vec<usize>),
}

/// The inputs of a model of texts.
#[derive(Debug)]
pub(crate) struct TextInputs {
    /// By input that is given, its number and what it holds.
    roles: Vec<(usize, Role)>,
    length: Option<usize>,
}

impl TextInputs {
    /// For the inputs of a graph; `path` is where the texts are, for messages.
    pub(crate) fn new(path: &Path, inputs: &[InputSpec], decoder: &GenaiDecoder) -> Result<Self, CalibError> {
        let mut roles = Vec::new();
        for (number, spec) in inputs.iter().enumerate() {
            match role(spec, decoder) {
                Ok(role) => roles.push((number, role)),
                Err(_) if spec.optional => {}
                Err(reason) => {
                    let (path, name, shape) = (path.into(), spec.name.clone(), spec.shape_text());
                    return Err(CalibError::TextInput { path, name, shape, reason });
                }
            }
        }
        let tokens = roles.iter().find(|(_, role)| *role == Role::Tokens).map(|(number, _)| &inputs[*number]);
        let Some(tokens) = tokens else {
            let inputs = inputs.iter().map(|spec| spec.name.clone()).collect();
            return Err(CalibError::NoTokens { path: path.into(), inputs });
        };
        let length = match tokens.dims.as_deref() {
            Some([_, Dim::Fixed(length)]) => Some(*length),
            _ => None,
        };
        Ok(Self { roles, length })
    }

    /// How many tokens the graph takes, where it takes no other number.
    pub(crate) fn length(&self) -> Option<usize> {
        self.length
    }

    /// Whether it has caches, and so is a decoder.
    pub(crate) fn has_caches(&self) -> bool {
        self.caches().next().is_some()
    }

    /// Whether it tells parts of a text apart, as encoders do.
    pub(crate) fn has_types(&self) -> bool {
        self.roles.iter().any(|(_, role)| *role == Role::Types)
    }

    /// Numbers and shapes of the inputs that are given.
    pub(crate) fn shapes(&self, window: &Window) -> Vec<(usize, Vec<usize>)> {
        let shape = |role: &Role| match role {
            Role::Cache(shape) => {
                let axis = past_axis(shape.len());
                shape.iter().enumerate().map(|(at, &n)| if Some(at) == axis { window.past } else { n }).collect()
            }
            Role::Mask => vec![1, window.past + window.tokens.len()],
            _ => vec![1, window.tokens.len()],
        };
        self.roles.iter().map(|(number, role)| (*number, shape(role))).collect()
    }

    /// What they hold, caches of a past left out.
    pub(crate) fn values(&self, inputs: &[InputSpec], window: &Window) -> Vec<(String, Tensor)> {
        let value = |(number, role): &(usize, Role)| {
            let spec = &inputs[*number];
            (spec.name.clone(), role.value(spec.element, window))
        };
        let is_made = |(_, role): &&(usize, Role)| window.past == 0 || !matches!(role, Role::Cache(_));
        self.roles.iter().filter(is_made).map(value).collect()
    }

    /// The numbers of the caches.
    pub(crate) fn caches(&self) -> impl Iterator<Item = usize> {
        self.roles.iter().filter(|(_, role)| matches!(role, Role::Cache(_))).map(|(number, _)| *number)
    }
}

impl Role {
    fn value(&self, element: ElementType, window: &Window) -> Tensor {
        let all = window.past + window.tokens.len();
        match self {
            Self::Tokens => row(window.tokens.iter().map(|&token| i64::from(token))),
            Self::Mask => of_type(element, row((0..all).map(|at| i64::from(at + window.filling < all)))),
            Self::Positions => row((window.past..all).map(|at| at as i64)),
            Self::Types => row(window.tokens.iter().map(|_| 0)),
            Self::Cache(shape) => of_type(element, Tensor::I64(ArrayD::zeros(IxDyn(shape)))),
        }
    }
}

/// What an input holds, or why nobody can tell.
fn role(spec: &InputSpec, decoder: &GenaiDecoder) -> Result<Role, String> {
    let names = &decoder.inputs;
    let is = |told: &Option<String>, usual: &str| spec.name == told.as_deref().unwrap_or(usual);
    let of_rank_two = |role: Role, integers: bool| match &spec.dims {
        Some(dims) if dims.len() != 2 => Err("expected the axes batch and sequence".to_owned()),
        _ if integers && !spec.element.is_integer() => Err(format!("it is {}, expected integers", spec.element)),
        _ => Ok(role),
    };
    if is(&names.input_ids, "input_ids") {
        of_rank_two(Role::Tokens, true)
    } else if is(&names.attention_mask, "attention_mask") {
        of_rank_two(Role::Mask, false)
    } else if is(&names.position_ids, "position_ids") {
        of_rank_two(Role::Positions, true)
    } else if spec.name == "token_type_ids" {
        of_rank_two(Role::Types, true)
    } else if decoder.is_cache(&spec.name) {
        cache(spec, decoder).map(Role::Cache)
    } else {
        Err("only input_ids, attention_mask, position_ids, token_type_ids and caches follow from a text".to_owned())
    }
}

/// The shape of a cache of no tokens: `[batch, heads, past, size of a head]`, perhaps for keys and values together.
fn cache(spec: &InputSpec, decoder: &GenaiDecoder) -> Result<Vec<usize>, String> {
    if spec.name.contains("encoder") {
        return Err("it holds what an encoder makes of another input".to_owned());
    }
    let dims = spec.dims.as_deref().unwrap_or_default();
    let Some(first) = dims.len().checked_sub(4).filter(|&first| first <= 1) else {
        return Err("expected the axes batch, heads, past and head size".to_owned());
    };
    let given = [Some(1), decoder.num_key_value_heads, Some(0), decoder.head_size];
    let names = ["batch", "num_key_value_heads", "past", "head_size"];
    let mut shape = vec![2; first];
    for ((dim, given), name) in dims.iter().skip(first).zip(given).zip(names) {
        shape.push(match (dim, given) {
            (Dim::Fixed(length), Some(0)) if *length > 0 => {
                return Err(format!("it holds {length} tokens, of which nothing is known"));
            }
            (Dim::Fixed(length), _) => *length,
            (_, Some(length)) => length,
            (_, None) => return Err(format!("neither the graph nor genai_config.json tells its {name}")),
        });
    }
    Ok(shape)
}

/// The axis along which a cache of this rank counts tokens.
pub(crate) fn past_axis(rank: usize) -> Option<usize> {
    rank.checked_sub(PAST_FROM_END).filter(|_| rank >= 4)
}

/// An array `[1, n]`.
fn row(numbers: impl Iterator<Item = i64>) -> Tensor {
    let numbers: Vec<i64> = numbers.collect();
    let shape = [1, numbers.len()];
    Tensor::I64(ArrayD::from_shape_fn(IxDyn(&shape), |at| numbers[at[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, element: ElementType, dims: &[&str]) -> InputSpec {
        let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Symbolic((*text).to_owned()), Dim::Fixed);
        InputSpec { name: name.into(), element, dims: Some(dims.iter().map(dim).collect()), optional: false }
    }

    fn window(tokens: &[u32], filling: usize) -> Window {
        Window { tokens: tokens.to_vec(), filling, past: 0 }
    }

    #[test]
    fn inputs_of_a_decoder_are_made() {
        let inputs = [
            spec("past_key_values.0.key", ElementType::F16, &["batch", "3", "past", "size"]),
            spec("input_ids", ElementType::I64, &["batch", "length"]),
            spec("attention_mask", ElementType::Bool, &["batch", "total"]),
            spec("position_ids", ElementType::I32, &["batch", "length"]),
            spec("past_1", ElementType::F32, &["2", "batch", "heads", "past", "5"]),
        ];
        let decoder = GenaiDecoder { head_size: Some(8), num_key_value_heads: Some(2), ..GenaiDecoder::default() };
        let made = TextInputs::new(Path::new("t"), &inputs, &decoder).unwrap();
        assert!(made.has_caches() && !made.has_types() && made.length().is_none());
        let window = window(&[7, 9], 0);
        let shapes: Vec<Vec<usize>> = made.shapes(&window).into_iter().map(|(_, shape)| shape).collect();
        assert_eq!(shapes, [vec![1, 3, 0, 8], vec![1, 2], vec![1, 2], vec![1, 2], vec![2, 1, 2, 0, 5]]);
        let values = made.values(&inputs, &window);
        let found: Vec<&[usize]> = values.iter().map(|(_, tensor)| tensor.shape()).collect();
        assert_eq!(found, shapes.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(values[1].1, row([7, 9].into_iter()));
        assert_eq!(values[2].1, Tensor::Bool(ArrayD::from_elem(IxDyn(&[1, 2]), true)));
        assert_eq!(values[3].1, row([0, 1].into_iter()));
        let behind = Window { past: 3, ..window };
        let shapes: Vec<Vec<usize>> = made.shapes(&behind).into_iter().map(|(_, shape)| shape).collect();
        assert_eq!(shapes, [vec![1, 3, 3, 8], vec![1, 2], vec![1, 5], vec![1, 2], vec![2, 1, 2, 3, 5]]);
        let values = made.values(&inputs, &behind);
        assert_eq!((values.len(), values[1].1.shape()), (3, &[1, 5][..]));
        assert_eq!(values[2].1, row([3, 4].into_iter()));
    }

    #[test]
    fn filled_up_texts_have_a_mask() {
        let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(|n| spec(n, ElementType::I64, &["b", "3"]));
        let made = TextInputs::new(Path::new("t"), &inputs, &GenaiDecoder::default()).unwrap();
        assert!(made.has_types() && !made.has_caches() && made.length() == Some(3));
        let values = made.values(&inputs, &window(&[4, 5, 0], 1));
        assert_eq!(values[1].1, row([1, 1, 0].into_iter()));
        assert_eq!(values[2].1, row([0; 3].into_iter()));
    }

    #[test]
    fn inputs_that_do_not_follow_from_a_text_are_named() {
        let ids = || spec("input_ids", ElementType::I64, &["b", "n"]);
        let float = |name: &str, dims: &[&str]| spec(name, ElementType::F32, dims);
        let rows = [
            (vec![ids(), float("pixel_values", &["b", "3"])], "`pixel_values`"),
            (vec![ids(), float("past_key_values.0.key", &["b", "h", "p", "8"])], "num_key_value_heads"),
            (vec![ids(), float("past_key_values.0.key", &["b", "2", "p", "d"])], "head_size"),
            (vec![ids(), float("past_key_values.0.key", &["b", "2", "6", "8"])], "it holds 6 tokens"),
            (vec![ids(), float("past_key_values.0.encoder.key", &["b", "2", "p", "8"])], "what an encoder makes"),
            (vec![ids(), float("past_0", &["b", "8"])], "the axes batch, heads"),
            (vec![float("input_ids", &["b", "n"])], "expected integers"),
            (vec![spec("position_ids", ElementType::I64, &["b", "n"])], "none of the inputs"),
        ];
        for (inputs, expected) in rows {
            let error = TextInputs::new(Path::new("t.txt"), &inputs, &GenaiDecoder::default()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("t.txt"), "{error}");
        }
        let named = InputSpec { optional: true, ..float("scale", &["1"]) };
        assert!(TextInputs::new(Path::new("t"), &[ids(), named], &GenaiDecoder::default()).is_ok());
    }
}
