//! Processors and where their memory is.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tree;

/// Flags that decide what runs here, or how well.
const FLAGS: [&str; 27] = [
    "vmx",
    "svm",
    "hypervisor",
    "aes",
    "pclmulqdq",
    "sha_ni",
    "rdrand",
    "rdseed",
    "avx",
    "avx2",
    "avx512f",
    "amx_tile",
    "bmi2",
    "sgx",
    "tme",
    "sme",
    "sev",
    "sev_es",
    "sev_snp",
    "tdx_guest",
    "sha1",
    "sha2",
    "sha512",
    "asimd",
    "sve",
    "sve2",
    "atomics",
];

/// A machine's processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Processors {
    /// The instruction set, as the kernel calls it: `x86_64`, `aarch64`, `riscv64`, ...
    pub architecture: String,
    /// The model's name, if the processor or the kernel says it.
    pub model: Option<String>,
    /// How many processors are plugged in.
    pub sockets: u32,
    /// How many cores they have together.
    pub cores: u32,
    /// How many threads can run at a time.
    pub threads: u32,
    /// Those of its features that decide what runs here.
    pub flags: Vec<String>,
    /// Parts whose memory is nearer to some of the processors.
    pub numa_nodes: Vec<NumaNode>,
}

/// Some processors with the memory that is near to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NumaNode {
    /// Its number.
    pub number: u32,
    /// How many threads it has.
    pub threads: u32,
    /// Its memory in bytes.
    pub memory: u64,
}

impl Processors {
    pub(super) fn read(tree: &Tree, machine: &str) -> Self {
        let info = tree.text("proc/cpuinfo").unwrap_or_default();
        let value = |keys: &[&str]| {
            info.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                keys.contains(&key.trim()).then(|| value.trim())
            })
        };
        let present: BTreeSet<&str> =
            value(&["flags", "Features", "isa"]).unwrap_or_default().split_whitespace().collect();
        let model = value(&["model name", "Model", "uarch", "cpu model"]).filter(|model| !model.is_empty());
        let listed = info
            .lines()
            .filter(|line| line.split_once(':').is_some_and(|(key, _)| key.trim() == "processor"));
        let online = match list(&tree.word("sys/devices/system/cpu/online").unwrap_or_default()) {
            numbers if numbers.is_empty() => {
                (0..u32::try_from(listed.count()).unwrap_or(u32::MAX).max(1)).collect()
            }
            numbers => numbers,
        };
        let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
        for number in &online {
            let topology =
                |file: &str| tree.number(&format!("sys/devices/system/cpu/cpu{number}/topology/{file}"));
            let socket = topology("physical_package_id").unwrap_or(0);
            sockets.insert(socket);
            cores.insert((socket, topology("core_id").unwrap_or((*number).into())));
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            architecture: architecture(machine),
            model: model.map(|model| hac::text::printable(model, super::WORD_MAX)),
            sockets: count(sockets.len()),
            cores: count(cores.len()),
            threads: count(online.len()),
            flags: FLAGS
                .iter()
                .filter(|flag| present.contains(*flag))
                .map(|flag| (*flag).to_owned())
                .collect(),
            numa_nodes: numa_nodes(tree),
        }
    }
}

/// An architecture by the name that images have for it too.
fn architecture(machine: &str) -> String {
    match machine {
        "amd64" => "x86_64".to_owned(),
        "arm64" => "aarch64".to_owned(),
        other => hac::text::printable(other, super::WORD_MAX),
    }
}

fn numa_nodes(tree: &Tree) -> Vec<NumaNode> {
    let folder = "sys/devices/system/node";
    let mut nodes: Vec<NumaNode> = tree
        .names(folder)
        .iter()
        .filter_map(|name| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            let threads = list(&tree.word(&format!("{folder}/{name}/cpulist")).unwrap_or_default()).len();
            let meminfo = tree.text(&format!("{folder}/{name}/meminfo")).unwrap_or_default();
            let kib = meminfo.lines().find_map(|line| {
                let (_, rest) = line.split_once("MemTotal:")?;
                rest.split_whitespace().next()?.parse::<u64>().ok()
            });
            let memory = kib.unwrap_or(0).saturating_mul(1024);
            Some(NumaNode { number, threads: u32::try_from(threads).unwrap_or(u32::MAX), memory })
        })
        .collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// The most numbers that a list is believed to name: the kernel is built for 8192 at most.
const NUMBERS_MAX: u32 = 8192;

/// The numbers of a list such as `0-3,8`. What isn't one names nothing.
fn list(text: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        Some(first..=last.min(NUMBERS_MAX))
    };
    text.split(',').filter_map(range).flatten().collect()
}
