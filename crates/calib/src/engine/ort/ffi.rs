//! The functions of ONNX Runtime's C interface that are needed, made safe: the only unsafe code of this crate.
//!
//! - The library is loaded when it is asked for, and never unloaded: it has threads and static objects of its own.
//! - What it makes is owned here, and released once ([`Owned`]).
//! - Its exceptions do not leave it: every function returns a status, which becomes a message.
//!
//! # Guarantee
//!
//! The declarations are those of ONNX Runtime 1.17 ([`API`]), and every later library offers the same table of functions
//! for that number. A library that exports [`ENTRY`] without being ONNX Runtime cannot be told from it.
#![expect(unsafe_code, reason = "a C library is called here")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use bytes::Bytes;
use ndarray::{ArrayD, IxDyn};
use ort_sys::{
    GraphOptimizationLevel, ONNXTensorElementDataType, OrtAllocatorType, OrtApi, OrtApiBase, OrtEnv, OrtLoggingLevel,
    OrtMemType, OrtMemoryInfo, OrtSession, OrtSessionOptions, OrtStatusPtr, OrtTensorTypeAndShapeInfo, OrtValue,
};

use super::strings::{c_string, os_path, with_causes};
use crate::tensor::{ElementType, Tensor, with_array};

/// The table of functions that is asked for: that of ONNX Runtime 1.17.
pub(super) const API: u32 = 17;

/// What the library exports.
const ENTRY: &str = "OrtGetApiBase";

/// Why a library is not used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It cannot be loaded, or is another library.
    Broken(String),
    /// It does not have the functions.
    TooOld(String),
}

/// How far a graph is optimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrtLevel {
    /// Not at all: every node is run as it stands.
    None,
    /// Constants are folded, redundant nodes removed.
    Basic,
    /// Nodes are fused as well.
    Extended,
    /// Everything: what a session has by default.
    All,
}

/// Options of a session; those that are not named are the library's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup<'a> {
    pub(super) level: OrtLevel,
    /// Threads that one run uses; 0 stands for all.
    pub(super) threads: usize,
    /// Whether memory of values is kept for the next run.
    pub(super) arena: bool,
    pub(super) entries: &'a [(&'a str, &'a str)],
    /// Where the optimized model is written.
    pub(super) optimized: Option<&'a Path>,
}

/// A constant of a model that lies outside it.
#[derive(Debug)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) element_type: i32,
    pub(super) dims: Vec<i64>,
    /// Aligned for the element type.
    pub(super) bytes: Bytes,
}

/// Something that the library made.
struct Owned<T> {
    pointer: *mut T,
    release: unsafe extern "system" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the library made it, `release` is the function for it, and nothing has released it.
        unsafe { (self.release)(self.pointer) }
    }
}

/// ONNX Runtime.
pub(super) struct Library {
    api: &'static OrtApi,
    env: Owned<OrtEnv>,
    memory: Owned<OrtMemoryInfo>,
    version: String,
}

// SAFETY: the table of functions does not change; an environment may be used from every thread, and memory information
// is only read.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Loads a library, by its path or, for the system to look for it, by its name.
    pub(super) fn open(path: &Path) -> Result<Self, Refusal> {
        type Entry = unsafe extern "system" fn() -> *const OrtApiBase;
        // SAFETY: what the file runs when it is loaded is trusted as the program that loads it: the user has named it, or
        // has installed it as ONNX Runtime.
        let library = unsafe { libloading::Library::new(path) };
        let library = library.map_err(|error| Refusal::Broken(with_causes(&error)))?;
        // SAFETY: the C header declares it so.
        let entry = unsafe { library.get::<Entry>(ENTRY) };
        let entry = *entry.map_err(|_| Refusal::Broken(format!("it does not export `{ENTRY}`")))?;
        std::mem::forget(library);
        // SAFETY: it takes nothing and returns a static table, or nothing.
        let base = unsafe { entry().as_ref() }.ok_or_else(|| Refusal::Broken(format!("`{ENTRY}` returns nothing")))?;
        // SAFETY: it is the table of that library, which is not unloaded.
        let (api, version) = unsafe { functions(base) }?;
        Self::start(api, version).map_err(Refusal::Broken)
    }

    fn start(api: &'static OrtApi, version: String) -> Result<Self, String> {
        let env = made(api, api.ReleaseEnv, |out| {
            // SAFETY: the name is copied.
            unsafe { (api.CreateEnv)(OrtLoggingLevel::ORT_LOGGING_LEVEL_FATAL, c"onnxquant".as_ptr(), out) }
        })?;
        let memory = made(api, api.ReleaseMemoryInfo, |out| {
            // SAFETY: plain values.
            unsafe {
                (api.CreateCpuMemoryInfo)(OrtAllocatorType::OrtDeviceAllocator, OrtMemType::OrtMemTypeDefault, out)
            }
        })?;
        Ok(Self { api, env, memory, version })
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    fn options(&self, setup: &Setup<'_>, constants: &[Constant]) -> Result<Owned<OrtSessionOptions>, String> {
        let api = self.api;
        // SAFETY (all of this function): the options are alive; strings and arrays are read during the call.
        let options = made(api, api.ReleaseSessionOptions, |out| unsafe { (api.CreateSessionOptions)(out) })?;
        let threads = c_int::try_from(setup.threads).unwrap_or(0);
        let level = match setup.level {
            OrtLevel::None => GraphOptimizationLevel::ORT_DISABLE_ALL,
            OrtLevel::Basic => GraphOptimizationLevel::ORT_ENABLE_BASIC,
            OrtLevel::Extended => GraphOptimizationLevel::ORT_ENABLE_EXTENDED,
            OrtLevel::All => GraphOptimizationLevel::ORT_ENABLE_ALL,
        };
        check(api, unsafe { (api.SetSessionGraphOptimizationLevel)(options.pointer, level) })?;
        check(api, unsafe { (api.SetIntraOpNumThreads)(options.pointer, threads) })?;
        if !setup.arena {
            check(api, unsafe { (api.DisableCpuMemArena)(options.pointer) })?;
            check(api, unsafe { (api.DisableMemPattern)(options.pointer) })?;
        }
        for (key, value) in setup.entries {
            let (key, value) = (c_string(key)?, c_string(value)?);
            check(api, unsafe { (api.AddSessionConfigEntry)(options.pointer, key.as_ptr(), value.as_ptr()) })?;
        }
        if let Some(path) = setup.optimized {
            let path = os_path(path);
            check(api, unsafe { (api.SetOptimizedModelFilePath)(options.pointer, path.as_ptr()) })?;
        }
        self.add_constants(&options, constants)?;
        Ok(options)
    }

    fn add_constants(&self, options: &Owned<OrtSessionOptions>, constants: &[Constant]) -> Result<(), String> {
        if constants.is_empty() {
            return Ok(());
        }
        let names = constants.iter().map(|c| c_string(&c.name)).collect::<Result<Vec<_>, _>>()?;
        let value = |c: &Constant| self.value(c.bytes.as_ptr().cast(), c.bytes.len(), &c.dims, c.element_type);
        let values = constants.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let pointers: Vec<*const OrtValue> = values.iter().map(|value| value.pointer.cast_const()).collect();
        // SAFETY: names and values are copied; the memory that the values refer to stays with the session.
        check(self.api, unsafe {
            let add = self.api.AddExternalInitializers;
            add(options.pointer, names.as_ptr(), pointers.as_ptr(), constants.len())
        })
    }

    /// A tensor that refers to memory, which has to live as long as what is made of it.
    fn value(&self, data: *const c_void, bytes: usize, dims: &[i64], code: i32) -> Result<Owned<OrtValue>, String> {
        let element_type = element_type(code)?;
        let make = self.api.CreateTensorWithDataAsOrtValue;
        made(self.api, self.api.ReleaseValue, |out| {
            // SAFETY: the library checks that shape and type go with the number of bytes, and does not write to values
            // that are given to it.
            unsafe { make(self.memory.pointer, data.cast_mut(), bytes, dims.as_ptr(), dims.len(), element_type, out) }
        })
    }
}

/// A model that is ready to be run, by several threads at once.
pub(super) struct RawSession {
    /// Released before the constants that it may refer to.
    session: Owned<OrtSession>,
    _constants: Vec<Constant>,
    library: Arc<Library>,
}

// SAFETY: a session may be moved between threads, and run by several at once, as ONNX Runtime documents for `Run`.
unsafe impl Send for RawSession {}
// SAFETY: as above.
unsafe impl Sync for RawSession {}

/// What a session is given, and what is asked of it.
pub(super) struct Request<'a> {
    input_names: Vec<CString>,
    inputs: Vec<Owned<OrtValue>>,
    output_names: Vec<CString>,
    /// The inputs refer to these.
    _tensors: Vec<std::borrow::Cow<'a, Tensor>>,
}

/// What a session has computed.
pub(super) struct Answer<'a> {
    values: Vec<Owned<OrtValue>>,
    library: &'a Library,
}

impl RawSession {
    /// Of a model in memory, some of whose constants lie outside it.
    pub(super) fn of_bytes(
        library: &Arc<Library>,
        model: &[u8],
        constants: Vec<Constant>,
        setup: &Setup<'_>,
    ) -> Result<Self, String> {
        let (api, options) = (library.api, library.options(setup, &constants)?);
        let session = made(api, api.ReleaseSession, |out| {
            // SAFETY: the bytes are read during the call; environment and options are alive.
            unsafe {
                let create = api.CreateSessionFromArray;
                create(library.env.pointer, model.as_ptr().cast(), model.len(), options.pointer, out)
            }
        })?;
        Ok(Self { session, _constants: constants, library: library.clone() })
    }

    /// Of a file.
    pub(super) fn of_file(library: &Arc<Library>, path: &Path, setup: &Setup<'_>) -> Result<Self, String> {
        let (api, options) = (library.api, library.options(setup, &[])?);
        let path = os_path(path);
        let session = made(api, api.ReleaseSession, |out| {
            // SAFETY: the path ends with 0; environment and options are alive.
            unsafe { (api.CreateSession)(library.env.pointer, path.as_ptr(), options.pointer, out) }
        })?;
        Ok(Self { session, _constants: Vec::new(), library: library.clone() })
    }

    /// Prepares a run that is given these tensors by name and computes `outputs`.
    pub(super) fn request<'a>(&self, given: &[(&str, &'a Tensor)], outputs: &[String]) -> Result<Request<'a>, String> {
        let tensors: Vec<_> = given.iter().map(|(_, tensor)| tensor.in_c_order()).collect();
        let value = |tensor: &Tensor| {
            let dims = tensor.shape().iter().map(|&n| i64::try_from(n));
            let dims = dims.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            let (element_type, data) = (tensor.element_type(), with_array!(tensor, a => a.as_ptr().cast::<c_void>()));
            self.library.value(data, tensor.len() * element_type.bytes(), &dims, element_type.to_onnx())
        };
        Ok(Request {
            input_names: given.iter().map(|(name, _)| c_string(name)).collect::<Result<_, _>>()?,
            inputs: tensors.iter().map(|tensor| value(tensor)).collect::<Result<_, _>>()?,
            output_names: outputs.iter().map(|name| c_string(name)).collect::<Result<_, _>>()?,
            _tensors: tensors,
        })
    }

    pub(super) fn run(&self, request: &Request<'_>) -> Result<Answer<'_>, String> {
        let api = self.library.api;
        let names = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
        let (input_names, output_names) = (names(&request.input_names), names(&request.output_names));
        let inputs: Vec<*const OrtValue> = request.inputs.iter().map(|value| value.pointer.cast_const()).collect();
        let mut found: Vec<*mut OrtValue> = vec![null_mut(); output_names.len()];
        // SAFETY: the session is alive and may be run by several threads; all arrays have the lengths that are given, and
        // the tensors that the inputs refer to live as long as the request.
        let status = unsafe {
            (api.Run)(
                self.session.pointer,
                null(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                output_names.len(),
                found.as_mut_ptr(),
            )
        };
        let made = found.into_iter().filter(|value| !value.is_null());
        let values: Vec<_> = made.map(|pointer| Owned { pointer, release: api.ReleaseValue }).collect();
        check(api, status)?;
        if values.len() != output_names.len() {
            return Err(format!("it computed {} of {} outputs", values.len(), output_names.len()));
        }
        Ok(Answer { values, library: &self.library })
    }
}

impl Answer<'_> {
    /// Copies of the outputs, in the order in which they were asked for.
    pub(super) fn tensors(&self) -> Result<Vec<Tensor>, String> {
        self.values.iter().map(|value| self.tensor(value)).collect()
    }

    fn tensor(&self, value: &Owned<OrtValue>) -> Result<Tensor, String> {
        let api = self.library.api;
        let mut is_tensor = 0;
        // SAFETY (all of this function): value and information are alive, and what is written to is large enough.
        check(api, unsafe { (api.IsTensor)(value.pointer, &raw mut is_tensor) })?;
        if is_tensor == 0 {
            return Err("an output is no tensor".to_owned());
        }
        let facts: Owned<OrtTensorTypeAndShapeInfo> = made(api, api.ReleaseTensorTypeAndShapeInfo, |out| unsafe {
            (api.GetTensorTypeAndShape)(value.pointer, out)
        })?;
        let mut code: i32 = 0;
        // A number that is none of the enumeration must not become one of its values.
        let out = (&raw mut code).cast::<ONNXTensorElementDataType>();
        check(api, unsafe { (api.GetTensorElementType)(facts.pointer, out) })?;
        let mut rank = 0;
        check(api, unsafe { (api.GetDimensionsCount)(facts.pointer, &raw mut rank) })?;
        let mut dims = vec![0_i64; rank];
        check(api, unsafe { (api.GetDimensions)(facts.pointer, dims.as_mut_ptr(), rank) })?;
        let shape: Option<Vec<usize>> = dims.iter().map(|&n| usize::try_from(n).ok()).collect();
        let shape = shape.ok_or_else(|| format!("an output has shape {dims:?}"))?;
        let mut data: *mut c_void = null_mut();
        if ElementType::from_onnx(code).is_some() {
            check(api, unsafe { (api.GetTensorMutableData)(value.pointer, &raw mut data) })?;
        }
        // SAFETY: the library says that so many elements of that type are there.
        unsafe { copied(code, &shape, data) }
    }
}

/// # Safety
/// `data` points to the elements of a tensor of this shape, of the type with the code of `TensorProto.DataType`.
unsafe fn copied(code: i32, shape: &[usize], data: *const c_void) -> Result<Tensor, String> {
    /// # Safety
    /// As above, and the type is `T`.
    unsafe fn array<T: Copy>(shape: &[usize], data: *const c_void) -> Result<ArrayD<T>, String> {
        let n: usize = shape.iter().product();
        // SAFETY: there are so many elements; the library aligns what it allocates.
        let elements = if n == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(data.cast::<T>(), n) } };
        ArrayD::from_shape_vec(IxDyn(shape), elements.to_vec()).map_err(|error| error.to_string())
    }
    let Some(element_type) = ElementType::from_onnx(code) else {
        return Err(format!("an output is of type {code} of ONNX, which cannot be observed"));
    };
    // SAFETY: in every line the type is that of the code.
    unsafe {
        Ok(match element_type {
            ElementType::F32 => Tensor::F32(array(shape, data)?),
            ElementType::F64 => Tensor::F64(array(shape, data)?),
            ElementType::F16 => Tensor::F16(array(shape, data)?),
            ElementType::I64 => Tensor::I64(array(shape, data)?),
            ElementType::I32 => Tensor::I32(array(shape, data)?),
            ElementType::I16 => Tensor::I16(array(shape, data)?),
            ElementType::I8 => Tensor::I8(array(shape, data)?),
            ElementType::U64 => Tensor::U64(array(shape, data)?),
            ElementType::U32 => Tensor::U32(array(shape, data)?),
            ElementType::U16 => Tensor::U16(array(shape, data)?),
            ElementType::U8 => Tensor::U8(array(shape, data)?),
            // A byte need not be 0 or 1.
            ElementType::Bool => Tensor::Bool(array::<u8>(shape, data)?.mapv(|byte| byte != 0)),
        })
    }
}

/// The functions of a library, and its version.
///
/// # Safety
/// The functions of `base` do what the C header says.
unsafe fn functions(base: &OrtApiBase) -> Result<(&'static OrtApi, String), Refusal> {
    // SAFETY: it takes nothing.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return Err(Refusal::Broken("it does not tell its version".to_owned()));
    }
    // SAFETY: it is a static string.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned();
    // Asked for a table that it does not have, the library would print so.
    if is_too_old(&version) {
        return Err(Refusal::TooOld(version));
    }
    // SAFETY: it returns the static table of that number, or nothing.
    let api = unsafe { (base.GetApi)(API).as_ref() };
    let lacking = || Refusal::Broken(format!("its version is {version}, but it lacks the functions of 1.{API}"));
    Ok((api.ok_or_else(lacking)?, version))
}

/// Whether a library of this version lacks the table of functions.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(1), Some(API))
}

/// What the library writes to the place that `make` gives it.
fn made<T>(
    api: &OrtApi,
    release: unsafe extern "system" fn(*mut T),
    make: impl FnOnce(*mut *mut T) -> OrtStatusPtr,
) -> Result<Owned<T>, String> {
    let mut pointer = null_mut();
    check(api, make(&raw mut pointer))?;
    if pointer.is_null() { Err("it made nothing".to_owned()) } else { Ok(Owned { pointer, release }) }
}

/// The message of a status that is not success.
fn check(api: &OrtApi, OrtStatusPtr(status): OrtStatusPtr) -> Result<(), String> {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: the status is alive, its message ends with 0 and lives as long as it; then it is released, once.
    unsafe {
        let text = CStr::from_ptr((api.GetErrorMessage)(status)).to_string_lossy().into_owned();
        (api.ReleaseStatus)(status);
        Err(text)
    }
}

/// The type that a constant outside the model has.
fn element_type(code: i32) -> Result<ONNXTensorElementDataType, String> {
    use ONNXTensorElementDataType as Type;
    Ok(match ElementType::from_onnx(code) {
        Some(ElementType::F32) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Some(ElementType::F64) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Some(ElementType::F16) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Some(ElementType::I64) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Some(ElementType::I32) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Some(ElementType::I16) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Some(ElementType::I8) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Some(ElementType::U64) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Some(ElementType::U32) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Some(ElementType::U16) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Some(ElementType::U8) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Some(ElementType::Bool) => Type::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        None => return Err(format!("no tensor of type {code} of ONNX can be given to it")),
    })
}

#[cfg(test)]
#[path = "ffi_tests.rs"]
mod tests;
