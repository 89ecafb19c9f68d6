//! Reads samples from where they lie.

use std::borrow::Cow;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ndarray::Axis;
use onnxquant_storage::{Opened, foresee, read_at_most};

use super::check::{check_header, convert, empty_array, wrong_shape};
use super::discover::Found;
use super::kind::{Kind, Place};
use super::masks::{Mask, Shown};
use super::named::{NamedFile, Names};
use super::npy::{Header, read_elements, read_header};
use super::part::Part;
use super::picture::{ImageBase, ImageOptions, Preparation};
use super::sound::SoundPreparation;
use super::source::Source;
use super::tensor_proto::read_tensor_proto;
use super::text::{TEXT_SAMPLES, read_windows};
use super::text_inputs::{TextInputs, Window};
use super::{DataOptions, InputSpec};
use crate::error::{CalibError, FormatError};
use crate::tensor::{Tensor, with_array};

/// Reads sources of one data set.
#[derive(Debug)]
pub(crate) struct SourceReader {
    inputs: Vec<InputSpec>,
    /// Index of the input that files with a single array feed.
    single: Option<usize>,
    /// The input that takes the mask of a picture or a sound.
    mask: Option<Mask>,
    picture: Option<Preparation>,
    sound: Option<SoundPreparation>,
    text: Option<TextInputs>,
    names: Names,
    limit: u64,
}

impl SourceReader {
    pub(crate) fn new(
        found: &Found,
        path: &Path,
        inputs: &[InputSpec],
        options: &DataOptions,
    ) -> Result<Self, CalibError> {
        let kind = found.kind;
        let is_archive = found.places.iter().any(|place| matches!(place, Place::Named(NamedFile::Npys { .. })));
        let is_shown = matches!(kind, Kind::Picture | Kind::Sound);
        let mask = if is_shown { Mask::among(inputs) } else { None };
        let is_mask = |index: usize| mask.as_ref().is_some_and(|mask| mask.index == index);
        let mut required = inputs.iter().enumerate().filter(|(index, i)| !i.optional && !is_mask(*index));
        let single = match (required.next(), required.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        };
        let is_single = is_shown || (kind == Kind::Npy && !is_archive);
        if is_single && single.is_none() {
            let inputs = inputs.iter().filter(|i| !i.optional).map(|i| i.name.clone()).collect();
            return Err(CalibError::OneArrayManyInputs { path: path.into(), inputs });
        }
        let picture = match (kind, single, &options.image) {
            (Kind::Picture, Some(index), _) => Some(Preparation::new(&inputs[index], path, options)?),
            // The configuration of a processor is for sounds as well.
            (Kind::Sound, _, Some(ImageOptions { base: ImageBase::Processor(path), .. }))
                if options.image.as_ref().is_some_and(|image| image.is_only_of(path)) =>
            {
                None
            }
            (_, _, Some(_)) => return Err(CalibError::NoPictures { path: path.into() }),
            _ => None,
        };
        let sound = match (kind, single) {
            (Kind::Sound, Some(index)) => Some(SoundPreparation::new(&inputs[index], path, options)?),
            _ => None,
        };
        let text = match kind {
            Kind::Text => Some(TextInputs::new(path, inputs, &options.decoder()?)?),
            _ if options.text.is_some() => return Err(CalibError::NoTexts { path: path.into() }),
            _ => None,
        };
        let has_names = matches!(kind, Kind::Npz | Kind::Safetensors) || (kind == Kind::Npy && is_archive);
        if !has_names && !options.names.is_empty() {
            return Err(CalibError::NoNames { path: path.into() });
        }
        let names = Names::new(path, &options.names, inputs, single.map(|index| &inputs[index]))?;
        Ok(Self { inputs: inputs.to_vec(), single, mask, picture, sound, text, names, limit: options.max_sample_bytes })
    }

    /// The samples that lie in places.
    pub(crate) fn sources(
        &self,
        kind: Kind,
        places: Vec<Place>,
        options: &DataOptions,
    ) -> Result<Vec<Source>, CalibError> {
        let mut sources = Vec::with_capacity(places.len());
        if kind == Kind::Npy {
            let file = |place: &Place| if let Place::Part(part) = place { Some(part.file().to_owned()) } else { None };
            foresee(&places.iter().filter_map(file).collect::<Vec<_>>());
        }
        for place in places {
            match (kind, place) {
                (_, Place::TestData(files)) => sources.push(Source::TestData(files)),
                (_, Place::Named(file)) => sources.push(Source::Named(file)),
                (Kind::Picture, Place::Part(part)) => sources.push(Source::Picture(part)),
                (Kind::Sound, Place::Part(part)) => sources.push(Source::Sound(part)),
                (Kind::Text, Place::Part(part)) => sources.extend(self.windows(part.label(), options)?),
                (_, Place::Part(part)) => self.split_npy(part.label().to_owned(), &mut sources)?,
            }
        }
        Ok(sources)
    }

    /// Samples made of the texts in a file.
    fn windows(&self, path: &Path, options: &DataOptions) -> Result<impl Iterator<Item = Source>, CalibError> {
        let windows = read_windows(path, self.text_inputs(), options, options.samples.unwrap_or(TEXT_SAMPLES))?;
        let path = path.to_owned();
        let source = move |(number, window)| Source::Text { path: path.clone(), number, window, caches: None };
        Ok(windows.into_iter().enumerate().map(source))
    }

    fn single_spec(&self) -> (usize, &InputSpec) {
        let index = self.single.expect("files with one array are only accepted with one required input");
        (index, &self.inputs[index])
    }

    /// What samples become, in words.
    pub(crate) fn prepared(&self) -> Option<String> {
        let sound = self.sound.as_ref().map(SoundPreparation::describe);
        self.picture.as_ref().map(Preparation::describe).or(sound)
    }

    /// Values that no model is fed with, from what is done to samples alone.
    pub(crate) fn unlikely(&self) -> Option<String> {
        self.picture.as_ref().and_then(Preparation::unlikely)
    }

    fn listening(&self) -> &SoundPreparation {
        self.sound.as_ref().expect("made with the reader for sets of sounds")
    }

    fn preparation(&self) -> &Preparation {
        self.picture.as_ref().expect("made with the reader for sets of pictures")
    }

    /// Refuses a made sample of more bytes than the limit.
    fn check_bytes(&self, path: &Path, shape: &[usize]) -> Result<(), CalibError> {
        let bytes = self.single_spec().1.element.bytes() as u64;
        let needed = shape.iter().fold(bytes, |bytes, &length| bytes.saturating_mul(length as u64));
        match needed <= self.limit {
            true => Ok(()),
            false => {
                let source = FormatError::TooLarge { needed, limit: self.limit };
                Err(CalibError::Malformed { path: path.into(), source })
            }
        }
    }

    /// The name of an input.
    pub(crate) fn name(&self, input: usize) -> Option<&str> {
        self.inputs.get(input).map(|spec| spec.name.as_str())
    }

    /// What inputs of sets of texts hold.
    pub(crate) fn text(&self) -> Option<&TextInputs> {
        self.text.as_ref()
    }

    fn text_inputs(&self) -> &TextInputs {
        self.text.as_ref().expect("made with the reader for sets of texts")
    }

    /// One source for each row of an array with a batch of rows, else one for the array.
    fn split_npy(&self, path: PathBuf, sources: &mut Vec<Source>) -> Result<(), CalibError> {
        let malformed = |source| CalibError::Malformed { path: path.clone(), source };
        let mut file = open(&path)?;
        let length = file.get_ref().length();
        let header = read_header(&mut file).map_err(malformed)?;
        header.check_size(length.saturating_sub(header.data_offset), u64::MAX).map_err(malformed)?;
        let spec = self.single_spec().1;
        let same_rank = spec.dims.as_ref().is_some_and(|d| d.len() == header.shape.len());
        match header.shape.first() {
            // An array of empty rows may tell of any number of them; it is refused as a whole.
            Some(&rows) if rows > 1 && header.count() != Some(0) && same_rank && spec.has_free_batch_axis() => {
                sources.extend((0..rows).map(|row| Source::Npy {
                    path: path.clone(),
                    header: header.clone(),
                    row: Some(row),
                }));
            }
            _ => sources.push(Source::Npy { path, header, row: None }),
        }
        Ok(())
    }

    /// Input numbers and shapes that a sample gives, checked, in graph order.
    pub(crate) fn scan(&self, source: &Source) -> Result<Vec<(usize, Vec<usize>)>, CalibError> {
        let path = source.path();
        let mut found = match source {
            Source::Named(file) => self.scan_named(file)?,
            Source::Npy { path, header, row } => {
                let (index, spec) = self.single_spec();
                let shape = npy_shape(spec, header, *row);
                check_header(path, spec, header.element, &shape).map_err(|error| match error {
                    CalibError::WrongShape { .. } => wrong_shape(
                        path,
                        spec,
                        &header.shape,
                        " (a first axis of 1 is added, or split, where the input has a batch axis)",
                    ),
                    other => other,
                })?;
                vec![(index, shape)]
            }
            Source::TestData(files) => {
                let tensors = self.read_test_data(files)?;
                tensors.into_iter().map(|(index, _, tensor)| (index, tensor.shape().to_vec())).collect()
            }
            Source::Picture(part) => self.scan_shown(self.preparation(), part)?,
            Source::Sound(part) => self.scan_shown(self.listening(), part)?,
            Source::Text { path, window, caches, .. } => {
                let found = self.text_inputs().shapes(&behind(window, caches.is_some()));
                for (index, shape) in &found {
                    let spec = &self.inputs[*index];
                    check_header(path, spec, spec.element, shape)?;
                }
                found
            }
        };
        found.sort();
        if let Some(w) = found.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(self.malformed(path, &format!("two arrays for input `{}`", self.inputs[w[0].0].name)));
        }
        match found.first() {
            Some((index, shape)) if found.iter().all(|(_, shape)| shape.contains(&0)) => {
                Err(empty_array(path, &self.inputs[*index], shape))
            }
            _ => Ok(found),
        }
    }

    /// The shapes of what is made of a picture or a sound, and of its mask.
    fn scan_shown(&self, shown: &impl Shown, part: &Part) -> Result<Vec<(usize, Vec<usize>)>, CalibError> {
        let shape = shown.scan(part)?;
        self.check_bytes(part.label(), &shape)?;
        let mut found = vec![(self.single_spec().0, shape)];
        if let Some(mask) = &self.mask {
            found.push((mask.index, mask.shape(part.label(), &shown.filled(part)?)?));
        }
        Ok(found)
    }

    fn load_shown(&self, shown: &impl Shown, part: &Part) -> Result<Vec<(String, Tensor)>, CalibError> {
        let mut values = vec![(self.single_spec().1.name.clone(), shown.load(part)?)];
        if let Some(mask) = &self.mask {
            values.push((mask.name().to_owned(), mask.tensor(&shown.filled(part)?)));
        }
        Ok(values)
    }

    fn scan_named(&self, file: &NamedFile) -> Result<Vec<(usize, Vec<usize>)>, CalibError> {
        let (path, arrays) = (file.label(), file.headers()?);
        let names = || arrays.iter().map(|(name, _, _)| name.clone()).collect();
        if let Some(array) = self.names.missing(&arrays) {
            return Err(CalibError::NoSuchArray { path: path.into(), array: array.to_owned(), arrays: names() });
        }
        let mut found = Vec::new();
        for (array, element, shape) in &arrays {
            let Some(name) = self.names.input(array) else { continue };
            let index = self.input_named(path, name)?;
            check_header(path, &self.inputs[index], *element, shape)?;
            found.push((index, shape.clone()));
        }
        self.check_complete(path, &found, names())?;
        Ok(found)
    }

    /// The values of a sample for `inputs` (in that order).
    pub(crate) fn load(&self, source: &Source, inputs: &[InputSpec]) -> Result<Vec<Tensor>, CalibError> {
        let path = source.path();
        let mut arrays = self.read(source)?;
        let mut tensors = Vec::with_capacity(inputs.len());
        for spec in inputs {
            let position = arrays.iter().position(|(name, _)| *name == spec.name);
            let (_, tensor) = position.map(|p| arrays.swap_remove(p)).ok_or_else(|| CalibError::MissingArray {
                path: path.into(),
                name: spec.name.clone(),
                arrays: vec![],
            })?;
            // The file may have changed since it was scanned.
            check_header(path, spec, tensor.element_type(), tensor.shape())?;
            tensors.push(convert(path, spec, tensor)?);
        }
        Ok(tensors)
    }

    fn read(&self, source: &Source) -> Result<Vec<(String, Tensor)>, CalibError> {
        match source {
            Source::Named(file) => {
                let is_input = |name: &str| self.inputs.iter().any(|input| input.name == name);
                let wanted = |array: &str| self.names.input(array).is_some_and(is_input);
                let arrays = file.arrays(self.limit, wanted)?;
                let renamed = |(array, tensor): (String, Tensor)| {
                    let name = self.names.input(&array).unwrap_or_default().to_owned();
                    (name, tensor)
                };
                Ok(arrays.into_iter().map(renamed).collect())
            }
            Source::Npy { path, header, row } => {
                let spec = self.single_spec().1;
                let tensor = self.read_npy(path, header, *row)?;
                let shape = npy_shape(spec, header, *row);
                let tensor = tensor
                    .into_shape(&shape)
                    .ok_or_else(|| self.malformed(path, "the shape does not match the data"))?;
                Ok(vec![(spec.name.clone(), tensor)])
            }
            Source::TestData(files) => {
                let tensors = self.read_test_data(files)?;
                Ok(tensors.into_iter().map(|(index, _, tensor)| (self.inputs[index].name.clone(), tensor)).collect())
            }
            Source::Picture(part) => self.load_shown(self.preparation(), part),
            Source::Sound(part) => self.load_shown(self.listening(), part),
            Source::Text { window, caches, .. } => {
                let window = behind(window, caches.is_some());
                let mut values = self.text_inputs().values(&self.inputs, &window);
                if let Some(path) = caches {
                    let file = NamedFile::Npz(Part::whole(path.clone()));
                    values.extend(file.arrays(self.limit, |_| true)?);
                }
                Ok(values)
            }
        }
    }

    /// The array, or its row where one is meant and the rows lie one after the other.
    fn read_npy(&self, path: &Path, header: &Header, row: Option<usize>) -> Result<Tensor, CalibError> {
        let malformed = |source| CalibError::Malformed { path: path.into(), source };
        let mut file = open(path)?;
        let (mut part, mut offset) = (header.clone(), header.data_offset);
        if let (Some(row), false) = (row, header.fortran) {
            part.shape = header.shape[1..].to_vec();
            let row_bytes = part.count().unwrap_or(0) * part.element.bytes();
            offset += (row * row_bytes) as u64;
        }
        file.seek(SeekFrom::Start(offset)).map_err(|source| CalibError::Io { path: path.into(), source })?;
        let bytes = part.count().unwrap_or(0) * part.element.bytes();
        if bytes as u64 > self.limit {
            return Err(malformed(FormatError::TooLarge { needed: bytes as u64, limit: self.limit }));
        }
        let tensor = read_elements(&mut file, &part, bytes).map_err(malformed)?;
        Ok(match row {
            Some(row) if header.fortran => take_row(&tensor, row),
            _ => tensor,
        })
    }

    /// Input number, file and value of each tensor of a test data set.
    fn read_test_data<'a>(&self, files: &'a [PathBuf]) -> Result<Vec<(usize, &'a Path, Tensor)>, CalibError> {
        let mut left = self.limit;
        let mut found: Vec<(usize, &Path, Tensor)> = Vec::new();
        for (number, path) in files.iter().enumerate() {
            let bytes = read_at_most(path, left).map_err(|source| CalibError::Io { path: path.clone(), source })?;
            let bytes = bytes.map_err(|_| self.malformed(path, "the sample is larger than the limit"))?;
            left -= bytes.len() as u64;
            let (name, tensor) = read_tensor_proto(&bytes, self.limit)
                .map_err(|source| CalibError::Malformed { path: path.clone(), source })?;
            let index = self.inputs.iter().position(|i| i.name == name);
            let index = match index {
                Some(index) => index,
                None if number < self.inputs.len() => number,
                None => return Err(self.unknown(path, &name)),
            };
            check_header(path, &self.inputs[index], tensor.element_type(), tensor.shape())?;
            found.push((index, path, tensor));
        }
        let names = files.iter().filter_map(|f| f.file_name()).map(|n| n.to_string_lossy().into_owned()).collect();
        let given: Vec<(usize, Vec<usize>)> = found.iter().map(|(i, _, _)| (*i, vec![])).collect();
        self.check_complete(files.first().map_or(Path::new(""), PathBuf::as_path), &given, names)?;
        Ok(found)
    }

    fn input_named(&self, path: &Path, name: &str) -> Result<usize, CalibError> {
        self.inputs.iter().position(|i| i.name == name).ok_or_else(|| self.unknown(path, name))
    }

    fn unknown(&self, path: &Path, name: &str) -> CalibError {
        let inputs = self.inputs.iter().map(|i| i.name.clone()).collect();
        CalibError::UnknownArray { path: path.into(), name: name.into(), inputs }
    }

    fn check_complete(
        &self,
        path: &Path,
        found: &[(usize, Vec<usize>)],
        arrays: Vec<String>,
    ) -> Result<(), CalibError> {
        let given = |index: usize| found.iter().any(|(i, _)| *i == index);
        match self.inputs.iter().enumerate().find(|(i, spec)| !spec.optional && !given(*i)) {
            None => Ok(()),
            Some((_, spec)) => Err(CalibError::MissingArray { path: path.into(), name: spec.name.clone(), arrays }),
        }
    }

    fn malformed(&self, path: &Path, what: &str) -> CalibError {
        CalibError::Malformed { path: path.into(), source: FormatError::TensorProto(what.into()) }
    }
}

/// The shape fed from an array or its row: with a batch axis of 1 where it is missing.
fn npy_shape(spec: &InputSpec, header: &Header, row: Option<usize>) -> Vec<usize> {
    let mut shape = header.shape.clone();
    if row.is_some() {
        shape[0] = 1;
    } else if spec.has_free_batch_axis() && spec.dims.as_ref().is_some_and(|d| d.len() == shape.len() + 1) {
        shape.insert(0, 1);
    }
    shape
}

/// A window, or what is left of it where its first half is given away.
fn behind(window: &Window, is_half: bool) -> Cow<'_, Window> {
    let rest = window.halves().filter(|_| is_half).map(|(_, rest)| Cow::Owned(rest));
    rest.unwrap_or(Cow::Borrowed(window))
}

fn take_row(tensor: &Tensor, row: usize) -> Tensor {
    macro_rules! rows {
        ($($variant:ident),*) => {
            match tensor {
                $(Tensor::$variant(a) => Tensor::$variant(a.index_axis(Axis(0), row).to_owned()),)*
            }
        };
    }
    debug_assert!(row < with_array!(tensor, a => a.shape()[0]));
    rows!(F32, F64, F16, I64, I32, I16, I8, U64, U32, U16, U8, Bool)
}

fn open(path: &Path) -> Result<BufReader<Opened>, CalibError> {
    onnxquant_storage::open(path).map(BufReader::new).map_err(|source| CalibError::Io { path: path.into(), source })
}
