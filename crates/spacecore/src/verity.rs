//! dm-verity: a block device whose every block is checked against a root hash.
//!
//! Source: the Linux kernel's `Documentation/admin-guide/device-mapper/verity.rst`.

use spacecore::refusal::refuse;
use spacecore::wire::message::{Refusal, RefusalKind, Verity};

use crate::mapper::Target;

fn check(verity: &Verity, serial: &str) -> Result<(), Refusal> {
    let is_hash = verity.root.len() == 64 && verity.root.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash || verity.data_blocks == 0 || verity.data_blocks > u64::MAX / 4096 {
        return Err(refuse(
            RefusalKind::Protocol,
            format!(
                "the Merkle tree of disk {serial:?} needs a root of 64 hexadecimal digits and at least one block"
            ),
        ));
    }
    Ok(())
}

/// What the kernel is told of a tree on this device.
fn parameters(node: &str, verity: &Verity) -> String {
    format!("1 {node} {node} 4096 4096 {} {} sha256 {} -", verity.data_blocks, verity.hash_start, verity.root)
}

/// Puts a device over `node` that yields only what matches the tree; returns its node.
///
/// # Errors
/// The tree's description makes no sense, or the kernel doesn't take it.
pub(crate) fn open(serial: &str, node: &str, verity: &Verity) -> Result<String, Refusal> {
    check(verity, serial)?;
    let target = Target {
        name: &format!("layer-{}", node.rsplit('/').next().unwrap_or(node)),
        shown: &format!("verity of disk {serial:?}"),
        kind: "verity",
        sectors: verity.data_blocks.saturating_mul(8),
        readonly: true,
    };
    target.make(&parameters(node, verity), RefusalKind::Root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Verity {
        Verity { root: "ab".repeat(32), data_blocks: 3, hash_start: 4 }
    }

    #[test]
    fn a_tree_is_told_as_the_kernel_reads_it() {
        let expected = format!("1 /dev/vda /dev/vda 4096 4096 3 4 sha256 {} -", "ab".repeat(32));
        assert_eq!(parameters("/dev/vda", &tree()), expected);
    }

    #[test]
    fn a_root_that_isnt_a_digest_is_refused() {
        let bad = Verity { root: "x 1 /dev/sda".to_owned(), ..tree() };
        assert_eq!(check(&bad, "l0").unwrap_err().kind, RefusalKind::Protocol);
        assert!(check(&tree(), "l0").is_ok());
    }
}
