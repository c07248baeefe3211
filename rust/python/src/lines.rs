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

use crate::guarded::Guarded;

/// An instruction: the address of its code object, and its offset in that.
pub type Spot = (usize, i32);

/// The lines of one trace and of the traces nested in it. Id 0 is "unknown".
///
/// Whatever may run Python (attributes of code objects, imports) is done while nobody holds the table.
#[derive(Default)]
pub struct Lines(Guarded<LineTable>);

#[derive(Default)]
struct LineTable {
    ids: FxHashMap<Spot, u32>,
    lines: Vec<(Py<PyAny>, i32)>,
    /// Whether a code object belongs to ckad or NumPy, with a reference that keeps its address from being reused.
    library: FxHashMap<usize, (bool, Py<PyAny>)>,
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

/// A function of the interpreter's that the stable interface leaves out.
pub fn symbol(name: &CStr) -> Option<*mut std::ffi::c_void> {
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

/// What a table knows of a frame.
enum Found {
    Line(u32),
    Library,
    Unknown,
}

impl LineTable {
    #[inline]
    fn find(&mut self, spot: Spot) -> Found {
        if let Some((last, id)) = self.last
            && last == spot
        {
            return Found::Line(id);
        }
        if let Some(&id) = self.ids.get(&spot) {
            self.last = Some((spot, id));
            return Found::Line(id);
        }
        match self.library.get(&spot.0) {
            Some((true, _)) => Found::Library,
            _ => Found::Unknown,
        }
    }

    fn at(&self, id: u32) -> Option<&(Py<PyAny>, i32)> {
        self.lines.get((id as usize).checked_sub(1)?)
    }
}

impl Lines {
    /// The id of the innermost line that is not a library's.
    #[inline]
    pub fn current(&self, py: Python<'_>) -> u32 {
        let Some(functions) = frame_functions() else { return 0 };
        // SAFETY: PyEval_GetFrame returns a frame that is alive while it executes, which it does while we are called,
        // or null.
        let mut frame = unsafe { ffi::PyEval_GetFrame() };
        // Keeps the frame alive where it is not the first.
        let mut _owner: Option<Bound<'_, PyAny>>;
        while !frame.is_null() {
            // SAFETY: the frame is alive; both functions return new references. They are bound, so that letting go of
            // one counts down at once: slots are called without pyo3's own count of who holds the interpreter's lock.
            let (code, lasti) =
                unsafe { (Bound::from_owned_ptr(py, ffi::PyFrame_GetCode(frame).cast()), (functions.lasti)(frame)) };
            let spot = (code.as_ptr() as usize, lasti);
            // Let go of before anything is done about it.
            let found = self.0.hold(py).find(spot);
            match found {
                Found::Line(id) => return id,
                Found::Unknown if !self.is_library(&code) => return self.of_place(&code, lasti),
                Found::Unknown | Found::Library => {}
            }
            // SAFETY: as above; the outermost frame has none behind it.
            unsafe {
                let back = (functions.back)(frame);
                _owner = Bound::from_owned_ptr_or_opt(py, back.cast());
                frame = back;
            }
        }
        0
    }

    /// The id of a place.
    pub fn of_place(&self, code: &Bound<'_, PyAny>, lasti: i32) -> u32 {
        let spot = (code.as_ptr() as usize, lasti);
        let mut table = self.0.hold(code.py());
        if let Found::Line(known) = table.find(spot) {
            return known;
        }
        table.lines.push((code.clone().unbind(), lasti));
        let id = table.lines.len() as u32;
        table.ids.insert(spot, id);
        table.last = Some((spot, id));
        id
    }

    fn is_library(&self, code: &Bound<'_, PyAny>) -> bool {
        let address = code.as_ptr() as usize;
        if let Some(&(known, _)) = self.0.hold(code.py()).library.get(&address) {
            return known;
        }
        let file: String = code.getattr("co_filename").and_then(|name| name.extract()).unwrap_or_default();
        let library = library_folders(code.py()).iter().any(|folder| file.starts_with(folder));
        let reference = code.clone().unbind();
        // One that came meanwhile is the same object, which `code` holds.
        self.0.hold(code.py()).library.insert(address, (library, reference));
        library
    }

    /// The place that an id stands for: code object and offset.
    pub fn place<'py>(&self, py: Python<'py>, id: u32) -> Option<(Bound<'py, PyAny>, i32)> {
        let table = self.0.hold(py);
        let (code, lasti) = table.at(id)?;
        Some((code.bind(py).clone(), *lasti))
    }

    /// The instruction of an id, where it is known. Its address is a code object's as long as the table lives.
    pub fn spot(&self, py: Python<'_>, id: u32) -> Option<Spot> {
        let table = self.0.hold(py);
        let (code, lasti) = table.at(id)?;
        Some((code.as_ptr() as usize, *lasti))
    }

    /// File and line number of an id, where they are known.
    pub fn resolve(&self, py: Python<'_>, id: u32) -> Option<(String, u32)> {
        let (code, lasti) = self.place(py, id)?;
        let file: String = code.getattr("co_filename").ok()?.extract().ok()?;
        for range in code.call_method0("co_lines").ok()?.try_iter().ok()? {
            let (start, end, line): (i32, i32, Option<u32>) = range.ok()?.extract().ok()?;
            if start <= lasti && lasti < end {
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
