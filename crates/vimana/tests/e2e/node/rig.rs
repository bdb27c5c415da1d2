//! A node of a test's own, and programs for it to run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use node::daemon::view::DeploymentView;

use crate::support::{Home, Killed, VIMANA, eventually, kill, text};
use crate::vimana;

/// A daemon in a home. When this is dropped its spacecores end, and it does.
pub struct Node {
    pub home: Home,
    daemon: Option<Killed>,
}

/// Says a word on each stream, then sleeps for a minute at a time, for ever. Ends with the code in its first argument, if it has one.
const PROGRAM: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "up\n")
  (data (i32.const 110) "well\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 3))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 0) (i32.const 110)) (i32.store (i32.const 4) (i32.const 5))
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $sizes (i32.const 200) (i32.const 204)))
    (if (i32.gt_u (i32.load (i32.const 200)) (i32.const 1))
      (then
        (drop (call $args (i32.const 300) (i32.const 1000)))
        (call $exit (i32.sub (i32.load8_u (i32.load (i32.const 304))) (i32.const 48)))))
    (i64.store (i32.const 400) (i64.const 0))
    (i32.store8 (i32.const 408) (i32.const 0))
    (i32.store (i32.const 416) (i32.const 1))
    (i64.store (i32.const 424) (i64.const 60000000000))
    (i64.store (i32.const 432) (i64.const 0))
    (i32.store16 (i32.const 440) (i32.const 0))
    (loop $sleep
      (drop (call $poll (i32.const 400) (i32.const 504) (i32.const 1) (i32.const 600)))
      (br $sleep))))"#;

impl Node {
    /// A node that serves, or nothing where tests of this kind can't run.
    pub fn new(test: &str) -> Option<Self> {
        Some(Self::of(Home::new(test)?))
    }

    /// The same in a home that there is already.
    pub fn of(home: Home) -> Self {
        fs::write(home.path().join("sleeper.wasm"), wat::parse_str(PROGRAM).unwrap()).unwrap();
        let mut node = Self { home, daemon: None };
        node.start();
        node
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&mut self) {
        self.start_as(Path::new(VIMANA));
    }

    /// The same from another file.
    pub fn start_as(&mut self, program: &Path) {
        let errors =
            fs::OpenOptions::new().create(true).append(true).open(self.home.path().join("node.err")).unwrap();
        let mut command = vimana::command_of(program, self.home.path(), &["node"]);
        let daemon = command.stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        self.daemon = Some(Killed(daemon));
        eventually("the node serves", 20, || self.vimana(&["ps"]).status.success().then_some(()));
    }

    /// Kills the daemon with this signal, and waits until it is gone.
    pub fn end(&mut self, signal: i32) {
        let mut daemon = self.daemon.take().unwrap();
        kill(daemon.0.id(), signal);
        daemon.0.wait().unwrap();
    }

    pub fn vimana(&self, args: &[&str]) -> Output {
        self.home.vimana(args).output().unwrap()
    }

    /// A command that must succeed; what it prints.
    pub fn does(&self, args: &[&str]) -> String {
        let output = self.vimana(args);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "vimana {args:?}: {said}\n{}", self.complaints());
        text(&output.stdout)
    }

    /// A command that must fail; what it says.
    pub fn refuses(&self, args: &[&str]) -> String {
        let output = self.vimana(args);
        assert!(!output.status.success(), "vimana {args:?} should fail: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Writes a manifest of the sleeper with more lines of TOML, and gives its path.
    pub fn manifest(&self, name: &str, deployment: &str, more: &str) -> PathBuf {
        let path = self.home.path().join(format!("{name}.toml"));
        let text = format!(
            "[metadata]\nname = \"{name}\"\n[spec.deployment]\nimage = \"wasm:sleeper.wasm\"\n{deployment}\n\
             [spec.resources]\nmemory = \"16Mi\"\n[spec.virtualization]\ntype = \"Wasm\"\n{more}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Applies such a manifest with these flags.
    pub fn apply(&self, name: &str, deployment: &str, more: &str, flags: &[&str]) -> String {
        let path = self.manifest(name, deployment, more);
        let mut args = vec!["apply", "-f", path.to_str().unwrap()];
        args.extend(flags);
        self.does(&args)
    }

    pub fn deployments(&self) -> Vec<DeploymentView> {
        serde_json::from_str(&self.does(&["ps", "--json"])).unwrap()
    }

    pub fn deployment(&self, name: &str) -> DeploymentView {
        self.deployments().into_iter().find(|found| found.name == name).unwrap()
    }

    /// The processes of keepers in this home.
    pub fn keepers(&self) -> Vec<i32> {
        self.processes("keeper")
    }

    /// The processes of balancers in this home.
    pub fn balancers(&self) -> Vec<i32> {
        self.processes("balance")
    }

    fn processes(&self, command: &str) -> Vec<i32> {
        let is_meant = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(command.as_bytes())
        };
        self.home.processes().into_iter().map(|(pid, _)| pid).filter(is_meant).collect()
    }

    /// What the daemon has said on standard error.
    pub fn complaints(&self) -> String {
        fs::read_to_string(self.home.path().join("node.err")).unwrap_or_default()
    }

    /// Removes every deployment, and sees that nothing is left of any.
    pub fn clear(&mut self) {
        for deployment in self.deployments() {
            self.does(&["rm", &deployment.name]);
        }
        self.end(libc::SIGTERM);
        self.home.assert_nothing_is_left();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.daemon = None;
        for pid in self.keepers().into_iter().chain(self.balancers()) {
            kill(u32::try_from(pid).unwrap(), libc::SIGKILL);
        }
    }
}

/// `curl` at the node's socket: the status, and the answer.
pub fn curl(node: &Node, args: &[&str], path: &str) -> (u16, String) {
    let socket = node.home.path().join("node/node.sock");
    let output = Command::new("curl")
        .args(["-s", "--max-time", "30", "-w", "\n%{http_code}", "--unix-socket", socket.to_str().unwrap()])
        .args(args)
        .arg(format!("http://node{path}"))
        .output()
        .unwrap();
    let text = text(&output.stdout);
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}
