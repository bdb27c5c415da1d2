//! The measuring program in every form that something runs: an image, a bundle, a Wasm module, an initramfs, a plain file.
//! Everything lies in one temporary folder, on the disk where Vimana keeps everything.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hypercore::guest::GUEST;
use hypercore::initramfs;
use node::home::Home;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::quantity::MEMORY_MIB;

/// The name of the program, also as a process.
pub const PROGRAM: &str = "measure";
/// Where the workload finds the folder of this machine that it is given.
pub const DATA: &str = "/data";
/// The size of the disk that a root file system gets for the file.
const STORAGE_MIB: u64 = 512;
/// The program for Wasm, as text.
const WASM: &str = include_str!("measure.wat");

/// The folder. It is removed when this is dropped.
pub struct Workload {
    folder: TempDir,
}

impl Workload {
    /// Writes everything.
    ///
    /// # Errors
    /// The folder can't be made or written.
    pub fn write(home: &Home) -> Result<Self> {
        fs::create_dir_all(home.root()).with_context(|| format!("can't make {}", home.root().display()))?;
        let folder = tempfile::Builder::new()
            .prefix(".bench-")
            .tempdir_in(home.root())
            .with_context(|| format!("can't make a folder in {}", home.root().display()))?;
        let workload = Self { folder };
        let written = workload.write_all(home);
        written.with_context(|| format!("can't write into {}", workload.folder.path().display()))?;
        Ok(workload)
    }

    fn write_all(&self, home: &Home) -> Result<()> {
        for folder in [self.home(), self.data(), self.rootfs().join(&DATA[1..]), self.state()] {
            fs::create_dir_all(folder)?;
        }
        // The home of what is measured is its own, so that nothing of it stays in the stores; only kernels are the same.
        fs::create_dir_all(home.kernels())?;
        symlink(home.kernels(), self.home().join("kernels"))?;
        for folder in ["proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(self.rootfs().join(folder))?;
        }
        fs::write(self.program(), GUEST)?;
        fs::set_permissions(self.program(), fs::Permissions::from_mode(0o755))?;
        fs::write(self.wasm(), wat::parse_str(WASM)?)?;
        fs::write(self.initramfs(), initramfs::build(GUEST, &[])?)?;
        write_layout(&self.image())?;
        for (wasm, storage) in [(false, false), (false, true), (true, false), (true, true)] {
            fs::write(self.manifest(wasm, storage), self.manifest_text(wasm, storage))?;
        }
        Ok(())
    }

    /// The manifest, for the image or for the Wasm module; the same but for a disk to write to.
    pub fn manifest(&self, wasm: bool, storage: bool) -> PathBuf {
        let kind = if wasm { "wasm" } else { "image" };
        self.folder().join(format!("{kind}{}.toml", if storage { "-storage" } else { "" }))
    }

    fn manifest_text(&self, wasm: bool, storage: bool) -> String {
        let storage =
            if storage && !wasm { format!("storage = \"{STORAGE_MIB}Mi\"\n") } else { String::new() };
        let image = if wasm {
            format!("wasm:{}", self.wasm().display())
        } else {
            format!("oci:{}", self.image().display())
        };
        format!(
            "apiVersion = \"vistara.eigenlayer/v1\"\nkind = \"AVSSpaceCore\"\n\n[metadata]\nname = \"bench\"\n\n\
             [spec.deployment]\nimage = {image:?}\n\n[spec.resources]\ncpu = \"1\"\nmemory = \"{MEMORY_MIB}Mi\"\n{storage}\n\
             [spec.networking]\nnetwork_type = \"none\"\n"
        )
    }

    /// The folder itself; the plain process writes its file here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `VIMANA_HOME` of what is measured.
    pub fn home(&self) -> PathBuf {
        self.folder().join("home")
    }

    /// The folder of this machine that a workload is given.
    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The image, an OCI layout.
    pub fn image(&self) -> PathBuf {
        self.folder().join("image.oci")
    }

    /// The Wasm module.
    pub fn wasm(&self) -> PathBuf {
        self.folder().join("measure.wasm")
    }

    /// The initramfs that holds only the measuring program.
    pub fn initramfs(&self) -> PathBuf {
        self.folder().join("initramfs.cpio")
    }

    /// The bundle for the OCI runtime.
    pub fn bundle(&self) -> PathBuf {
        self.folder().join("bundle")
    }

    /// Where the OCI runtime notes what it runs.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// The program itself.
    pub fn program(&self) -> PathBuf {
        self.rootfs().join(PROGRAM)
    }

    /// Writes the bundle's configuration for a start with these arguments.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_bundle(&self, args: &[String], with_data: bool) -> io::Result<()> {
        let data = with_data.then(|| self.data());
        fs::write(self.bundle().join("config.json"), bundle(args, data.as_deref()).to_string())
    }
}

/// A configuration as `crun spec` and `runc spec` write it, for these arguments.
fn bundle(args: &[String], data: Option<&Path>) -> Value {
    let mount = |kind: &str, destination: &str, options: &[&str]| json!({ "type": kind, "source": kind, "destination": destination, "options": options });
    let mut mounts = vec![
        mount("proc", "/proc", &[]),
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ];
    if let Some(data) = data {
        mounts
            .push(json!({ "type": "bind", "source": data, "destination": DATA, "options": ["bind", "rw"] }));
    }
    let mut namespaces: Vec<Value> =
        ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })).to_vec();
    let mut linux = json!({
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
        "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
    });
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if !user.is_root() {
        namespaces.push(json!({ "type": "user" }));
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": user.as_raw(), "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": group.as_raw(), "size": 1 }]);
    }
    linux["namespaces"] = json!(namespaces);
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": args, "env": ["PATH=/"], "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "bench", "mounts": mounts, "linux": linux,
    })
}

/// An OCI layout with one image of one layer, which holds the program and an empty folder for the data.
fn write_layout(folder: &Path) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let keep = |media_type: &str, bytes: &[u8]| -> io::Result<Value> {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&digest), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
    };
    let layer = keep("application/vnd.oci.image.layer.v1.tar", &layer()?)?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Entrypoint": [format!("/{PROGRAM}")], "Cmd": [PROGRAM, "hello"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = keep("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
    let manifest = keep(media_type, manifest.to_string().as_bytes())?;
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    fs::write(folder.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    Ok(())
}

fn layer() -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut entry = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)
    };
    entry("data/", tar::EntryType::Directory, 0o755, &[])?;
    entry(PROGRAM, tar::EntryType::Regular, 0o755, GUEST)?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_for_wasm_is_a_module_that_imports_only_wasi() {
        let module = wat::parse_str(WASM).unwrap();
        assert!(module.starts_with(b"\0asm\x01\0\0\0"));
        let modules: Vec<&str> = WASM
            .lines()
            .filter_map(|line| line.trim().strip_prefix("(import \"")?.split('"').next())
            .collect();
        assert!(modules.len() > 5 && modules.iter().all(|name| *name == "wasi_snapshot_preview1"));
    }

    #[test]
    fn everything_lies_in_one_folder_that_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let workload = Workload::write(&Home::at(home.path())).unwrap();
        let folder = workload.folder().to_owned();
        assert!(fs::read_dir(workload.image().join("blobs/sha256")).unwrap().count() == 3);
        workload.write_bundle(&["/measure".to_owned()], true).unwrap();
        let config: Value =
            serde_json::from_slice(&fs::read(workload.bundle().join("config.json")).unwrap()).unwrap();
        assert_eq!(config["process"]["args"][0], "/measure");
        drop(workload);
        assert!(!folder.exists());
    }
}
