//! Source lines of recorded operations, interned as they are met and resolved only when somebody asks.
//!
//! A line is a pair (code object, instruction offset): reading it costs two pointers and a hash look-up, where
//! asking Python for the line number walks its line table. Frames of ckad and NumPy themselves are passed over,
//! so that an operation belongs to the user's line.

use std::ffi::CStr;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// An instruction: the address of its code object, and its offset in that.
pub type Spot = (usize, i32);

/// The lines of one trace and of the traces nested in it. Id 0 is "unknown".
#[derive(Default)]
pub struct LineTable {
    ids: FxHashMap<Spot, u32>,
    lines: Vec<(Py<PyAny>, i32)>,
    /// Whether a code object belongs to ckad or NumPy; the references keep addresses from being reused.
    library: FxHashMap<usize, bool>,
    library_codes: Vec<Py<PyAny>>,
    last: Option<(Spot, u32)>,
}

type GetLasti = unsafe extern "C" fn(*mut ffi::PyFrameObject) -> std::ffi::c_int;
type GetBack = unsafe extern "C" fn(*mut ffi::PyFrameObject) -> *mut ffi::PyFrameObject;

/// The two frame functions that the stable ABI leaves out, looked up in the running interpreter.
struct FrameFunctions {
    lasti: GetLasti,
    back: GetBack,
}

unsafe extern "C" {
    fn dlsym(handle: *mut std::ffi::c_void, name: *const std::ffi::c_char) -> *mut std::ffi::c_void;
}

/// The handle that stands for everything the process has loaded.
const EVERYWHERE: *mut std::ffi::c_void =
    if cfg!(target_os = "macos") { -2isize as *mut std::ffi::c_void } else { std::ptr::null_mut() };

fn symbol(name: &CStr) -> Option<*mut std::ffi::c_void> {
    // SAFETY: dlsym with that handle and a terminated name only reads its arguments.
    let found = unsafe { dlsym(EVERYWHERE, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

fn frame_functions() -> Option<&'static FrameFunctions> {
    static FUNCTIONS: OnceLock<Option<FrameFunctions>> = OnceLock::new();
    FUNCTIONS
        .get_or_init(|| {
            let lasti = symbol(c"PyFrame_GetLasti")?;
            let back = symbol(c"PyFrame_GetBack")?;
            // SAFETY: CPython 3.11 and later export these two functions with exactly these signatures.
            Some(unsafe {
                FrameFunctions {
                    lasti: std::mem::transmute::<*mut std::ffi::c_void, GetLasti>(lasti),
                    back: std::mem::transmute::<*mut std::ffi::c_void, GetBack>(back),
                }
            })
        })
        .as_ref()
}

/// Folders whose frames are passed over: those of ckad and of the packages that it calls back from.
fn library_folders(py: Python<'_>) -> &'static Vec<String> {
    static FOLDERS: pyo3::sync::PyOnceLock<Vec<String>> = pyo3::sync::PyOnceLock::new();
    FOLDERS.get_or_init(py, || {
        ["ckad", "numpy", "optree"]
            .iter()
            .filter_map(|name| {
                let file: String = py.import(*name).ok()?.getattr("__file__").ok()?.extract().ok()?;
                Some(file.rsplit_once('/')?.0.to_owned() + "/")
            })
            .collect()
    })
}

impl LineTable {
    /// The id of the innermost line that is not a library's.
    pub fn current(&mut self, py: Python<'_>) -> u32 {
        let Some(functions) = frame_functions() else { return 0 };
        // SAFETY: the GIL is held. PyEval_GetFrame returns a borrowed frame that is alive while it executes, or
        // null; PyFrame_GetBack and PyFrame_GetCode return new references, which are released below.
        unsafe {
            let mut frame = ffi::PyEval_GetFrame();
            let mut owned = false;
            let mut id = 0;
            while !frame.is_null() {
                let code = ffi::PyFrame_GetCode(frame);
                let key = (code as usize, (functions.lasti)(frame));
                let known = self.last.filter(|(last, _)| *last == key).map(|(_, id)| id);
                let found = known.or_else(|| self.ids.get(&key).copied());
                if let Some(found) = found {
                    ffi::Py_DECREF(code.cast());
                    self.last = Some((key, found));
                    id = found;
                    break;
                }
                let code: Py<PyAny> = Bound::from_owned_ptr(py, code.cast()).unbind();
                if !self.is_library(py, &code) {
                    self.lines.push((code, key.1));
                    id = self.lines.len() as u32;
                    self.ids.insert(key, id);
                    self.last = Some((key, id));
                    break;
                }
                let back = (functions.back)(frame);
                if owned {
                    ffi::Py_DECREF(frame.cast());
                }
                frame = back;
                owned = true;
            }
            if owned && !frame.is_null() {
                ffi::Py_DECREF(frame.cast());
            }
            id
        }
    }

    /// The place that an id stands for: code object and offset.
    pub fn place(&self, py: Python<'_>, id: u32) -> Option<(Py<PyAny>, i32)> {
        let (code, lasti) = self.lines.get((id as usize).checked_sub(1)?)?;
        Some((code.clone_ref(py), *lasti))
    }

    /// The id of a place.
    pub fn of_place(&mut self, code: Py<PyAny>, lasti: i32) -> u32 {
        let key = (code.as_ptr() as usize, lasti);
        if let Some(&known) = self.ids.get(&key) {
            return known;
        }
        self.lines.push((code, lasti));
        let id = self.lines.len() as u32;
        self.ids.insert(key, id);
        id
    }

    fn is_library(&mut self, py: Python<'_>, code: &Py<PyAny>) -> bool {
        let address = code.as_ptr() as usize;
        if let Some(&known) = self.library.get(&address) {
            return known;
        }
        let file: String = code.getattr(py, "co_filename").and_then(|name| name.extract(py)).unwrap_or_default();
        let library = library_folders(py).iter().any(|folder| file.starts_with(folder));
        self.library.insert(address, library);
        self.library_codes.push(code.clone_ref(py));
        library
    }

    /// The instruction of an id with its code object, where they are known.
    pub fn spot(&self, py: Python<'_>, id: u32) -> Option<(Spot, Py<PyAny>)> {
        let (code, lasti) = self.lines.get((id as usize).checked_sub(1)?)?;
        Some(((code.as_ptr() as usize, *lasti), code.clone_ref(py)))
    }

    /// File and line number of an id, where they are known.
    pub fn resolve(&self, py: Python<'_>, id: u32) -> Option<(String, u32)> {
        let (code, lasti) = self.lines.get((id as usize).checked_sub(1)?)?;
        let file: String = code.getattr(py, "co_filename").ok()?.extract(py).ok()?;
        let ranges = code.call_method0(py, "co_lines").ok()?;
        for range in ranges.bind(py).try_iter().ok()? {
            let (start, end, line): (i32, i32, Option<u32>) = range.ok()?.extract().ok()?;
            if start <= *lasti && *lasti < end {
                return Some((file, line?));
            }
        }
        None
    }

    /// `file:line` of an id, or an empty string.
    pub fn text(&self, py: Python<'_>, id: u32) -> String {
        self.resolve(py, id).map_or_else(String::new, |(file, line)| format!("{file}:{line}"))
    }
}
