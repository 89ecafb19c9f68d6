//! The shape of a convolution.

use crate::error::QuantError;

/// What a padded convolution reads beyond its input's border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Zeros before and after, one number per spatial dimension.
    Explicit {
        /// Zeros before the first element.
        begin: Vec<usize>,
        /// Zeros after the last element.
        end: Vec<usize>,
    },
    /// Output size `ceil(input / stride)`; an odd zero goes to the end.
    SameUpper,
    /// Output size `ceil(input / stride)`; an odd zero goes to the beginning.
    SameLower,
    /// No zeros.
    Valid,
}

/// A convolution in any number of spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Number of groups.
    pub groups: usize,
    /// Output channels of all groups together.
    pub out_channels: usize,
    /// Input channels of all groups together.
    pub in_channels: usize,
    /// Kernel size per spatial dimension.
    pub kernel: Vec<usize>,
    /// Stride per spatial dimension.
    pub strides: Vec<usize>,
    /// Dilation per spatial dimension.
    pub dilations: Vec<usize>,
    /// Zeros around the input.
    pub padding: Padding,
}

/// No kernel, stride, dilation or padding of a real operator is larger, and
/// products of two such numbers cannot overflow.
pub(crate) const LARGEST: usize = 1 << 24;

/// Along one spatial dimension: what is read and what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Zeros before the first input element.
    pub(crate) before: usize,
    /// Output positions.
    pub(crate) output: usize,
}

impl ConvGeometry {
    /// Checks that all fields fit together.
    pub fn check(&self) -> Result<(), QuantError> {
        let rank = self.kernel.len();
        let fault = |text: String| Err(QuantError::Geometry(text));
        if rank == 0 {
            return fault("the kernel has no spatial dimension".into());
        }
        let mut lists = vec![("strides", &self.strides), ("dilations", &self.dilations)];
        if let Padding::Explicit { begin, end } = &self.padding {
            lists.extend([("pads at the begin", begin), ("pads at the end", end)]);
        }
        for (name, list) in &lists {
            if list.len() != rank {
                return fault(format!("{name} are {list:?}, expected {rank} numbers"));
            }
        }
        let positive = [("kernel", &self.kernel), lists[0], lists[1]];
        for (name, list) in positive {
            if list.iter().any(|n| *n == 0 || *n > LARGEST) {
                return fault(format!("{name} is {list:?}, expected numbers from 1 to {LARGEST}"));
            }
        }
        for (name, list) in &lists {
            if list.iter().any(|n| *n > LARGEST) {
                return fault(format!("{name} are {list:?}, expected at most {LARGEST}"));
            }
        }
        for (name, channels) in [("output", self.out_channels), ("input", self.in_channels)] {
            if self.groups == 0 || channels == 0 || channels % self.groups != 0 {
                let groups = self.groups;
                return fault(format!("{channels} {name} channels in {groups} groups, expected a positive multiple"));
            }
        }
        Ok(())
    }

    /// Input channels of one group.
    pub(crate) fn group_channels(&self) -> usize {
        self.in_channels / self.groups.max(1)
    }

    /// Elements that a kernel spans along one spatial dimension, less one.
    pub(crate) fn reach(&self, dim: usize) -> usize {
        (self.kernel[dim] - 1) * self.dilations[dim]
    }

    /// Output size and leading padding along one spatial dimension.
    pub(crate) fn extent(&self, dim: usize, input: usize) -> Result<Extent, QuantError> {
        let reach = self.reach(dim) + 1;
        let stride = self.strides[dim];
        let (before, padded) = match &self.padding {
            Padding::Explicit { begin, end } => (begin[dim], input + begin[dim] + end[dim]),
            Padding::Valid => (0, input),
            same => {
                let output = input.div_ceil(stride);
                let needed = (output.max(1) - 1) * stride + reach;
                let total = needed.saturating_sub(input);
                let before = match same {
                    Padding::SameLower => total.div_ceil(2),
                    _ => total / 2,
                };
                return Ok(Extent { before, output });
            }
        };
        if padded < reach {
            return Err(QuantError::Geometry(format!(
                "spatial dimension {dim} has {padded} elements with padding, \
                 expected at least the {reach} that the kernel spans"
            )));
        }
        let output = (padded - reach) / stride + 1;
        Ok(Extent { before, output })
    }
}
