//! Builds the guest binary, `spacecore`, and leaves it where `src/guest.rs` embeds it. The mechanism is described there.
//! Compiles the seccomp filters of containers and jails beside it: that takes as long as all the rest of a container's start.

#[path = "src/driver/container/seccomp.rs"]
mod container;
#[path = "src/jail/filter.rs"]
mod jail;
#[path = "src/seccomp/rule.rs"]
mod rule;
/// The name that the library has for it, by which the others know it.
mod seccomp {
    pub(crate) use super::rule;
}

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use serde_json::Value;
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
    for filter in ["src/driver/container/seccomp.rs", "src/jail/filter.rs", "src/seccomp/rule.rs"] {
        println!("cargo::rerun-if-changed={}", here.join(filter).display());
    }
    compile(&container::filter(false), &fs::File::create(out.join("container.bpf"))?)?;
    compile(&container::filter(true), &fs::File::create(out.join("container-with-folders.bpf"))?)?;
    compile(&jail::filter(false), &fs::File::create(out.join("emulator.bpf"))?)?;
    compile(&jail::filter(true), &fs::File::create(out.join("kvm.bpf"))?)?;
    compile(&jail::wasm(), &fs::File::create(out.join("wasm.bpf"))?)?;
    compile(&jail::wasm_sockets(), &fs::File::create(out.join("wasm-sockets.bpf"))?)
}

/// Compiles a filter, described as in an OCI runtime's configuration, to the kernel's own form.
fn compile(filter: &Value, to: &fs::File) -> Result<(), Box<dyn Error>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let errno = |value: &Value| i32::try_from(number(value)).map(ScmpAction::Errno);
    let mut context = ScmpFilterContext::new(errno(&filter["defaultErrnoRet"])?)?;
    for architecture in list(&filter["architectures"]) {
        context.add_arch(text(&architecture).parse::<ScmpArch>()?)?;
    }
    for rule in list(&filter["syscalls"]) {
        let action = match rule["action"].as_str() {
            Some("SCMP_ACT_ALLOW") => ScmpAction::Allow,
            Some("SCMP_ACT_ERRNO") => errno(&rule["errnoRet"])?,
            other => return Err(format!("the filter has the action {other:?}").into()),
        };
        let arguments = list(&rule["args"]).into_iter().map(|argument| {
            let (index, value) = (u32::try_from(number(&argument["index"]))?, number(&argument["value"]));
            let (operator, value) = match argument["op"].as_str() {
                Some("SCMP_CMP_EQ") => (ScmpCompareOp::Equal, value),
                Some("SCMP_CMP_NE") => (ScmpCompareOp::NotEqual, value),
                Some("SCMP_CMP_MASKED_EQ") => {
                    (ScmpCompareOp::MaskedEqual(value), number(&argument["valueTwo"]))
                }
                other => return Err(format!("the filter has the operator {other:?}").into()),
            };
            Ok(ScmpArgCompare::new(index, operator, value))
        });
        let arguments = arguments.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        for name in list(&rule["names"]) {
            // A library that doesn't know a system call yet leaves it forbidden.
            if let Ok(call) = ScmpSyscall::from_name(&text(&name)) {
                context.add_rule_conditional(action, call, &arguments)?;
            }
        }
    }
    Ok(context.export_bpf(to)?)
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
