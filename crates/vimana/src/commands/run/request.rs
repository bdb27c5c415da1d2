//! What a person asks for: a manifest or an image, and what the command line changes in it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hac::model::{Accel, Isolation, Mount, NetworkType};
use hac::units::{Bytes, MilliCpu};
use hac::{Format, Manifest};
use hypercore::network::{Carrier, Protocol, Publish};
use node::prepare::{self, Wanted};
use spacecore::wire::message::TerminalSize;

/// The workload, and what is changed in it.
#[derive(clap::Args, Default)]
pub struct Workload {
    /// A manifest (a file that ends in .toml, .yaml or .yml, or a folder with a hac.toml), a Wasm program (a file that ends in
    /// .wasm), or an image's name [default: ./hac.toml]
    #[arg(value_name = "MANIFEST | IMAGE")]
    pub source: Option<String>,
    /// Whether a node runs it, which knows whose private network it is in.
    #[arg(skip)]
    pub for_a_node: bool,
    /// Arguments in place of the image's own
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
    /// The isolation: MicroVM, Container or Wasm; Unikernel and TEE aren't there yet
    #[arg(long, value_name = "TYPE")]
    pub isolation: Option<Isolation>,
    /// What executes the guest: auto, kvm or tcg
    #[arg(long, value_name = "ACCEL")]
    pub accel: Option<Accel>,
    /// The spacecore's name, which is its host name too [default: the manifest's, or the image's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The user that the workload runs as: a name or number, with a group behind a colon
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The folder that the workload starts in
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// The program in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Set a variable; without =VALUE, to its value here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Publish a port of the workload's on this machine; on 127.0.0.1 unless an address is given
    #[arg(short, long, value_name = "[ADDR:]HOST:GUEST[/udp]", value_parser = parse_publish)]
    pub publish: Vec<Publish>,
    /// The network: public, private or none
    #[arg(long, value_name = "TYPE")]
    pub network: Option<NetworkType>,
    /// Whom the workload may reach, instead of what the manifest says: public, any, an address, a network or a name, perhaps with
    /// :PORT and /tcp or /udp; may be given several times
    #[arg(long, value_name = "PEER")]
    pub allow_to: Vec<hac::peer::Peer>,
    /// Who carries the network: routed (the kernel, for root) or passt (a process without privileges) [default: routed where it
    /// can be had]
    #[arg(long, value_name = "CARRIER", value_parser = parse_carrier)]
    pub carrier: Option<Carrier>,
    /// Mount a folder or file of this machine (a path with / or . or ~ at its start), or a named volume, which is kept when
    /// the spacecore ends
    #[arg(short = 'v', long = "volume", value_name = "SRC|NAME:DST[:ro]")]
    pub volumes: Vec<String>,
    /// Give the workload a root file system that it can't write to
    #[arg(long)]
    pub read_only: bool,
    /// Memory, such as 256Mi
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// CPUs; a virtual machine gets whole ones, a container or Wasm program also parts, such as 500m
    #[arg(long, value_name = "N")]
    pub cpus: Option<MilliCpu>,
    /// Have the guest hold its layers to their Merkle roots (dm-verity) also under emulation
    #[arg(long)]
    pub verity: bool,
    /// The guest kernel: an image's path, or the digest of one in the store
    #[arg(long, value_name = "FILE | DIGEST")]
    pub kernel: Option<PathBuf>,
    /// Pull the image also if it is in the store
    #[arg(long)]
    pub pull: bool,
    /// Speak plain HTTP with the registry
    #[arg(long)]
    pub plain_http: bool,
}

/// A manifest that has been read.
struct Source {
    manifest: Manifest,
    /// Whether it says itself which isolation there is to be.
    names_isolation: bool,
}

/// The streams that the workload gets.
#[derive(Clone, Copy, Default)]
pub struct Streams {
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// The terminal's size, if the workload gets one.
    pub terminal: Option<TerminalSize>,
}

impl Workload {
    /// Reads the manifest, if there is one, and applies what the command line changes.
    ///
    /// # Errors
    /// The manifest is wrong (all its errors are in the message), or an argument is.
    pub fn wanted(&self, streams: Streams) -> anyhow::Result<Wanted> {
        let Source { mut manifest, names_isolation } = self.source()?;
        let spec = &mut manifest.spec;
        if !self.command.is_empty() {
            spec.deployment.args = Some(self.command.clone());
        }
        if let Some(program) = &self.entrypoint {
            spec.deployment.command = Some(vec![program.clone()]);
        }
        if let Some(user) = &self.user {
            spec.deployment.user = Some(user.clone());
        }
        if let Some(folder) = &self.workdir {
            spec.deployment.workdir = Some(folder.clone());
        }
        if let Some(isolation) = self.isolation {
            spec.virtualization.isolation = isolation;
        }
        if let Some(accel) = self.accel {
            spec.virtualization.accel = accel;
        }
        if let Some(network) = self.network {
            spec.networking.network_type = network;
        }
        if !self.allow_to.is_empty() {
            spec.networking.allow_to = self.allow_to.clone();
        }
        if let Some(memory) = self.memory {
            let least = spec.virtualization.isolation.least_memory();
            if memory < least {
                bail!("-m {memory}: a {} needs at least {least}", spec.virtualization.isolation);
            }
            spec.resources.memory = memory;
        }
        if let Some(cpus) = self.cpus {
            if cpus.0 == 0 {
                bail!("--cpus 0: a spacecore needs at least a fraction of a CPU");
            }
            spec.resources.cpu = cpus;
        }
        if self.read_only {
            spec.deployment.readonly_root = true;
        }
        let mut named = Vec::new();
        for volume in &self.volumes {
            let mount = parse_volume(volume)?;
            // The command line replaces what the manifest mounts there; twice on the command line is a mistake to tell.
            spec.mounts.retain(|known| known.destination != mount.destination);
            named.push((volume, mount));
        }
        let hosts = named.iter().filter(|(_, mount)| mount.is_host_folder()).cloned().collect::<Vec<_>>();
        spec.mounts.extend(named.into_iter().map(|(_, mount)| mount).filter(|mount| !mount.is_host_folder()));
        for pair in &self.env {
            let (name, value) = variable(pair)?;
            spec.deployment.env.insert(name, value);
        }
        if let Some(name) = &self.name {
            manifest.metadata.name.clone_from(name);
        }
        let isolation = manifest.spec.virtualization.isolation;
        if self.kernel.is_some() && !isolation.is_hardware_virtualisation() {
            bail!(
                "--kernel: a spacecore of the isolation {isolation} has no kernel of its own; leave it out"
            );
        }
        hac::validate(&manifest).map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
        let mut wanted = Wanted::of(manifest, names_isolation || self.isolation.is_some())?;
        for (text, mount) in hosts {
            let source = expand_home(mount.source.as_deref().unwrap_or_default());
            let share = prepare::share(&source, &mount.destination, mount.readonly);
            wanted.request.shares.push(share.with_context(|| format!("-v {text}"))?);
        }
        let request = &mut wanted.request;
        request.publish.clone_from(&self.publish);
        request.stdin = streams.stdin;
        request.terminal = streams.terminal;
        request.carrier = self.carrier;
        request.verity = self.verity;
        Ok(Wanted { pull: self.pull, plain_http: self.plain_http, kernel: self.kernel.clone(), ..wanted })
    }

    fn read(&self, path: &Path) -> anyhow::Result<Source> {
        let mut source = read(path)?;
        let networking = &mut source.manifest.spec.networking;
        if networking.private_network.is_none() && !self.for_a_node {
            networking.private_network = Some(own_network(&source.manifest.metadata.name, path)?);
        }
        Ok(source)
    }

    fn source(&self) -> anyhow::Result<Source> {
        let image = |manifest| Ok(Source { manifest, names_isolation: false });
        match &self.source {
            Some(source) if looks_like_manifest(source) => self.read(Path::new(source)),
            Some(folder) if Path::new(folder).join("hac.toml").is_file() => {
                self.read(&Path::new(folder).join("hac.toml"))
            }
            Some(program) if is_wasm_file(program) => image(wasm_program(&format!("wasm:{program}"))),
            Some(program) if program.starts_with("wasm:") => image(wasm_program(program)),
            Some(source) if Path::new(source).exists() => bail!(
                "{source} is here, but no manifest by its name: one ends in .toml, .yaml or .yml; an image in a file is named oci-archive:{source} or docker-archive:{source}, one in a folder oci:{source}"
            ),
            Some(name) => image(Manifest::from_image(name)),
            None => {
                let known = ["hac.toml", "hac.yaml", "hac.yml"];
                let Some(found) = known.iter().map(Path::new).find(|path| path.is_file()) else {
                    bail!(
                        "there is no hac.toml in this folder; name a manifest or an image, or make one with: vimana hac init"
                    );
                };
                self.read(found)
            }
        }
    }
}

fn is_wasm_file(source: &str) -> bool {
    let path = Path::new(source);
    path.extension().is_some_and(|ending| ending == "wasm") && path.is_file()
}

/// A Wasm program can run as nothing else, so nobody has to say so.
fn wasm_program(image: &str) -> Manifest {
    let mut manifest = Manifest::from_image(image);
    manifest.spec.virtualization.isolation = Isolation::Wasm;
    manifest
}

fn looks_like_manifest(source: &str) -> bool {
    let path = Path::new(source);
    let named_so =
        path.extension().is_some_and(|ending| ["toml", "yaml", "yml"].iter().any(|known| ending == *known));
    named_so && !source.contains("://")
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let name = path.display().to_string();
    let source = fs::read_to_string(path).with_context(|| format!("can't read the manifest {name}"))?;
    let format = Format::from_file_name(&name).unwrap_or_else(|| Format::from_content(&source));
    let mut manifest = hac::parse(&source, format).map_err(|diagnostics| {
        let count = diagnostics.0.len();
        let errors = if count == 1 { "an error".to_owned() } else { format!("{count} errors") };
        anyhow::anyhow!(
            "the manifest has {errors}\n\n{}",
            diagnostics.render(&name, &source, false).trim_end()
        )
    })?;
    let base = path.parent().unwrap_or(Path::new(".")).to_owned();
    manifest.spec.deployment.image = beside(&base, &manifest.spec.deployment.image);
    let names_isolation = hac::says(&source, format, "spec.virtualization.type");
    for mount in manifest.spec.mounts.iter_mut().filter(|mount| mount.is_host_folder()) {
        let source = base.join(expand_home(mount.source.as_deref().unwrap_or_default()));
        let source = std::path::absolute(&source)
            .with_context(|| format!("can't tell where {} is", source.display()))?;
        mount.source = Some(source.display().to_string());
    }
    Ok(Source { manifest, names_isolation })
}

/// The private network of a manifest that names none: its own, which no other file of the same name has.
fn own_network(name: &str, path: &Path) -> anyhow::Result<String> {
    let path = path.canonicalize().with_context(|| format!("can't find the manifest {}", path.display()))?;
    let digest = image::Digest::of(path.as_os_str().as_encoded_bytes());
    let of_file: String = digest.hex().chars().take(12).collect();
    // As long as a name in it may be.
    Ok(format!("{}-{of_file}", name.chars().take(50).collect::<String>().trim_end_matches('-')))
}

/// An image in a file or folder is looked for from the manifest's folder, as the manifest's mounts are.
pub fn beside(base: &Path, image: &str) -> String {
    for transport in ["oci:", "oci-archive:", "docker-archive:", "wasm:"] {
        if let Some(rest) = image.strip_prefix(transport)
            && !rest.starts_with('/')
            && !base.as_os_str().is_empty()
        {
            // Without `..`, so that one image has one name in the store.
            let (path, tag) = rest.rsplit_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
            let path = base.join(path);
            let path = path.canonicalize().unwrap_or(path);
            let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
            return format!("{transport}{}{tag}", path.display());
        }
    }
    image.to_owned()
}

fn variable(pair: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = match pair.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => match std::env::var(pair) {
            Ok(value) => (pair, value),
            Err(_) => bail!("-e {pair}: there is no such variable here; give a value with -e {pair}=..."),
        },
    };
    if name.is_empty() || name.contains('\0') || value.contains('\0') {
        bail!("-e {pair:?}: a variable has a name, and no NUL bytes");
    }
    Ok((name.to_owned(), value))
}

fn parse_volume(text: &str) -> anyhow::Result<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, readonly) = match parts[..] {
        [source, destination] | [source, destination, "rw"] => (source, destination, false),
        [source, destination, "ro"] => (source, destination, true),
        _ => bail!("-v {text}: expected SRC:DST, SRC:DST:ro or SRC:DST:rw"),
    };
    if source.is_empty() || destination.is_empty() {
        bail!("-v {text}: expected SRC:DST, and neither may be empty");
    }
    Ok(Mount {
        source: Some(source.to_owned()),
        destination: destination.to_owned(),
        readonly,
        size: None,
        encrypted: false,
    })
}

fn expand_home(path: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match path.strip_prefix('~') {
        Some("") => home().unwrap_or_else(|| path.into()),
        Some(rest) if rest.starts_with('/') => {
            home().map_or_else(|| path.into(), |home| home.join(rest.trim_start_matches('/')))
        }
        _ => path.into(),
    }
}

fn parse_carrier(text: &str) -> Result<Carrier, String> {
    match text {
        "routed" => Ok(Carrier::Routed),
        "passt" => Ok(Carrier::Passt),
        other => Err(format!("{other:?} carries no network; routed and passt do")),
    }
}

fn parse_publish(text: &str) -> Result<Publish, String> {
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("{other} is no protocol; tcp or udp is")),
        None => (text, Protocol::Tcp),
    };
    let shape = || "expected HOST:GUEST, or ADDR:HOST:GUEST with an IPv6 address in [ ]".to_owned();
    let (rest, guest) = ports.rsplit_once(':').ok_or_else(shape)?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            let address: IpAddr =
                bare.parse().map_err(|_| format!("{address:?} is no IP address; {}", shape()))?;
            (address, host)
        }
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
    };
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is no port; ports are 1 to 65535")),
    };
    Ok(Publish { address, host: port(host)?, guest: port(guest)?, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(text: &str) -> Option<(String, u16, u16, Protocol)> {
        parse_publish(text).ok().map(|p| (p.address.to_string(), p.host, p.guest, p.protocol))
    }

    #[test]
    fn ports_are_published_on_loopback_unless_said_otherwise() {
        let v4 = |address: &str, protocol| Some((address.to_owned(), 8080, 80, protocol));
        assert_eq!(published("8080:80"), v4("127.0.0.1", Protocol::Tcp));
        assert_eq!(published("0.0.0.0:8080:80"), v4("0.0.0.0", Protocol::Tcp));
        assert_eq!(published("[::1]:8080:80/udp"), v4("::1", Protocol::Udp));
        for wrong in ["80", "0:80", "80:0", "x:80", "80:70000", "1.2.3:80:80", "80:80/sctp", ""] {
            assert_eq!(published(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_source_is_a_manifest_by_its_ending_alone() {
        assert!(looks_like_manifest("hac.toml") && looks_like_manifest("./a/b.yaml"));
        assert!(!looks_like_manifest("alpine") && !looks_like_manifest("docker://example.org/x.yml"));
    }

    #[test]
    fn an_image_in_a_folder_is_looked_for_from_the_manifest() {
        let from = |image: &str| beside(Path::new("examples/web"), image);
        assert_eq!(from("oci:../busybox.oci:latest"), "oci:examples/web/../busybox.oci:latest");
        assert_eq!(from("oci:/srv/image"), "oci:/srv/image");
        assert_eq!(from("alpine:3.20"), "alpine:3.20");
    }

    #[test]
    fn a_volume_that_isnt_one_is_refused_with_its_shape() {
        for wrong in ["/tmp", "/tmp:/a:rx", ":/a", "a:", "a:b:c:d"] {
            assert!(parse_volume(wrong).is_err(), "{wrong}");
        }
        let missing = Workload {
            source: Some("alpine".to_owned()),
            volumes: vec!["/no/such/folder:/a".to_owned()],
            ..Workload::default()
        };
        assert!(missing.wanted(Streams::default()).err().unwrap().to_string().contains("/no/such/folder:/a"));
        let mount = parse_volume("/tmp:/data:ro").unwrap();
        assert_eq!(
            (mount.destination.as_str(), mount.readonly, mount.is_host_folder()),
            ("/data", true, true)
        );
        assert!(!parse_volume("chain:/data").unwrap().is_host_folder());
        assert!(parse_volume("./src:/data").unwrap().is_host_folder());
    }
}
