//! The trained models in `fixtures/`.

use std::path::PathBuf;

use onnxquant::calib::Split;

/// How many a fixture has.
const SAMPLES: usize = 48;

/// A model with samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// Its folder in `fixtures/`.
    pub name: &'static str,
    /// Gemm and MatMul nodes with a constant weight.
    pub n_dense: u64,
    /// Conv nodes.
    pub n_conv: u64,
}

impl Fixture {
    pub const MLP: Self = Self { name: "digits_mlp", n_dense: 3, n_conv: 0 };
    pub const CNN: Self = Self { name: "mnist_cnn", n_dense: 1, n_conv: 5 };
    pub const CONV1D: Self = Self { name: "digits_conv1d", n_dense: 1, n_conv: 4 };
    pub const TRANSFORMER: Self = Self { name: "digits_transformer", n_dense: 14, n_conv: 0 };
    pub const TRANSFORMER_OP14: Self = Self { name: "digits_transformer_op14", n_dense: 14, n_conv: 0 };
    /// Wide enough that layers on codes save time; in no table of all fixtures, for it takes longer than these.
    pub const RESNET: Self = Self { name: "digits_resnet", n_dense: 2, n_conv: 9 };
    pub const ALL: [Self; 5] = [Self::MLP, Self::CNN, Self::CONV1D, Self::TRANSFORMER, Self::TRANSFORMER_OP14];

    fn folder(self) -> PathBuf {
        super::root().join("fixtures").join(self.name)
    }

    /// The float model.
    pub fn model(self) -> PathBuf {
        self.folder().join("model.onnx")
    }

    /// The folder of calibration samples.
    pub fn calib(self) -> PathBuf {
        self.folder().join("calib")
    }

    /// One calibration sample.
    pub fn sample(self, index: usize) -> PathBuf {
        self.calib().join(format!("{index:04}.npz"))
    }

    /// The samples that are held out, of all.
    pub fn held_out(self) -> Vec<PathBuf> {
        self.held_out_of(SAMPLES)
    }

    /// The samples that are held out where so many are used.
    pub fn held_out_of(self, used: usize) -> Vec<PathBuf> {
        let sample = |at: usize| self.sample(at * SAMPLES / used);
        Split::of(used).held_out.into_iter().map(sample).collect()
    }

    /// The samples that are not held out, of all.
    pub fn seen(self) -> Vec<PathBuf> {
        Split::of(SAMPLES).seen(SAMPLES).into_iter().map(|at| self.sample(at)).collect()
    }

    /// Labelled samples.
    pub fn test_set(self) -> PathBuf {
        self.folder().join("test.npz")
    }
}
