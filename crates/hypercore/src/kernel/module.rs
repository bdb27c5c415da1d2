//! Kernel modules: what they need, and in which order they are loaded.
//!
//! What a module needs stands in the module itself, in its section `.modinfo` (`depends=` and `softdep=pre:`), which is
//! where `depmod` and the kernel look too. Packages don't carry `modules.dep`; it is made when they are installed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use super::image;

/// The largest module that is read, in bytes.
pub(super) const MODULE_MAX: u64 = 64 << 20;
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A module's name as the kernel has it: `dm-verity.ko.xz` is `dm_verity`. Nothing if it isn't a module's file name.
pub(super) fn name(file: &str) -> Option<String> {
    let (stem, packed) = file.split_once(".ko")?;
    let known = ["", ".xz", ".zst", ".gz"].contains(&packed);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (known && !stem.is_empty() && stem.len() <= 64 && stem.bytes().all(plain)).then(|| normal(stem))
}

/// The kernel takes `-` and `_` in a module's name for the same.
pub(super) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Unpacks a module, and takes its signature off: the guest would only spend time on a check that the store's digest has
/// made already.
pub(super) fn plain(file: &str, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let read = |stream: &mut dyn Read| {
        let mut unpacked = Vec::new();
        stream.take(MODULE_MAX.saturating_add(1)).read_to_end(&mut unpacked)?;
        if unpacked.len() as u64 > MODULE_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(unpacked)
    };
    let mut module = match file.rsplit_once('.').map(|(_, packed)| packed) {
        Some("xz") => image::xz(&bytes, MODULE_MAX)?,
        Some("zst") => read(&mut zstd::Decoder::new(&bytes[..])?)?,
        Some("gz") => read(&mut flate2::read::GzDecoder::new(&bytes[..]))?,
        _ => bytes,
    };
    if let Some(length) = unsigned(&module) {
        module.truncate(length);
    }
    Ok(module)
}

/// The length of a signed module without its signature (`struct module_signature` in the kernel's sources).
fn unsigned(module: &[u8]) -> Option<usize> {
    let body = module.strip_suffix(SIGNED)?;
    let (rest, trailer) = body.split_last_chunk::<12>()?;
    let [_, _, _, signer, key, _, _, _, a, b, c, d] = *trailer;
    let signature = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    rest.len().checked_sub(signature)?.checked_sub(signer.into())?.checked_sub(key.into())
}

/// What a module says it needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Must be loaded before it.
    pub(super) hard: Vec<String>,
    /// Are loaded before it where they exist.
    pub(super) soft: Vec<String>,
}

/// Reads what an unpacked module needs; nothing if it isn't a module.
pub(super) fn needs(module: &[u8]) -> Option<Needs> {
    let section = modinfo(module)?;
    let mut needs = Needs::default();
    for field in section.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok()) {
        if let Some(names) = field.strip_prefix("depends=") {
            needs.hard.extend(names.split(',').filter(|name| !name.is_empty()).map(normal));
        }
        if let Some(softdep) = field.strip_prefix("softdep=pre:") {
            let names = softdep.split_whitespace().take_while(|word| *word != "post:");
            needs.soft.extend(names.map(normal));
        }
    }
    Some(needs)
}

/// The section `.modinfo` of a 64-bit ELF object.
fn modinfo(module: &[u8]) -> Option<&[u8]> {
    if module.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |at: usize| {
        Some(usize::from(u16::from_le_bytes(module.get(at..at.checked_add(2)?)?.try_into().ok()?)))
    };
    let word = |at: usize| {
        usize::try_from(u32::from_le_bytes(module.get(at..at.checked_add(4)?)?.try_into().ok()?)).ok()
    };
    let long = |at: usize| {
        usize::try_from(u64::from_le_bytes(module.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
    };
    let (table, size, count, strings) = (long(40)?, half(58)?, half(60)?, half(62)?);
    let header = |index: usize| table.checked_add(index.checked_mul(size)?);
    let bounds = |index: usize| {
        let header = header(index)?;
        let begin = long(header.checked_add(24)?)?;
        Some((begin, begin.checked_add(long(header.checked_add(32)?)?)?))
    };
    let (begin, end) = bounds(strings)?;
    let names = module.get(begin..end)?;
    (0..count).find_map(|index| {
        let name = names.get(word(header(index)?)?..)?;
        let (begin, end) = bounds(index)?;
        name.starts_with(b".modinfo\0").then(|| module.get(begin..end))?
    })
}

/// Puts the modules `wanted` and all that they need in an order in which each comes after what it needs. Names that
/// `needs` doesn't have are left out: they are built in. A circle is cut where it closes.
pub(super) fn load_order(wanted: &[String], needs: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted {
        // Depth first without recursion: a module is put down once all that it needs has been.
        let mut stack = vec![(name, false)];
        while let Some((name, ready)) = stack.pop() {
            if ready {
                order.push(name.clone());
                continue;
            }
            let Some(before) = needs.get(name) else { continue };
            if !seen.insert(name) {
                continue;
            }
            stack.push((name, true));
            stack.extend(before.iter().rev().map(|before| (before, false)));
        }
    }
    order
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A 64-bit ELF object that has nothing but `.modinfo` and its string table.
    pub(crate) fn a_module(modinfo: &str) -> Vec<u8> {
        let strings = b"\0.modinfo\0";
        let (info_at, strings_at) = (64, 64 + modinfo.len());
        let table = strings_at + strings.len();
        let mut module = vec![0_u8; 64];
        module[..6].copy_from_slice(b"\x7fELF\x02\x01");
        module[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        module[58] = 64;
        module[60] = 2;
        module[62] = 1;
        module.extend(modinfo.as_bytes());
        module.extend(strings);
        for (name, at, length) in [(1_u32, info_at, modinfo.len()), (0, strings_at, strings.len())] {
            let mut header = vec![0_u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            module.extend(header);
        }
        module
    }

    #[test]
    fn a_file_name_gives_the_kernel_s_name() {
        assert_eq!(name("dm-verity.ko.xz").unwrap(), "dm_verity");
        assert_eq!(name("virtio.ko").unwrap(), "virtio");
        for other in ["modules.dep", ".ko", "a.ko.bz2", "a b.ko", "../x.ko"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_module_needs_is_read_from_itself() {
        let module =
            a_module("license=GPL\0depends=virtio-ring,virtio\0softdep=pre: crc32c post: x\0depends=\0");
        let found = needs(&module).unwrap();
        assert_eq!(found.hard, ["virtio_ring", "virtio"]);
        assert_eq!(found.soft, ["crc32c"]);
        assert_eq!(needs(b"\x7fELF"), None);
    }

    #[test]
    fn a_signature_is_taken_off_and_nothing_else() {
        let module = a_module("depends=\0");
        let mut signed = module.clone();
        signed.extend([9; 30]);
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 30]);
        signed.extend(SIGNED);
        assert_eq!(plain("a.ko", signed.clone()).unwrap(), module);
        assert_eq!(plain("a.ko", module.clone()).unwrap(), module);
        assert_eq!(plain("a.ko.zst", zstd::encode_all(&signed[..], 1).unwrap()).unwrap(), module);
        let mut lying = module.clone();
        lying.extend([0xff; 12]);
        lying.extend(SIGNED);
        assert_eq!(plain("a.ko", lying.clone()).unwrap(), lying);
    }

    proptest! {
        #[test]
        fn each_module_comes_once_and_after_what_it_needs(
            edges in proptest::collection::vec((0_usize..20, 0_usize..20), 0..60),
            wanted in proptest::collection::vec(0_usize..20, 1..5),
        ) {
            let label = |n: usize| format!("m{n}");
            let mut needs: BTreeMap<String, Vec<String>> = (0..20).map(|n| (label(n), Vec::new())).collect();
            // Edges to smaller numbers only: no circle.
            for (from, to) in edges.into_iter().filter(|(from, to)| from > to) {
                needs.get_mut(&label(from)).unwrap().push(label(to));
            }
            let wanted: Vec<String> = wanted.into_iter().map(label).collect();
            let order = load_order(&wanted, &needs);
            let place = |name: &String| order.iter().position(|other| other == name);
            for name in &wanted {
                prop_assert!(place(name).is_some());
            }
            for name in &order {
                prop_assert_eq!(order.iter().filter(|other| *other == name).count(), 1);
                for before in &needs[name] {
                    prop_assert!(place(before) < place(name));
                }
            }
        }

        #[test]
        fn a_circle_ends(edges in proptest::collection::vec((0_usize..5, 0_usize..5), 0..30)) {
            let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (from, to) in edges {
                needs.entry(from.to_string()).or_default().push(to.to_string());
            }
            let all: Vec<String> = needs.keys().cloned().collect();
            prop_assert_eq!(load_order(&all, &needs).len(), all.len());
        }

        #[test]
        fn a_damaged_module_never_panics(mut module in Just(a_module("depends=a,b\0")),
            places in proptest::collection::vec((0_usize..220, any::<u8>()), 1..20)) {
            for (place, byte) in places {
                if let Some(slot) = module.get_mut(place) { *slot = byte; }
            }
            let _ = (needs(&module), unsigned(&module));
        }
    }
}
