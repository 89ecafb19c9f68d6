//! How the inputs of a layer moved when the layers before it were quantized; gathered by
//! [`PairedAccumulator`](crate::PairedAccumulator).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

/// How the inputs of a layer moved when the layers before it were quantized.
#[derive(Clone, Debug)]
pub struct Drift {
    pub(crate) cross: Array2<f32>,
    pub(crate) own: Array2<f32>,
    pub(crate) mean: Array1<f64>,
}

impl Drift {
    /// `B = X~^T D / n`: row index from `X~`, column index from `D`.
    pub fn cross(&self) -> ArrayView2<'_, f32> {
        self.cross.view()
    }

    /// `S = D^T D / n`, both triangles.
    pub fn own(&self) -> ArrayView2<'_, f32> {
        self.own.view()
    }

    /// The mean of `D`.
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }
}
