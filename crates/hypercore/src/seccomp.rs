//! Seccomp filters as the kernel takes them. `build.rs` compiles them from the lists beside the drivers.

pub(crate) mod rule;

/// Reads a compiled filter: 8 bytes for each instruction (`struct sock_filter` of `linux/filter.h`).
pub(crate) fn instructions(compiled: &[u8]) -> Vec<libc::sock_filter> {
    let (instructions, _) = compiled.as_chunks::<8>();
    let instruction = |&[a, b, jt, jf, k0, k1, k2, k3]: &[u8; 8]| libc::sock_filter {
        code: u16::from_ne_bytes([a, b]),
        jt,
        jf,
        k: u32::from_ne_bytes([k0, k1, k2, k3]),
    };
    instructions.iter().map(instruction).collect()
}
