//! The attributes that Conv and ConvTranspose share.

use onnxquant_ir::Node;
use onnxquant_quant::{ConvGeometry, Padding};

use super::skip_reason::SkipReason;

/// Reads the attributes of `node`, whose kernel these numbers are the sizes of.
pub(super) struct Window<'a> {
    pub(super) node: &'a Node,
    pub(super) kernel: &'a [usize],
}

/// A weight of at least three dimensions: its first two, and the kernel.
pub(super) fn kernel(shape: &[usize]) -> Result<(usize, usize, &[usize]), SkipReason> {
    match shape {
        [first, second, kernel @ ..] if !kernel.is_empty() => Ok((*first, *second, kernel)),
        _ => Err(SkipReason::Rank { shape: shape.to_vec(), expected: "at least three dimensions" }),
    }
}

pub(super) fn problem(problem: impl Into<String>) -> SkipReason {
    SkipReason::Geometry { problem: problem.into() }
}

/// Whether no window reaches beyond the edges of the input.
pub(super) fn is_unpadded(conv: &Node) -> bool {
    let zeros = conv.ints("pads").unwrap_or_default().iter().all(|&pad| pad == 0);
    matches!(conv.text("auto_pad", "NOTSET"), "NOTSET" | "" | "VALID") && zeros
}

impl Window<'_> {
    /// The numbers of an attribute, if it is there.
    pub(super) fn given(&self, name: &str, count: usize) -> Result<Option<Vec<usize>>, SkipReason> {
        let Some(found) = self.node.ints(name).filter(|list| !list.is_empty()) else { return Ok(None) };
        let list = found.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>();
        let list = list.filter(|list| list.len() == count);
        list.map(Some).ok_or_else(|| problem(format!("{name} is {found:?}")))
    }

    /// The numbers of an attribute, one a spatial dimension, each `default` where it is absent.
    pub(super) fn sizes(&self, name: &str, default: usize) -> Result<Vec<usize>, SkipReason> {
        Ok(self.given(name, self.kernel.len())?.unwrap_or_else(|| vec![default; self.kernel.len()]))
    }

    pub(super) fn groups(&self) -> Result<usize, SkipReason> {
        let group = self.node.int("group", 1);
        let groups = usize::try_from(group).ok().filter(|&groups| groups > 0);
        groups.ok_or_else(|| problem(format!("group is {group}")))
    }

    /// The geometry of a weight of this shape; `channels` are the inputs and outputs of all groups.
    pub(super) fn geometry(&self, shape: &[usize], channels: [Option<usize>; 2]) -> Result<ConvGeometry, SkipReason> {
        let rank = self.kernel.len();
        if self.given("kernel_shape", rank)?.is_some_and(|declared| declared != self.kernel) {
            return Err(problem(format!("kernel_shape differs from the weight's shape {shape:?}")));
        }
        let groups = self.groups()?;
        let [Some(in_channels), Some(out_channels)] = channels else { return Err(problem("group overflows")) };
        let padding = self.padding()?;
        let (strides, dilations) = (self.sizes("strides", 1)?, self.sizes("dilations", 1)?);
        let kernel = self.kernel.to_vec();
        Ok(ConvGeometry { groups, out_channels, in_channels, kernel, strides, dilations, padding })
    }

    fn padding(&self) -> Result<Padding, SkipReason> {
        let rank = self.kernel.len();
        match self.node.text("auto_pad", "NOTSET") {
            "SAME_UPPER" => Ok(Padding::SameUpper),
            "SAME_LOWER" => Ok(Padding::SameLower),
            "VALID" => Ok(Padding::Valid),
            other if !matches!(other, "NOTSET" | "") => Err(problem(format!("auto_pad is `{other}`"))),
            _ => {
                let pads = self.given("pads", 2 * rank)?.unwrap_or_else(|| vec![0; 2 * rank]);
                let (begin, end) = pads.split_at(rank);
                Ok(Padding::Explicit { begin: begin.to_vec(), end: end.to_vec() })
            }
        }
    }
}
