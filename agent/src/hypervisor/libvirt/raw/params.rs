//! libvirt's typed parameters.

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_uint};
use std::ptr;

use virt_sys as sys;

use super::{RawResult, borrowed_text, c_text, counted};

/// One parameter's value, as wide as it may be.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
}

/// A list of named values, copied out of libvirt's memory.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Params(HashMap<String, Value>);

impl Params {
    /// Copies `count` parameters that libvirt keeps.
    pub(super) fn copy(array: sys::virTypedParameterPtr, count: c_int) -> Self {
        if array.is_null() {
            return Self::default();
        }
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: libvirt says that `count` parameters are there.
        let array = unsafe { std::slice::from_raw_parts(array, count) };
        Self(array.iter().filter_map(named_value).collect())
    }

    /// Copies `count` parameters that libvirt gave away, and frees them.
    pub(super) fn owning(array: sys::virTypedParameterPtr, count: c_int) -> Self {
        let copy = Self::copy(array, count);
        if !array.is_null() {
            // SAFETY: libvirt's own function for such an array; everything was copied out of it.
            unsafe { sys::virTypedParamsFree(array, count) };
        }
        copy
    }

    /// A number that must not be negative; `None`: not there, or no such number.
    pub(in super::super) fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Value::Unsigned(n) => Some(*n),
            Value::Signed(n) => u64::try_from(*n).ok(),
            Value::Float(_) | Value::Text(_) => None,
        }
    }

    /// A signed number.
    pub(in super::super) fn signed(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            Value::Signed(n) => Some(*n),
            Value::Unsigned(n) => i64::try_from(*n).ok(),
            Value::Float(_) | Value::Text(_) => None,
        }
    }

    /// Sum of `<prefix>.<n>.<suffix>` for n below `<prefix>.<count>` (or `maximum`), and how many there were.
    pub(in super::super) fn sum(&self, prefix: &str, count: &str, suffix: &str) -> (u64, u32) {
        /// More devices than libvirt lets a guest have.
        const MOST: u64 = 4096;
        let count = self.number(&format!("{prefix}.{count}")).unwrap_or(0);
        let (mut sum, mut found) = (0_u64, 0_u32);
        for n in 0..count.min(MOST) {
            if let Some(value) = self.number(&format!("{prefix}.{n}.{suffix}")) {
                sum = sum.saturating_add(value);
                found += 1;
            }
        }
        (sum, found)
    }
}

fn named_value(parameter: &sys::virTypedParameter) -> Option<(String, Value)> {
    let name = borrowed_text(parameter.field.as_ptr())?;
    let kind = c_uint::try_from(parameter.type_).ok()?;
    // SAFETY: `type_` says which member of the union libvirt has written; texts are zero-terminated.
    let value = unsafe {
        match kind {
            sys::VIR_TYPED_PARAM_INT => Value::Signed(parameter.value.i.into()),
            sys::VIR_TYPED_PARAM_UINT => Value::Unsigned(parameter.value.ui.into()),
            sys::VIR_TYPED_PARAM_LLONG => Value::Signed(parameter.value.l),
            sys::VIR_TYPED_PARAM_ULLONG => Value::Unsigned(parameter.value.ul),
            sys::VIR_TYPED_PARAM_DOUBLE => Value::Float(parameter.value.d),
            sys::VIR_TYPED_PARAM_BOOLEAN => Value::Unsigned((parameter.value.b != 0).into()),
            sys::VIR_TYPED_PARAM_STRING => Value::Text(borrowed_text(parameter.value.s)?),
            _ => return None,
        }
    };
    Some((name, value))
}

/// Parameters of a migration, in libvirt's own memory.
#[derive(Debug)]
pub(in super::super) struct MigrationParams {
    array: sys::virTypedParameterPtr,
    count: c_int,
    capacity: c_int,
}

impl MigrationParams {
    /// None yet.
    pub(in super::super) fn new() -> Self {
        Self {
            array: ptr::null_mut(),
            count: 0,
            capacity: 0,
        }
    }

    /// Where the memory is to be sent.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn uri(&mut self, uri: &str) -> RawResult<()> {
        let uri = c_text(uri)?;
        let name: &CStr = sys::VIR_MIGRATE_PARAM_URI;
        // SAFETY: the three places describe one array that libvirt grows; the texts are copied.
        counted(unsafe {
            sys::virTypedParamsAddString(
                &raw mut self.array,
                &raw mut self.count,
                &raw mut self.capacity,
                name.as_ptr(),
                uri.as_ptr(),
            )
        })
        .map(drop)
    }

    /// The most that may be sent, MiB/s.
    ///
    /// # Errors
    /// libvirt's.
    pub(in super::super) fn bandwidth_mib_s(&mut self, limit: u64) -> RawResult<()> {
        let name: &CStr = sys::VIR_MIGRATE_PARAM_BANDWIDTH;
        // SAFETY: as in `uri`.
        counted(unsafe {
            sys::virTypedParamsAddULLong(
                &raw mut self.array,
                &raw mut self.count,
                &raw mut self.capacity,
                name.as_ptr(),
                limit,
            )
        })
        .map(drop)
    }

    pub(super) fn raw(&self) -> (sys::virTypedParameterPtr, c_uint) {
        (self.array, c_uint::try_from(self.count).unwrap_or(0))
    }
}

impl Drop for MigrationParams {
    fn drop(&mut self) {
        if !self.array.is_null() {
            // SAFETY: libvirt's own function for such an array; it is not used again.
            unsafe { sys::virTypedParamsFree(self.array, self.count) };
        }
    }
}
