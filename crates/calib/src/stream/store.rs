//! Values of many samples, in memory up to a limit and in a temporary file beyond it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use ndarray::{ArrayD, IxDyn};

use super::cut::Keep;
use crate::error::CalibError;
use crate::tensor::{ElementType, Tensor};

/// What is kept of one value of one sample.
#[derive(Debug)]
pub(crate) enum Slot {
    Memory(Tensor),
    /// 32-bit floats in the file.
    File {
        offset: u64,
        shape: Vec<usize>,
    },
    /// Elements do not matter.
    Shape(ElementType, Vec<usize>),
}

impl Slot {
    pub(crate) fn new(tensor: Tensor, keep: Keep) -> Self {
        match keep {
            Keep::Elements => Self::Memory(tensor),
            Keep::Shape => Self::Shape(tensor.element_type(), tensor.shape().to_vec()),
        }
    }

    pub(super) fn element_type(&self) -> ElementType {
        match self {
            Self::Memory(tensor) => tensor.element_type(),
            Self::File { .. } => ElementType::F32,
            Self::Shape(element_type, _) => *element_type,
        }
    }

    /// Bytes that it takes in memory.
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Memory(tensor) => tensor.len() * tensor.element_type().bytes(),
            Self::File { .. } | Self::Shape(..) => 0,
        }
    }

    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Memory(tensor) => tensor.shape(),
            Self::File { shape, .. } | Self::Shape(_, shape) => shape,
        }
    }
}

/// The file, which has no name and goes with the last handle.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    file: Mutex<Option<File>>,
}

impl Spill {
    /// Appends the elements of an array; returns where they begin.
    fn append(&self, array: &ArrayD<f32>) -> Result<u64, CalibError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut write = || {
            let file = match &mut *file {
                Some(file) => file,
                None => file.insert(tempfile::tempfile()?),
            };
            let offset = file.seek(SeekFrom::End(0))?;
            match array.as_slice() {
                Some(elements) => file.write_all(bytemuck::cast_slice(elements))?,
                None => file.write_all(bytemuck::cast_slice(&array.iter().copied().collect::<Vec<f32>>()))?,
            }
            Ok(offset)
        };
        write().map_err(CalibError::Spill)
    }

    fn read(&self, offset: u64, shape: &[usize]) -> Result<Tensor, CalibError> {
        let mut elements = vec![0.0_f32; shape.iter().product()];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = || {
            let file = file.as_mut().ok_or_else(|| std::io::Error::other("nothing was written"))?;
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(bytemuck::cast_slice_mut(&mut elements))
        };
        read().map_err(CalibError::Spill)?;
        drop(file);
        let array = ArrayD::from_shape_vec(IxDyn(shape), elements);
        Ok(Tensor::F32(array.expect("as many bytes were read as the shape has elements")))
    }

    /// The value of a slot, which keeps it.
    pub(crate) fn copy(&self, slot: &Slot) -> Result<Tensor, CalibError> {
        match slot {
            Slot::Memory(tensor) => Ok(tensor.clone()),
            Slot::File { offset, shape } => self.read(*offset, shape),
            Slot::Shape(element_type, shape) => Ok(Tensor::zeros(*element_type, shape)),
        }
    }

    /// The value of a slot, which gives it up if it is in memory.
    pub(super) fn take(&self, slot: Slot) -> Result<Tensor, CalibError> {
        match slot {
            Slot::Memory(tensor) => Ok(tensor),
            Slot::File { offset, shape } => self.read(offset, &shape),
            Slot::Shape(element_type, shape) => Ok(Tensor::zeros(element_type, &shape)),
        }
    }
}

/// Slots by sample, by value.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) slots: Vec<Vec<Slot>>,
    pub(crate) spill: Spill,
    limit_bytes: usize,
    used_bytes: usize,
}

impl Store {
    /// For so many samples, of which at most `limit_bytes` are kept in memory.
    pub(crate) fn new(samples: usize, limit_bytes: usize) -> Self {
        let slots = (0..samples).map(|_| Vec::new()).collect();
        Self { slots, spill: Spill::default(), limit_bytes, used_bytes: 0 }
    }

    /// An empty one of the same kind.
    pub(super) fn successor(&self) -> Self {
        Self::new(self.slots.len(), self.limit_bytes)
    }

    /// Makes place for more samples.
    pub(super) fn grow(&mut self, samples: usize) {
        self.slots.resize_with(self.slots.len() + samples, Vec::new);
    }

    /// Takes in the values of one sample.
    pub(crate) fn put(&mut self, sample: usize, tensors: Vec<Slot>) -> Result<(), CalibError> {
        self.used_bytes += tensors.iter().map(Slot::memory_bytes).sum::<usize>();
        let full = self.used_bytes > self.limit_bytes;
        let stored = tensors.into_iter().map(|slot| match slot {
            Slot::Memory(Tensor::F32(array)) if full => {
                self.used_bytes -= 4 * array.len();
                let offset = self.spill.append(&array)?;
                Ok(Slot::File { offset, shape: array.shape().to_vec() })
            }
            slot => Ok(slot),
        });
        self.slots[sample] = stored.collect::<Result<_, CalibError>>()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_comes_back_from_the_file() {
        let tensor = |n: usize| Tensor::F32(ArrayD::from_shape_fn(IxDyn(&[2, n]), |i| (10 * i[0] + i[1]) as f32));
        let integers = Tensor::I64(ArrayD::zeros(IxDyn(&[4])));
        let mut store = Store::new(3, 100);
        for sample in 0..3 {
            let shape = Slot::Shape(ElementType::U8, vec![7]);
            let slots = vec![Slot::Memory(tensor(5 + sample)), Slot::Memory(integers.clone()), shape];
            store.put(sample, slots).unwrap();
        }
        let in_file = |sample: usize| matches!(store.slots[sample][0], Slot::File { .. });
        assert_eq!([in_file(0), in_file(1), in_file(2)], [false, true, true]);
        let (slots, spill) = (store.slots, store.spill);
        for (sample, slots) in slots.into_iter().enumerate() {
            let shapes: Vec<Vec<usize>> = slots.iter().map(|slot| slot.shape().to_vec()).collect();
            let tensors: Vec<Tensor> = slots.into_iter().map(|slot| spill.take(slot).unwrap()).collect();
            assert_eq!(tensors, [tensor(5 + sample), integers.clone(), Tensor::zeros(ElementType::U8, &[7])]);
            assert_eq!(shapes, [vec![2, 5 + sample], vec![4], vec![7]]);
        }
    }
}
