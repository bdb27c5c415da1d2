//! Arbitrary layers against a model that knows nothing but paths.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::archive::{Archive, Header, Image, noise, prose};

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Noise(usize),
    Prose(usize),
    Zeros(usize),
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Noise(length) => noise(*length, *length as u64 + 1),
            Self::Prose(length) => prose(*length),
            Self::Zeros(length) => vec![0; *length],
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Directory(String, u16),
    File(String, Content, u16),
    Symlink(String, String),
    HardLink(String, String),
    Device(String, u8),
    Whiteout(String),
    Opaque(String),
}

/// Few names, so that they meet.
fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["[a-c]", Just("x".to_owned())], 1..4)
        .prop_map(|names| names.join("/"))
}

fn content() -> impl Strategy<Value = Content> {
    let length = prop_oneof![4 => 0usize..600, 1 => 100_000usize..400_000, 1 => Just(131_072usize)];
    (length, 0..3).prop_map(|(length, kind)| match kind {
        0 => Content::Noise(length),
        1 => Content::Prose(length),
        _ => Content::Zeros(length),
    })
}

pub(crate) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        3 => (path(), 0u16..0o7777).prop_map(|(path, mode)| Operation::Directory(path, mode)),
        4 => (path(), content(), 0u16..0o7777).prop_map(|(path, content, mode)| Operation::File(path, content, mode)),
        1 => (path(), path()).prop_map(|(path, target)| Operation::Symlink(path, target)),
        2 => (path(), path()).prop_map(|(path, target)| Operation::HardLink(path, target)),
        1 => (path(), 1u8..200).prop_map(|(path, minor)| Operation::Device(path, minor)),
        2 => path().prop_map(Operation::Whiteout),
        1 => path().prop_map(Operation::Opaque),
    ];
    proptest::collection::vec(operation, 0..24)
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory {
        mode: u16,
        opaque: bool,
        implied: bool,
    },
    /// What it is, its content, its mode, and which operation made it: hard links have that in common.
    Other(&'static str, Vec<u8>, u16, usize),
    Whiteout,
}

#[derive(Clone, Debug)]
struct Model(BTreeMap<String, Node>);

impl Model {
    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.0.retain(|other, _| other != path && !other.starts_with(&below));
    }

    /// Makes the parents; false when something is in the way.
    fn parents(&mut self, path: &str) -> bool {
        let parents: Vec<_> = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
        let blocks = |parent: &String| matches!(self.0.get(parent), Some(Node::Other(..)));
        if parents.iter().any(blocks) {
            return false;
        }
        for parent in parents {
            let hidden = self.0.get(&parent) == Some(&Node::Whiteout);
            if hidden || !self.0.contains_key(&parent) {
                self.0.insert(parent, Node::Directory { mode: 0o755, opaque: hidden, implied: true });
            }
        }
        true
    }

    /// Does what the operation should do; false when it would be refused, and nothing is done.
    fn apply(&mut self, operation: &Operation, number: usize) -> bool {
        let before = self.0.clone();
        let done = self.try_apply(operation, number);
        if !done {
            self.0 = before;
        }
        done
    }

    fn try_apply(&mut self, operation: &Operation, number: usize) -> bool {
        match operation {
            Operation::Directory(path, mode) => {
                if !self.parents(path) {
                    return false;
                }
                let opaque = match self.0.get(path) {
                    Some(Node::Directory { opaque, .. }) => *opaque,
                    Some(Node::Whiteout) => true,
                    _ => false,
                };
                self.0.insert(path.clone(), Node::Directory { mode: *mode, opaque, implied: false });
                true
            }
            Operation::File(path, content, mode) => {
                self.put(path, Node::Other("file", content.bytes(), *mode, number))
            }
            Operation::Symlink(path, target) => {
                self.put(path, Node::Other("symlink", target.clone().into(), 0o777, number))
            }
            Operation::Device(path, minor) => {
                self.put(path, Node::Other("char", format!("9:{minor}").into(), 0o600, number))
            }
            Operation::HardLink(path, target) => {
                // The parents are made first, and a target that isn't there any more for that is an error.
                if !self.parents(path) {
                    return false;
                }
                match self.0.get(target).cloned() {
                    Some(node @ Node::Other(..)) => path == target || self.put(path, node),
                    // An image may bring character devices 0:0 of its own, but the model has no links to them.
                    _ => false,
                }
            }
            Operation::Whiteout(path) => {
                if !self.parents(path) {
                    return false;
                }
                match self.0.get_mut(path) {
                    Some(Node::Directory { opaque, .. }) => *opaque = true,
                    Some(_) => {}
                    None => {
                        self.0.insert(path.clone(), Node::Whiteout);
                    }
                }
                true
            }
            Operation::Opaque(path) => {
                if !self.parents(&format!("{path}/x")) {
                    return false;
                }
                if let Some(Node::Directory { opaque, .. }) = self.0.get_mut(path) {
                    *opaque = true;
                }
                true
            }
        }
    }

    fn put(&mut self, path: &str, node: Node) -> bool {
        if !self.parents(path) {
            return false;
        }
        self.remove(path);
        self.0.insert(path.to_owned(), node);
        true
    }
}

fn whiteout_name(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((parent, name)) => format!("{parent}/.wh.{name}"),
        None => format!(".wh.{path}"),
    }
}

fn append(archive: Archive, operation: &Operation) -> Archive {
    match operation {
        Operation::Directory(path, mode) => {
            archive.raw(Header { mode: u32::from(*mode), ..Header::new(b'5', path.as_bytes()) }, b"")
        }
        Operation::File(path, content, mode) => {
            let header = Header { mode: u32::from(*mode), ..Header::new(b'0', path.as_bytes()) };
            archive.raw(header, &content.bytes())
        }
        Operation::Symlink(path, target) => {
            let link = target.as_bytes();
            archive.raw(Header { mode: 0o777, link, ..Header::new(b'2', path.as_bytes()) }, b"")
        }
        Operation::HardLink(path, target) => archive.hard_link(path, target),
        Operation::Device(path, minor) => {
            let device = (9, u64::from(*minor));
            archive.raw(Header { mode: 0o600, device, ..Header::new(b'3', path.as_bytes()) }, b"")
        }
        Operation::Whiteout(path) => archive.file(&whiteout_name(path), b""),
        Operation::Opaque(path) => archive.file(&format!("{path}/.wh..wh..opq"), b""),
    }
}

/// The layer that the operations make, without those that would be refused.
pub(crate) fn layer(operations: &[Operation]) -> Image {
    built(operations).1.converted()
}

fn built(operations: &[Operation]) -> (Model, Archive) {
    let mut model = Model(BTreeMap::new());
    let mut archive = Archive::default();
    for (number, operation) in operations.iter().enumerate() {
        if model.apply(operation, number) {
            archive = append(archive, operation);
        } else {
            let refused = append(archive.clone(), operation).end();
            let limits = image::layer::Limits::default();
            assert!(crate::archive::try_convert(&refused, &limits).is_err(), "{operation:?} wasn't refused");
        }
    }
    (model, archive)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_reads_back_as_what_its_entries_mean(operations in operations()) {
        let (Model(model), archive) = built(&operations);
        let image = archive.clone().converted();
        let seen = image.seen();
        prop_assert_eq!(seen.len(), model.len() + 1);
        for (path, node) in &model {
            let seen = &seen[path.as_bytes()];
            match node {
                Node::Directory { mode, opaque, implied } => {
                    prop_assert_eq!(seen.kind, "directory");
                    prop_assert_eq!(seen.mode, *mode);
                    let marks: Vec<_> = seen.xattrs.iter().map(|(name, _)| name.as_str()).collect();
                    prop_assert_eq!(marks.contains(&"trusted.overlay.opaque"), *opaque);
                    prop_assert_eq!(marks.contains(&"trusted.vimana.implied"), *implied);
                }
                Node::Other(kind, content, mode, made) => {
                    prop_assert_eq!((seen.kind, seen.mode), (*kind, *mode));
                    prop_assert!(&seen.content == content, "{}", path);
                    let same = model.values().filter(|node| matches!(node, Node::Other(.., other) if other == made));
                    prop_assert_eq!(seen.links as usize, same.count());
                }
                Node::Whiteout => {
                    prop_assert_eq!((seen.kind, seen.content.as_slice()), ("char", &b"0:0"[..]));
                }
            }
        }
        prop_assert!(archive.converted().bytes() == image.bytes());
    }
}
