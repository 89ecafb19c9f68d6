//! Measures candidates and picks.
//!
//! Rules take a [`measure::Measure`], which scores candidates, and hand back values: they are tested with scores that are
//! made up.
//!
//! | file | what it decides |
//! |---|---|
//! | `budget` | the bits of every layer, where a budget is given, before all are solved |
//! | `bits` | how bits are shared out among layers |
//! | `mend` | which layers' weights get more bits or stay in float, where their codes cost the accuracy that is asked for |
//! | `sweep` | what layers do at every width, by which they are |
//! | `curve` | what bits buy, as that tells |
//! | `sketch` | quick codes by which that is found |
//! | `fit` | how many layers run on integers in the end |
//! | `integers` | which layers run on integers, and on which scales, by the steps below |
//! | `forms` | which weights become floats when the model loads, for speed |
//! | `fastest` | the assignment that takes the least time |
//! | `rescale` | channels of values that are quantized at run time |
//! | `equalize` | even channels where what makes a tensor can take the factors |
//! | `distributions`, `mixing` | what tensors hold, and which operators a common scale would spoil |
//! | `ranges` | how ranges are found, by the error of the outputs on validation samples |
//! | `hold`, `fewest` | the fewest that go back for a figure of the user's own |
//! | `retreat`, `goal` | layers that go back to float until the outputs are as exact as asked |
//! | `decided`, `trail` | what was decided, and what was tried |

mod bits;
pub(crate) mod budget;
pub(crate) mod curve;
pub(crate) mod decided;
mod distributions;
mod equalize;
pub(crate) mod fastest;
mod fewest;
mod fit;
pub(crate) mod forms;
pub(crate) mod goal;
mod hold;
pub(crate) mod integers;
mod measure;
mod mend;
mod mixing;
mod ranges;
mod rescale;
mod retreat;
mod sketch;
mod sweep;
#[cfg(test)]
mod testing;
pub(crate) mod trail;
