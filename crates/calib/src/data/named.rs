//! Files of arrays that have names, and which inputs these feed.

use std::path::{Path, PathBuf};

use super::npy;
use super::npz::{self, NamedTensors};
use super::part::Part;
use super::{InputSpec, safetensors};
use crate::error::{CalibError, FormatError};
use crate::tensor::ElementType;

/// The arrays of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedFile {
    Npz(Part),
    Safetensors(Part),
    /// Members of an archive with one stem, an array each; the name of one that has none is empty.
    Npys {
        label: PathBuf,
        arrays: Vec<(String, Part)>,
    },
}

/// Name, type and shape of an array.
pub(crate) type Described = (String, ElementType, Vec<usize>);

impl NamedFile {
    /// What messages call it.
    pub(crate) fn label(&self) -> &Path {
        match self {
            Self::Npz(part) | Self::Safetensors(part) => part.label(),
            Self::Npys { label, .. } => label,
        }
    }

    /// What it is, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Npz(_) => "npz",
            Self::Safetensors(_) => "safetensors",
            Self::Npys { .. } => "npy",
        }
    }

    /// Its arrays, without their values.
    pub(crate) fn headers(&self) -> Result<Vec<Described>, CalibError> {
        let malformed = |source| CalibError::Malformed { path: self.label().into(), source };
        match self {
            Self::Npz(part) => {
                let headers = npz::read_headers(part.open()?).map_err(malformed)?;
                Ok(headers.into_iter().map(|(name, header)| (name, header.element, header.shape)).collect())
            }
            Self::Safetensors(part) => {
                let mut reader = part.open()?;
                let length = reader.get_ref().length();
                let stored = safetensors::read_header(&mut reader, length).map_err(malformed)?;
                Ok(stored.into_iter().map(|array| (array.name, array.element, array.shape)).collect())
            }
            Self::Npys { arrays, .. } => {
                let read = |(name, part): &(String, Part)| {
                    let (header, _) = npy_header(part, u64::MAX)?;
                    Ok((name.clone(), header.element, header.shape))
                };
                arrays.iter().map(read).collect()
            }
        }
    }

    /// The arrays whose names `wanted` accepts, together at most `limit` bytes.
    pub(crate) fn arrays(&self, limit: u64, wanted: impl Fn(&str) -> bool) -> Result<NamedTensors, CalibError> {
        let malformed = |source| CalibError::Malformed { path: self.label().into(), source };
        match self {
            Self::Npz(part) => npz::read_arrays(part.open()?, limit, wanted).map_err(malformed),
            Self::Safetensors(part) => {
                let mut reader = part.open()?;
                let length = reader.get_ref().length();
                safetensors::read_arrays(&mut reader, length, limit, wanted).map_err(malformed)
            }
            Self::Npys { arrays, .. } => {
                let mut left = limit;
                let mut found = Vec::new();
                for (name, part) in arrays.iter().filter(|(name, _)| wanted(name)) {
                    let (header, bytes) = npy_header(part, left)?;
                    left -= bytes as u64;
                    let mut reader = part.open()?;
                    let tensor =
                        npy::read_header(&mut reader).and_then(|_| npy::read_elements(&mut reader, &header, bytes));
                    found.push((name.clone(), tensor.map_err(|source| in_part(part, source))?));
                }
                Ok(found)
            }
        }
    }
}

/// The header of an array, and how many bytes follow it.
fn npy_header(part: &Part, limit: u64) -> Result<(npy::Header, usize), CalibError> {
    let mut reader = part.open()?;
    let length = reader.get_ref().length();
    let read = npy::read_header(&mut reader);
    let checked = read.and_then(|header| {
        let bytes = header.check_size(length.saturating_sub(header.data_offset), limit)?;
        Ok((header, bytes))
    });
    checked.map_err(|source| in_part(part, source))
}

fn in_part(part: &Part, source: FormatError) -> CalibError {
    CalibError::Malformed { path: part.label().into(), source }
}

/// Which arrays feed which inputs, where their names differ.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Names of arrays, with those of inputs; empty for arrays that feed none.
    given: Vec<(String, String)>,
    /// The input that arrays without a name feed.
    single: Option<String>,
}

impl Names {
    /// Those for the inputs of a graph.
    pub(crate) fn new(
        path: &Path,
        given: &[(String, String)],
        inputs: &[InputSpec],
        single: Option<&InputSpec>,
    ) -> Result<Self, CalibError> {
        let is_known = |input: &String| input.is_empty() || inputs.iter().any(|spec| spec.name == *input);
        match given.iter().find(|(_, input)| !is_known(input)) {
            None => Ok(Self { given: given.to_vec(), single: single.map(|spec| spec.name.clone()) }),
            Some((array, input)) => Err(CalibError::NoSuchInput {
                path: path.into(),
                array: array.clone(),
                name: input.clone(),
                inputs: inputs.iter().map(|spec| spec.name.clone()).collect(),
            }),
        }
    }

    /// The input that an array feeds; none where it is left out.
    pub(crate) fn input<'a>(&'a self, array: &'a str) -> Option<&'a str> {
        let given = self.given.iter().find(|(name, _)| name == array).map(|(_, input)| input.as_str());
        let single = self.single.as_deref().filter(|_| array.is_empty());
        Some(given.or(single).unwrap_or(array)).filter(|input| !input.is_empty() || array.is_empty())
    }

    /// Arrays that were named and are not among these.
    pub(crate) fn missing<'a>(&'a self, arrays: &[Described]) -> Option<&'a str> {
        let has = |array: &&(String, String)| !arrays.iter().any(|(name, _, _)| *name == array.0);
        self.given.iter().find(has).map(|(array, _)| array.as_str())
    }
}
