//! What is asked for, and what is known: all that a plan is decided from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hac::Manifest;
use hypercore::confinement::Confinement;
use hypercore::driver::container::Ids;
use hypercore::jail::Strength;
use hypercore::network::{Carrier, Publish};
use serde::Serialize;
use spacecore::wire::message::TerminalSize;

use crate::volume::Content;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The manifest, with what the command line changes in it already applied.
    pub manifest: Manifest,
    /// Ports to publish; for a guest port they replace what the manifest says of it.
    pub publish: Vec<Publish>,
    /// Folders and files of the host to mount, beside those of the manifest.
    pub shares: Vec<Share>,
    /// Whether the workload gets this side's standard input.
    pub stdin: bool,
    /// The size of the terminal that the workload gets.
    pub terminal: Option<TerminalSize>,
    /// Whether the isolation is what the image demands, because nobody asked for one.
    pub by_image: bool,
    /// Who is to carry its network; whoever can where nobody says.
    pub carrier: Option<Carrier>,
    /// Whether the guest holds its layers to their Merkle roots also where that isn't the default.
    pub verity: bool,
}

/// A folder or file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Where it is on the host: an absolute path.
    pub source: PathBuf,
    /// Where the workload finds it: an absolute path.
    pub destination: String,
    /// Whether the workload can't write to it.
    pub readonly: bool,
    /// Whether it is a single file.
    pub file: bool,
}

/// What is known of machine, image and kernel.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The image's parts that matter here.
    pub image: ImageFacts,
    /// The guest kernel, where the isolation needs one.
    pub kernel: Option<KernelFacts>,
    /// The machine.
    pub machine: MachineFacts,
}

/// What a plan needs to know of a machine.
#[derive(Debug, Clone)]
pub struct MachineFacts {
    /// Why KVM doesn't work here; `None` where it does.
    pub kvm_missing: Option<String>,
    /// Why containers can't run here; `None` where they can, and for other isolations.
    pub container_missing: Option<String>,
    /// Why there is no control group for a virtual machine monitor here; `None` where there is one, and for other isolations.
    pub group_missing: Option<String>,
    /// How far the jail of a virtual machine monitor reaches here; `None` for isolations without one.
    pub jail: Option<Strength>,
    /// What the kernel has to confine a process with.
    pub confinement: Confinement,
    /// Why images aren't scanned, or are let through with grave flaws, before they run here; `None` where they are scanned.
    pub scan_missing: Option<String>,
    /// Whether the caller is root.
    pub is_root: bool,
    /// Whose ids of the host a container's would be.
    pub container_ids: Ids,
    /// Why the kernel can't carry spacecores' networks here; `None` where it can.
    pub routed_missing: Option<String>,
    /// What would keep its packets from leaving the machine, if anything.
    pub routed_hindered: Option<String>,
    /// CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// The names of the secrets that there are.
    pub secrets: BTreeSet<String>,
    /// What the volumes hold that this spacecore has on it already, by their names.
    pub volumes: BTreeMap<String, Content>,
}

/// What a plan needs to know of an image.
#[derive(Debug, Clone, Default)]
pub struct ImageFacts {
    /// Its name.
    pub reference: String,
    /// Its manifest's digest.
    pub digest: String,
    /// How to run it.
    pub config: image::ImageConfig,
    /// Its file systems, lowest first.
    pub layers: Vec<Layer>,
    /// The same as unpacked trees, where the isolation needs them.
    pub trees: Vec<PathBuf>,
    /// The Wasm program in it, if there is one.
    pub wasm: Option<WasmFacts>,
    /// What it demands of how it is run.
    pub settings: Option<hac::Settings>,
}

/// What a plan needs to know of a Wasm program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WasmFacts {
    /// What it is called: its `args[0]` where nothing else is said.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The SHA-256 digest of the file, in hexadecimal digits.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it imports sockets; without them it needs no network.
    pub sockets: bool,
}

/// One read-only file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its file.
    pub path: PathBuf,
    /// The digest of the layer that it was made from.
    pub digest: String,
    /// The size of the file in bytes, hash tree included.
    pub bytes: u64,
    /// The root of its Merkle tree, in hexadecimal digits.
    pub verity_root: String,
    /// Blocks of 4096 bytes that the tree covers; it starts at the block after them.
    pub data_blocks: u64,
    /// The block at which the tree starts.
    pub hash_start: u64,
}

/// What a plan needs to know of a guest kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KernelFacts {
    /// Its release, as `uname -r` says.
    pub release: String,
    /// The digest over image and modules.
    pub digest: String,
    /// Its image.
    pub path: PathBuf,
}
