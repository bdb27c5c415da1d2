//! A real `docker-registry` on loopback, plain or with TLS and passwords, ended with the test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{run, text};

/// The user and password that a registry with passwords knows.
pub(crate) const USER: &str = "somebody";
pub(crate) const PASSWORD: &str = "se:cret";

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn plain() -> Server {
        Server::start("", TempDir::new().unwrap())
    }

    /// With a certificate for localhost by a root of its own (`ca.pem`), and a password.
    pub(crate) fn guarded() -> Server {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| text(&folder.path().join(name)).to_owned();
        fs::write(at("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let key = |name: &str| ["-newkey", "rsa:2048", "-nodes", "-keyout", name].map(str::to_owned);
        let openssl = |arguments: Vec<String>| {
            run("openssl", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        };
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let mut root = words("req -x509 -days 2 -subj /CN=test-root");
        root.extend(key(&at("ca.key")));
        root.extend(["-out".into(), at("ca.pem")]);
        openssl(root);
        let mut request = words("req -subj /CN=localhost");
        request.extend(key(&at("key.pem")));
        request.extend(["-out".into(), at("request.pem")]);
        openssl(request);
        let mut sign = words("x509 -req -days 2 -CAcreateserial");
        for (option, name) in [
            ("-in", "request.pem"),
            ("-CA", "ca.pem"),
            ("-CAkey", "ca.key"),
            ("-extfile", "extensions"),
            ("-out", "cert.pem"),
        ] {
            sign.extend([option.into(), at(name)]);
        }
        openssl(sign);
        run("htpasswd", &["-cbB", &at("htpasswd"), USER, PASSWORD]);
        let extra = format!(
            "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            at("cert.pem"),
            at("key.pem"),
            at("htpasswd")
        );
        Server::start(&extra, folder)
    }

    fn start(extra: &str, folder: TempDir) -> Server {
        for _ in 0..5 {
            let port = free_port();
            let config = folder.path().join("config.yml");
            let storage = folder.path().join("storage");
            let yaml = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
                 rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{extra}",
                text(&storage)
            );
            fs::write(&config, yaml).unwrap();
            let child = Command::new("docker-registry")
                .args(["serve", text(&config)])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let folder_path = folder.path().to_owned();
            let mut server = Server { port, folder: TempDir::new().unwrap(), child };
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) {
                if server.child.try_wait().unwrap().is_some() {
                    break;
                }
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    assert!(folder_path.exists());
                    server.folder = folder;
                    return server;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("docker-registry doesn't start");
    }

    /// Pushes an image by skopeo.
    pub(crate) fn push(&self, source: &str, name: &str, options: &[&str]) {
        let target = format!("docker://127.0.0.1:{}/{name}", self.port);
        let login = format!("{USER}:{PASSWORD}");
        let mut arguments = vec!["copy", "-q", "--dest-tls-verify=false"];
        if self.ca().exists() {
            arguments.extend(["--dest-creds", &login]);
        }
        arguments.extend(options);
        arguments.extend([source, &target]);
        run("skopeo", &arguments);
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
