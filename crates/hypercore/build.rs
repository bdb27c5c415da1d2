//! Builds the guest binary, `spacecore`, and leaves it where `src/guest.rs` embeds it. The mechanism is described there.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// The largest guest binary that is embedded, in bytes: every guest unpacks it from its initramfs at every boot.
const GUEST_MAX: u64 = 2 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = here.ancestors().nth(2).ok_or("crates/hypercore isn't in a workspace")?;
    for watched in ["crates/spacecore", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-changed={}", here.join("build.rs").display());

    let out = PathBuf::from(variable("OUT_DIR")?);
    let built = build(workspace, &out.join("guest"))?;
    let size = fs::metadata(&built)?.len();
    if size > GUEST_MAX {
        return Err(format!("the guest binary has {size} bytes; it must have at most {GUEST_MAX}").into());
    }
    let guest = fs::read(&built)?;
    fs::write(out.join("spacecore"), &guest)?;
    let digest: String = Sha256::digest(&guest).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=GUEST_DIGEST={digest}");
    Ok(())
}

fn build(workspace: &Path, target_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let target = format!("{architecture}-unknown-linux-gnu");
    let mut cargo = Command::new(variable("CARGO")?);
    // The outer build's flags, wrappers (clippy's too), targets and profiles are not the guest's.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let kept = ["CARGO_HOME", "CARGO_MAKEFLAGS", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"]
            .contains(&text.as_ref())
            || ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"]
                .iter()
                .any(|p| text.starts_with(p));
        if (text.starts_with("CARGO") || text.starts_with("RUST")) && !kept {
            cargo.env_remove(&name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static");
    cargo.current_dir(workspace).args([
        "build",
        "--locked",
        "--quiet",
        "-p",
        "spacecore",
        "--bin",
        "spacecore",
    ]);
    cargo.args(["--profile", "guest", "--target", &target, "--target-dir"]).arg(target_dir);
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the guest binary can't be built for {target} ({status}); see above").into());
    }
    Ok(target_dir.join(target).join("guest/spacecore"))
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
