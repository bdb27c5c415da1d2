//! What the program is run under, and by which command.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::child::Start;
use super::report::Subject;
use super::workload::{DATA, PROGRAM, Workload};

/// The port on which the workload listens inside.
const PORT: u16 = 7000;
/// The name of the bundle's container.
const CONTAINER: &str = "vimana-bench";
/// QEMU's options that are taken over from what Vimana starts, so that only the rest differs.
const TAKEN_OVER: [&str; 7] = ["-M", "-accel", "-cpu", "-smp", "-m", "-bios", "-kernel"];

/// One thing that the program is run under.
pub struct Target {
    pub subject: Subject,
    pub means: Means,
}

/// By what the program is started.
pub enum Means {
    /// As it is.
    Process,
    /// By an OCI runtime, on a bundle.
    Runtime { runtime: Runtime },
    /// As PID 1 of a virtual machine, with these options.
    Qemu { program: PathBuf, options: Vec<String> },
    /// By `vimana run`, with these options.
    Vimana { vimana: PathBuf, options: Vec<String>, wasm: bool },
}

/// What one start is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing but the program.
    Nothing,
    /// A root file system on a disk, large enough for the file.
    Root,
    /// The folder of this machine.
    Folder,
    /// A port that is published at this one.
    Port(u16),
}

impl Target {
    /// The command that starts the program with these arguments behind `measure`; or why that isn't possible.
    ///
    /// # Errors
    /// The bundle can't be written.
    pub fn start(&self, workload: &Workload, args: &[&str], need: Need) -> Result<Start, String> {
        let args: Vec<String> =
            std::iter::once(PROGRAM).chain(args.iter().copied()).map(str::to_owned).collect();
        let mut clear = None;
        let mut command;
        match &self.means {
            Means::Process => {
                command = Command::new(workload.program());
                command.args(&args);
            }
            Means::Runtime { runtime } => {
                let whole: Vec<String> = std::iter::once(format!("/{PROGRAM}")).chain(args).collect();
                let written = workload.write_bundle(&whole, need == Need::Folder);
                written.map_err(|error| format!("the bundle can't be written: {error}"))?;
                command = runtime.command(workload);
                command.args(["run", "--bundle"]).arg(workload.bundle()).arg(CONTAINER);
                let mut delete = runtime.command(workload);
                delete.args(["delete", "--force", CONTAINER]);
                clear = Some(delete);
            }
            Means::Qemu { program, options } => {
                command = Command::new(program);
                command.args([
                    "-nodefaults",
                    "-no-user-config",
                    "-display",
                    "none",
                    "-no-reboot",
                    "-serial",
                    "stdio",
                ]);
                command.args(options).arg("-initrd").arg(workload.initramfs()).arg("-append");
                command.arg(format!("{KERNEL_ARGUMENTS} -- {}", args.join(" ")));
            }
            Means::Vimana { vimana, options, wasm } => {
                command = Command::new(vimana);
                let manifest = workload.manifest(*wasm, need == Need::Root);
                command.arg("run").arg(manifest).args(options).env("VIMANA_HOME", workload.home());
                match need {
                    Need::Port(port) => {
                        command.args(["--network", "public", "-p", &format!("{port}:{PORT}")])
                    }
                    Need::Nothing | Need::Root | Need::Folder => command.args(["--network", "none"]),
                };
                if need == Need::Folder {
                    command.arg("-v").arg(format!("{}:{DATA}", workload.data().display()));
                }
                command.arg("--").args(args);
            }
        }
        Ok(Start { command, clear })
    }

    /// Where the file is to lie, on the workload's root or in the folder of this machine.
    ///
    /// # Errors
    /// There is no such place, and why.
    pub fn file(&self, workload: &Workload, need: Need) -> Result<String, &'static str> {
        let native = |folder: &Path| Ok(folder.join("file").display().to_string());
        match (&self.means, need) {
            (Means::Qemu { .. }, _) => Err("the bare machine has no disk: its root is the initramfs"),
            (Means::Process, Need::Folder) => native(&workload.data()),
            (Means::Process, _) => native(workload.folder()),
            (Means::Vimana { wasm: true, .. }, Need::Nothing | Need::Root | Need::Port(_)) => {
                Err("a Wasm program has no root file system, only the folders that it was given")
            }
            (_, Need::Folder) => Ok(format!("{DATA}/file")),
            (_, _) => Ok("/file".to_owned()),
        }
    }

    /// The port on which the workload is to listen, if it is published at this one.
    ///
    /// # Errors
    /// It can't be published, and why.
    pub fn port(&self, published: u16) -> Result<u16, &'static str> {
        match &self.means {
            Means::Process => Ok(published),
            Means::Runtime { .. } => Err("an OCI runtime publishes no ports; that is its caller's task"),
            Means::Qemu { .. } => Err("the bare initramfs holds no driver for a network card"),
            Means::Vimana { wasm: true, .. } => Err("WASI preview 1 has no way to listen"),
            Means::Vimana { .. } => Ok(PORT),
        }
    }
}

/// What the bare kernel is told: as little as the measuring program needs.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 cryptomgr.notests rdinit=/init";

/// An OCI runtime that works here.
pub struct Runtime {
    pub name: &'static str,
    program: PathBuf,
    options: &'static [&'static str],
}

impl Runtime {
    /// Looks for one that can run the bundle: `crun`, `crun` without its cgroups (there are machines whose mounts of these it
    /// doesn't take), `runc`.
    ///
    /// # Errors
    /// None is installed, or none can; the message says why.
    pub fn find(workload: &Workload, look: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, String> {
        let args = [format!("/{PROGRAM}"), PROGRAM.to_owned(), "hello".to_owned()];
        workload
            .write_bundle(&args, false)
            .map_err(|error| format!("the bundle can't be written: {error}"))?;
        let mut why = "neither crun nor runc is installed".to_owned();
        let candidates: [(&'static str, &'static [&'static str]); 3] =
            [("crun", &[]), ("crun", &["--cgroup-manager=disabled"]), ("runc", &[])];
        for (name, options) in candidates {
            let Some(program) = look(name) else { continue };
            let runtime = Self { name, program, options };
            let output = runtime
                .command(workload)
                .args(["run", "--bundle"])
                .arg(workload.bundle())
                .arg(CONTAINER)
                .output();
            match output {
                Ok(output) if output.status.success() => return Ok(runtime),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    why =
                        format!("{name}: {}", said.lines().next_back().unwrap_or("it fails without a word"));
                }
                Err(error) => why = format!("{name}: {error}"),
            }
        }
        Err(why)
    }

    /// Whether its containers have cgroups.
    pub fn has_cgroups(&self) -> bool {
        self.options.is_empty()
    }

    fn command(&self, workload: &Workload) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(workload.state()).args(self.options);
        command
    }
}

/// The options for `vimana run` that every isolation gets.
pub fn options(isolation: &str, accelerator: Option<&str>) -> Vec<String> {
    let mut options = vec!["--isolation", isolation];
    if let Some(accelerator) = accelerator {
        options.extend(["--accel", accelerator]);
    }
    options.into_iter().map(str::to_owned).collect()
}

/// Asks `vimana plan` for the virtual machine that it would start, and takes over what makes the machine.
///
/// # Errors
/// The plan fails, or there is no kernel in it.
pub fn bare_options(vimana: &Path, options: &[String], workload: &Workload) -> Result<Vec<String>> {
    let output = Command::new(vimana)
        .args(["plan", "--json", "--network", "none"])
        .arg(workload.manifest(false, false))
        .args(options)
        .env("VIMANA_HOME", workload.home())
        .output()
        .context("can't execute vimana plan")?;
    if !output.status.success() {
        bail!("vimana plan: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let plan: Value = serde_json::from_slice(&output.stdout).context("vimana plan printed no JSON")?;
    let args = words_with(&plan, "-kernel").context("vimana plan names no kernel")?;
    Ok(taken_over(&args))
}

/// The first list of words in a document that holds this one.
fn words_with<'a>(document: &'a Value, wanted: &str) -> Option<Vec<&'a str>> {
    match document {
        Value::Array(items) if items.iter().any(|item| item == wanted) => {
            Some(items.iter().filter_map(Value::as_str).collect())
        }
        Value::Array(items) => items.iter().find_map(|item| words_with(item, wanted)),
        Value::Object(fields) => fields.values().find_map(|field| words_with(field, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn taken_over(args: &[&str]) -> Vec<String> {
    let pairs = args.windows(2).filter(|pair| TAKEN_OVER.contains(&pair[0]));
    pairs.flatten().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_machine_only_what_makes_it_is_taken_over() {
        let args = [
            "-nodefaults",
            "-M",
            "q35,usb=off",
            "-name",
            "guest=x",
            "-m",
            "128M",
            "-kernel",
            "/k",
            "-append",
            "y",
        ];
        assert_eq!(taken_over(&args), ["-M", "q35,usb=off", "-m", "128M", "-kernel", "/k"]);
    }

    #[test]
    fn the_machine_s_options_are_found_wherever_the_plan_has_them() {
        let plan = serde_json::json!({ "a": [1, ["x"]], "b": { "c": ["-m", "1", "-kernel", "k"] } });
        assert_eq!(words_with(&plan, "-kernel").unwrap(), ["-m", "1", "-kernel", "k"]);
        assert_eq!(words_with(&plan, "-nothing"), None);
    }

    #[test]
    fn an_isolation_is_asked_for_by_name_and_accelerator() {
        assert!(options("MicroVM", Some("tcg")).ends_with(&["--accel".to_owned(), "tcg".to_owned()]));
        assert!(!options("Wasm", None).contains(&"--accel".to_owned()));
    }
}
