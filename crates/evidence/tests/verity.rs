//! The hash tree against `veritysetup`, and proofs against forgery.
#![allow(
    missing_docs,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr
)]

use std::io::Write as _;
use std::process::Command;

use evidence::verity::{BLOCK, NoData, Refuted, Tree, Verity, check};
use proptest::prelude::*;

fn skipped(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
}

/// Bytes that differ from block to block, without randomness.
fn data(blocks: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(blocks * BLOCK);
    while bytes.len() < blocks * BLOCK {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes
}

fn verity(bytes: &[u8], salt: &[u8]) -> Verity {
    let mut tree = Tree::new(salt);
    tree.update(bytes);
    tree.finish().unwrap()
}

fn tree_bytes(verity: &Verity) -> Vec<u8> {
    verity.tree().flatten().copied().collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn root_and_tree_are_those_of_veritysetup() {
    for blocks in [1, 2, 127, 128, 129, 1000, 128 * 128, 128 * 128 + 1] {
        for salt in ["", "00ff10", &"ab".repeat(32)] {
            let bytes = data(blocks);
            let folder = tempfile::tempdir().unwrap();
            let (data_path, hash_path) = (folder.path().join("data"), folder.path().join("hash"));
            std::fs::File::create(&data_path).unwrap().write_all(&bytes).unwrap();
            let output = Command::new("veritysetup")
                .args(["format", "--no-superblock", "--format=1", "--hash=sha256"])
                .args(["--data-block-size=4096", "--hash-block-size=4096"])
                .arg(format!("--salt={}", if salt.is_empty() { "-" } else { salt }))
                .args([&data_path, &hash_path])
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
                .output();
            let Ok(output) = output else {
                return skipped("root_and_tree_are_those_of_veritysetup", "veritysetup isn't installed");
            };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            let salt_bytes: Vec<u8> = (0..salt.len() / 2)
                .map(|at| u8::from_str_radix(&salt[at * 2..at * 2 + 2], 16).unwrap())
                .collect();
            let ours = verity(&bytes, &salt_bytes);
            assert!(text.contains(&hex(&ours.root)), "{blocks} blocks, salt {salt}: {text}");
            assert_eq!(ours.data_blocks, blocks as u64);
            let mut theirs = std::fs::read(&hash_path).unwrap_or_default();
            theirs.resize(theirs.len().next_multiple_of(BLOCK), 0);
            assert!(tree_bytes(&ours) == theirs, "another tree over {blocks} blocks, salt {salt}");
            assert_eq!(ours.tree_bytes(), theirs.len() as u64);
        }
    }
}

#[test]
fn the_root_of_one_block_is_its_own_hash() {
    use sha2::Digest as _;
    let bytes = data(1);
    let one = verity(&bytes, b"salt");
    let expected: [u8; 32] = sha2::Sha256::new().chain_update(b"salt").chain_update(&bytes).finalize().into();
    assert_eq!(one.root, expected);
    assert_eq!(one.tree_bytes(), 0);
}

#[test]
fn there_is_no_tree_over_nothing() {
    assert_eq!(Tree::new(b"").finish(), Err(NoData));
}

#[test]
fn a_begun_block_counts_as_padded_with_zeros() {
    let mut padded = data(3);
    padded[2 * BLOCK + 17..].fill(0);
    assert_eq!(verity(&padded[..2 * BLOCK + 17], b""), verity(&padded, b""));
}

#[test]
fn a_replaced_block_is_as_if_pushed_at_first() {
    let bytes = data(200);
    let mut other = bytes.clone();
    other[..BLOCK].fill(7);
    let mut tree = Tree::new(b"");
    tree.update(&other);
    tree.replace_block(0, bytes[..BLOCK].try_into().unwrap()).unwrap();
    assert_eq!(tree.replace_block(200, &[0; BLOCK]).unwrap_err().blocks, 200);
    assert_eq!(tree.replace_block(u64::MAX, &[0; BLOCK]).unwrap_err().index, u64::MAX);
    assert_eq!(tree.finish().unwrap(), verity(&bytes, b""));
}

#[test]
fn a_proof_of_another_height_is_refused() {
    let bytes = data(129);
    let verity = verity(&bytes, b"");
    let proof = verity.prove(0).unwrap();
    let block = bytes[..BLOCK].try_into().unwrap();
    assert_eq!(check(&verity.root, 129, b"", block, &proof), Ok(()));
    // A hash block mustn't pass for a data block of a smaller volume.
    let mut shorter = proof.clone();
    let hash_block = shorter.path.remove(0);
    let refuted = check(&verity.root, 129, b"", &hash_block, &shorter);
    assert_eq!(refuted, Err(Refuted::Depth { given: 1, wanted: 2 }));
    assert!(matches!(check(&verity.root, 129, b"", block, &shorter), Err(Refuted::Depth { .. })));
    assert_eq!(verity.prove(129).unwrap_err().blocks, 129);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_does_not_depend_on_how_the_bytes_arrive(
        blocks in 1usize..300,
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let bytes = data(blocks);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        at.sort_unstable();
        let mut tree = Tree::new(b"x");
        let mut from = 0;
        for to in at {
            tree.update(&bytes[from..to]);
            from = to;
        }
        tree.update(&bytes[from..]);
        prop_assert_eq!(tree.finish().unwrap(), verity(&bytes, b"x"));
        let mut whole = Tree::new(b"x");
        for block in bytes.as_chunks::<BLOCK>().0 {
            whole.push_block(block);
        }
        prop_assert_eq!(whole.finish().unwrap(), verity(&bytes, b"x"));
    }

    #[test]
    fn every_block_can_be_proven_and_nothing_else(
        blocks in 1usize..400,
        which in any::<proptest::sample::Index>(),
        flip in any::<proptest::sample::Index>(),
        bit in 0u8..8,
    ) {
        let bytes = data(blocks);
        let verity = verity(&bytes, b"salt");
        let index = which.index(blocks);
        let mut block: [u8; BLOCK] = bytes[index * BLOCK..][..BLOCK].try_into().unwrap();
        let mut proof = verity.prove(index as u64).unwrap();
        let count = blocks as u64;
        prop_assert_eq!(check(&verity.root, count, b"salt", &block, &proof), Ok(()));

        let wrong_salt = check(&verity.root, count, b"tlas", &block, &proof);
        prop_assert!(wrong_salt.is_err());
        let mut elsewhere = proof.clone();
        elsewhere.index += 1;
        prop_assert!(check(&verity.root, count, b"salt", &block, &elsewhere).is_err());

        // One flipped bit, anywhere in block, path or root, refutes.
        let spot = flip.index(BLOCK * (1 + proof.path.len()) + 32);
        let mut root = verity.root;
        if spot < BLOCK {
            block[spot] ^= 1 << bit;
        } else if spot < BLOCK * (1 + proof.path.len()) {
            proof.path[spot / BLOCK - 1][spot % BLOCK] ^= 1 << bit;
        } else {
            root[spot % BLOCK] ^= 1 << bit;
        }
        prop_assert!(check(&root, count, b"salt", &block, &proof).is_err());
    }
}
