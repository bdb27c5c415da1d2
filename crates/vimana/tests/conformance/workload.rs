//! The workload: `probe.c` compiled for this machine and for WASI, packed into one OCI layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::Digest;
use serde_json::json;

use crate::isolation::Isolation;
use crate::vimana::layout;

const SOURCE: &str = include_str!("probe.c");

/// Changes whenever an image would.
const FORM: &str = "2";

/// Compiles what an isolation needs, if that wasn't done already, and gives the name of its image.
///
/// # Errors
/// A compiler isn't installed, or refuses.
pub fn image(folder: &Path, isolation: Isolation) -> Result<String, String> {
    let digest = Digest::of([SOURCE, FORM].concat().as_bytes());
    let key: String = digest.hex().chars().take(12).collect();
    let tag = isolation.tag();
    let layout = folder.join(format!("{tag}-{key}.oci"));
    if !layout.join("index.json").exists() {
        let program = compile(folder, isolation)?;
        // Made beside its place, so that it is there as a whole or not at all.
        let work = folder.join(format!("{tag}-{key}.new"));
        let _ = fs::remove_dir_all(&work);
        pack(&work, isolation, &program).map_err(|error| format!("the image can't be packed: {error}"))?;
        fs::rename(&work, &layout).map_err(|error| error.to_string())?;
    }
    Ok(format!("oci:{}:{tag}", layout.display()))
}

fn compile(folder: &Path, isolation: Isolation) -> Result<Vec<u8>, String> {
    let source = folder.join("probe.c");
    fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
    let out: PathBuf = folder.join(format!("probe-{}", isolation.tag()));
    let (compiler, flags, packages): (_, &[&str], _) = match isolation {
        Isolation::MicroVm | Isolation::Container => ("gcc", &["-static", "-s"], "gcc libc6-dev"),
        Isolation::Wasm => (
            "clang",
            &["--target=wasm32-wasi", "-Wl,--strip-all"],
            "clang lld wasi-libc libclang-rt-dev-wasm32",
        ),
    };
    let output = Command::new(compiler)
        .args(["-std=gnu2x", "-O2", "-Wall", "-Wextra", "-Werror"])
        .args(flags)
        .args([Path::new("-o"), &out, &source])
        .output()
        .map_err(|_| format!("{compiler} isn't installed (apt-get install {packages})"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!(
            "{compiler} can't compile probe.c (apt-get install {packages}): {}",
            said.trim()
        ));
    }
    fs::read(out).map_err(|error| error.to_string())
}

/// The root file system of the image as a layer: the program, users and groups, and a file that isn't executable.
fn layer(isolation: Isolation, program: &[u8]) -> std::io::Result<Vec<u8>> {
    let passwd = "root:x:0:0:root:/root:/bin/probe\nworker:x:1234:1234:worker:/home:/bin/probe\n";
    let group = "root:x:0:\nworker:x:1234:\nextra:x:2345:worker\nother:x:3456:worker\nforeign:x:4567:root\n";
    let name = program_path(isolation).trim_start_matches('/');
    let mut files: BTreeMap<&str, (u32, &[u8])> = BTreeMap::new();
    files.insert("etc/passwd", (0o644, passwd.as_bytes()));
    files.insert("etc/group", (0o644, group.as_bytes()));
    files.insert("etc/plain", (0o644, b"nothing to execute\n"));
    files.insert(name, (0o755, program));
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, mode, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if path == "home" {
            header.set_uid(1234);
            header.set_gid(1234);
        }
        archive.append_data(&mut header, path, content)
    };
    for folder in ["bin", "dev", "etc", "home", "proc", "run", "sys"] {
        add(folder, tar::EntryType::Directory, 0o755, b"")?;
    }
    add("tmp", tar::EntryType::Directory, 0o1777, b"")?;
    for (path, (mode, content)) in files {
        add(path, tar::EntryType::Regular, mode, content)?;
    }
    archive.into_inner()
}

/// Where the program is inside its image.
pub fn program_path(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::MicroVm | Isolation::Container => "/bin/probe",
        Isolation::Wasm => "/probe.wasm",
    }
}

fn pack(folder: &Path, isolation: Isolation, program: &[u8]) -> std::io::Result<()> {
    let bytes = layer(isolation, program)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": [program_path(isolation)],
            "Env": ["PATH=/bin", "IMAGE=of the image", "BOTH=of the image"],
            "StopSignal": "SIGUSR2",
        },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&bytes)] },
    });
    let config = ("application/vnd.oci.image.config.v1+json", &config);
    layout::write(folder, isolation.tag(), config, ("application/vnd.oci.image.layer.v1.tar", &bytes))
}
