//! The reference as a page.

use super::{Explanation, all};

const INTRODUCTION: &str = "\
# The manifest

<!-- Generated from crates/hac/src/reference/keys.txt by `cargo test -p hac`; edit that file instead. -->

A `hac.toml` says what hardware a workload needs and how it is operated. TOML and YAML (and JSON, which is YAML) are read
into the same model; `vimana hac convert` translates. Only [`spec.deployment.image`](#specdeploymentimage) must be given.

- `vimana hac init` writes a commented manifest, `vimana hac check` says everything that is wrong with one at once,
  `vimana hac explain KEY` prints a section of this page, and `vimana hac schema` a JSON Schema for editors.
- Unknown keys are errors. Words such as `MicroVM` are read in any case.
- `[]` in a path stands for any item of a list.
- A file has at most 1 MiB. YAML anchors, aliases and tags aren't accepted, and tabs can't indent.

| quantity | written as |
|---|---|
| size | `8Gi`, `512MiB` (1024s); `100MB`, `100mb`, `1G` (1000s); a bare number is in bytes |
| size in a second | a size, with `/s` or without |
| bandwidth | `1Gbps`, `100Mbps`, `64kbps` in bits; a bare number is in Gbps; `MBps` is refused |
| CPU | `\"4\"`, `4`, `0.5`, `\"500m\"` |
| time | `500ms`, `30s`, `1m30s`, `2h`, `1d`; a bare number is in seconds |
| amount of the token | `\"0.25\"`, with up to 9 decimals |

What follows from what: `criteria.performance = \"high\"` changes the defaults of `cpu_pinning` and `class`;
`failover.strategy = \"auto-recovery\"` that of `restart.policy`; `operations.updateStrategy` and `operations.scaling` are
short for `spec.update.strategy` and `spec.scaling`; `verification.modes` decides on `replicas` and `quorum`. What a table
says refines a short form; the opposite of one is an error that shows both lines.
";

/// Prints the reference of the manifest as Markdown.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    for key in all() {
        section(&key, &mut out);
    }
    out
}

fn section(key: &Explanation, out: &mut String) {
    let top = !key.path.contains('.') || (key.path.matches('.').count() == 1 && !key.keys.is_empty());
    let level = if top { "##" } else { "###" };
    out.push_str(&format!("\n{level} `{}`\n\n{}\n\n", key.path, key.effect));
    out.push_str(&format!("- type: {}\n- default: {}\n", key.kind, key.default));
    if !key.values.is_empty() {
        let values: Vec<_> = key.values.iter().map(|value| format!("`{value}`")).collect();
        out.push_str(&format!("- values: {}\n", values.join(", ")));
    }
    out.push_str(&format!("\n```toml\n{}\n```\n", key.example.join("\n")));
}
