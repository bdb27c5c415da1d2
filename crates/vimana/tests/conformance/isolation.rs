//! The isolations, and whether this machine has them.

use std::fmt;

/// An isolation that the suite runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    MicroVm,
    Container,
    Wasm,
}

impl Isolation {
    pub const ALL: [Self; 3] = [Self::MicroVm, Self::Container, Self::Wasm];

    /// As the manifest writes it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::MicroVm => "MicroVM",
            Self::Container => "Container",
            Self::Wasm => "Wasm",
        }
    }

    /// As tests are named by it.
    pub fn module(self) -> &'static str {
        match self {
            Self::MicroVm => "microvm",
            Self::Container => "container",
            Self::Wasm => "wasm",
        }
    }

    /// The tag of its image in the layout.
    pub fn tag(self) -> &'static str {
        match self {
            Self::MicroVm | Self::Container => "native",
            Self::Wasm => "wasm",
        }
    }

    /// Why this machine can't give it, from the report of `vimana doctor --json`.
    pub fn missing(self, report: &serde_json::Value) -> Option<String> {
        let none = Vec::new();
        let all = report["isolations"].as_array().unwrap_or(&none);
        let mut reasons = Vec::new();
        for found in all.iter().filter(|found| found["kind"] == self.kind()) {
            let missing = found["missing"].as_array().unwrap_or(&none);
            if missing.is_empty() {
                return None;
            }
            reasons.extend(missing.iter().filter_map(|reason| reason.as_str().map(str::to_owned)));
        }
        Some(if reasons.is_empty() {
            "vimana doctor doesn't know of it".to_owned()
        } else {
            reasons.join("; ")
        })
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}
