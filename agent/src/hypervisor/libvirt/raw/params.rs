//! libvirt's typed parameters, as it answers with them. virt keeps its reader of them to itself.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint};

use virt::sys;

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
    /// Parameters for tests.
    #[cfg(test)]
    pub(in super::super) fn of(values: &[(&str, i64)]) -> Self {
        let named = |&(name, value): &(&str, i64)| (name.to_owned(), Value::Signed(value));
        Self(values.iter().map(named).collect())
    }

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

/// Copies a C string that libvirt keeps.
fn borrowed_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and libvirt's strings end in a zero; it is copied before any other call.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
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
