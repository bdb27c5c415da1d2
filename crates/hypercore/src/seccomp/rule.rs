//! Rules of filters as the OCI runtime specification writes them (`linux.seccomp`). `build.rs` has this file too, to compile
//! what they say.

use serde_json::{Value, json};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Allows system calls with any arguments.
pub(crate) fn any(names: &[&str]) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW" })
}

/// Allows a system call where this argument, counted from 0, has this value.
pub(crate) fn equal(name: &str, index: u32, value: u32) -> Value {
    with(name, &[is(index, value)])
}

/// Allows a system call where the bits of this argument that are in the mask have this value.
pub(crate) fn masked(name: &str, index: u32, mask: u32, value: u32) -> Value {
    with(name, &[is_masked(index, mask, value)])
}

/// Allows a system call where all of this holds.
pub(crate) fn with(name: &str, conditions: &[Value]) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": conditions })
}

/// That an argument has this value.
pub(crate) fn is(index: u32, value: u32) -> Value {
    json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" })
}

/// That the bits of an argument that are in the mask have this value.
pub(crate) fn is_masked(index: u32, mask: u32, value: u32) -> Value {
    json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

/// Answers a system call as a kernel that doesn't know it, so that programs fall back to an older one: for those whose flags lie in
/// memory, where no filter can look.
pub(crate) fn absent(name: &str) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS })
}

/// A filter that allows what these rules do and fails all else with `EPERM`.
pub(crate) fn filter(architectures: &[&str], rules: &[Value]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures,
        "syscalls": rules,
    })
}
