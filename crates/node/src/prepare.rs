//! From what is asked for to what can be started: image, kernel, plan, initramfs.
//!
//! The command in the foreground and the node prepare a spacecore in the same way; what a person sees of it meanwhile is the
//! [`Watcher`]'s.

use std::path::{Path, PathBuf};

use hac::Manifest;
use hac::model::Isolation;
use hypercore::initramfs::InitramfsError;
use hypercore::kernel::{self, ChooseError, FetchError, Kernel, StoreError as KernelStoreError};
use image::{
    Image, OpenError, OptionsError, PullError, PullOptions, Reference, ReferenceError, Store, StoreError,
    StoreOptions, WasmChoice,
};

use spacecore::wire::message::{Crypt, MountSource, Secret};

use crate::gather::{self, GatherError};
use crate::home::Home;
use crate::keeper::assignment::{Assignment, Lifetime};
use crate::plan::{MAX_CONFIGURATION, MachineFacts, Plan, PlanError, Request, Share, volume_serial};
use crate::policy::{Gate, GateError};
use crate::secret::{SecretError, Secrets};
use crate::volume::VolumeError;
use crate::volume::key::{self, KeyError};

/// What is to be prepared.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What is asked for, as it is if the image demands nothing else.
    pub request: Request,
    /// Whether somebody said which isolation there is to be; otherwise the image may.
    pub names_isolation: bool,
    /// Pull the image also if it is in the store.
    pub pull: bool,
    /// Speak plain HTTP with the registry.
    pub plain_http: bool,
    /// The guest kernel: an image's path, or the digest of one in the store.
    pub kernel: Option<PathBuf>,
}

/// A folder of the host's that a manifest names can't be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Nobody can know where it starts from.
    #[error("the mount at {destination} has the relative source {path:?}; a node needs an absolute path")]
    Relative {
        /// Where the workload would find it.
        destination: String,
        /// What the manifest says.
        path: String,
    },
    /// It isn't there, or can't be read.
    #[error("can't mount {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Wanted {
    /// What a manifest asks for whose folders of the host are absolute paths.
    ///
    /// # Errors
    /// One isn't, or isn't there.
    pub fn of(manifest: Manifest, names_isolation: bool) -> Result<Self, FolderError> {
        let mut shares = Vec::new();
        for mount in manifest.spec.mounts.iter().filter(|mount| mount.is_host_folder()) {
            let path = mount.source.clone().unwrap_or_default();
            let destination = mount.destination.clone();
            if !path.starts_with('/') {
                return Err(FolderError::Relative { destination, path });
            }
            shares.push(share(Path::new(&path), &destination, mount.readonly)?);
        }
        Ok(Self {
            request: Request { manifest, shares, ..Request::default() },
            names_isolation,
            ..Self::default()
        })
    }
}

/// A folder or file of the host, as a plan knows it: without links.
///
/// # Errors
/// It isn't there.
pub fn share(path: &Path, destination: &str, readonly: bool) -> Result<Share, FolderError> {
    let found = path.canonicalize().and_then(|source| Ok((source.metadata()?.is_dir(), source)));
    let (is_folder, source) =
        found.map_err(|source| FolderError::Missing { path: path.to_owned(), source })?;
    Ok(Share { source, destination: destination.to_owned(), readonly, file: !is_folder })
}

/// Sees how a preparation goes on.
pub trait Watcher {
    /// A step is done.
    fn done(&mut self, step: &str);
    /// Something begins that takes long, or has happened that a person should know.
    fn say(&mut self, text: &str);
    /// Pulls an image, and shows how.
    ///
    /// # Errors
    /// The image can't be pulled.
    fn pull(
        &mut self,
        store: &Store,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<Image, PullError>;
}

/// Why a spacecore can't be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The folder of spacecores that run can't be cleared.
    #[error("can't clear {}", path.display())]
    Sweep {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operator's policy can't be read, or refuses the image.
    #[error(transparent)]
    Policy(#[from] GateError),
    /// The image's name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A setting of the store of images is wrong.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The store of images can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store of images can't be read.
    #[error(transparent)]
    Images(#[from] StoreError),
    /// The image can't be had.
    #[error("can't get the image {image}")]
    Pull {
        /// Its name.
        image: String,
        /// Why.
        source: PullError,
    },
    /// A secret can't be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// An encrypted volume's key can't be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A volume can't be used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// What must be known of image or machine can't be found out.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// The image runs as another isolation, for which the manifest is wrong.
    #[error("the image {image} runs as {isolation}, and then the manifest is wrong: {reason}")]
    ByImage {
        /// Its name.
        image: String,
        /// The isolation that it demands.
        isolation: Isolation,
        /// Every mistake.
        reason: String,
    },
    /// This machine can't do what is asked.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The store of kernels can't be opened.
    #[error(transparent)]
    Kernels(#[from] KernelStoreError),
    /// No kernel can be chosen.
    #[error(transparent)]
    Kernel(#[from] ChooseError),
    /// There is no guest kernel yet, and none can be had.
    #[error("there is no guest kernel yet, and it can't be fetched")]
    Fetch(#[source] FetchError),
    /// What the guest boots from can't be made.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
}

/// Everything that is needed for a start.
#[derive(Debug)]
pub struct Prepared {
    /// Where things lie.
    pub home: Home,
    /// What will run.
    pub plan: Plan,
    /// What a virtual machine boots from.
    pub initramfs: Option<PathBuf>,
    /// Keeps the image's layers from being collected.
    image: Image,
}

impl Prepared {
    /// What a keeper is told. Volumes that are made for it belong to who owns their place in the image; secrets have their values.
    ///
    /// # Errors
    /// A layer of the image, or a secret, can't be read.
    pub fn assignment(&self, id: &str, lifetime: Lifetime) -> Result<Assignment, PrepareError> {
        let mut assignment = self.plan.assignment(id, &self.home, self.initramfs.as_deref(), lifetime);
        for (used, volume) in assignment.volumes.iter_mut().zip(&self.plan.volumes) {
            if volume.encrypted || !crate::volume::exists(&used.folder) {
                used.owner = Some(gather::owner_at(&self.image, &volume.destination)?);
            }
        }
        let secrets = Secrets::at(self.home.secrets());
        for (index, used) in assignment.volumes.iter().enumerate().filter(|(_, used)| used.encrypted) {
            let mut key = key::of(&secrets, &used.folder, &format!("{}/{}", self.plan.name, used.name))?;
            let key = std::mem::take(&mut *key);
            let told = Crypt { key, owner: used.owner.unwrap_or_default() };
            for mount in &mut assignment.configuration.mounts {
                match &mut mount.source {
                    MountSource::Disk { serial, crypt } if *serial == volume_serial(index) => {
                        *crypt = Some(told.clone());
                    }
                    MountSource::Disk { .. } | MountSource::Folder { .. } | MountSource::Memory { .. } => {}
                }
            }
        }
        for name in &self.plan.secrets {
            let value = secrets.get(name)?.iter().map(|byte| format!("{byte:02x}")).collect();
            assignment.configuration.secrets.push(Secret { name: name.clone(), value });
        }
        let bytes = serde_json::to_vec(&assignment.configuration).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_CONFIGURATION {
            return Err(PlanError::TooLong { bytes, most: MAX_CONFIGURATION }.into());
        }
        Ok(assignment)
    }
}

/// Refuses what this machine or its operator won't have, as far as that is known without the image.
///
/// # Errors
/// As [`prepare`].
pub fn check(home: &Home, wanted: &Wanted) -> Result<(), PrepareError> {
    let gate = Gate::open(home)?;
    judge(&wanted.request, home, &gate)?;
    let reference: Reference = wanted.request.manifest.spec.deployment.image.parse()?;
    Ok(gate.name(&reference)?)
}

/// Prepares a start: pulls the image and fetches a kernel where they lack, decides the plan, makes the initramfs.
///
/// # Errors
/// What is asked for can't be had here; the error says what lacks or what would run instead.
pub fn prepare(home: &Home, wanted: &Wanted, watcher: &mut dyn Watcher) -> Result<Prepared, PrepareError> {
    let mut request = wanted.request.clone();
    crate::run_folder::sweep(&home.run())
        .map_err(|source| PrepareError::Sweep { path: home.run(), source })?;
    let gate = Gate::open(home)?;
    let mut machine = judge(&request, home, &gate)?;
    watcher.done("machine judged");
    let store = gather::images(home, StoreOptions::from_env()?)?;
    let wasm = match (request.manifest.spec.virtualization.isolation, wanted.names_isolation) {
        (Isolation::Wasm, _) => WasmChoice::First,
        (_, true) => WasmChoice::Never,
        (_, false) => WasmChoice::Fallback,
    };
    let (image, options) = image(wanted, wasm, &store, &gate, watcher)?;
    // An image for this machine's own platform stays what it is, even if its entrypoint is a Wasm program.
    if wasm == WasmChoice::Fallback && image.wasm.is_some() && image.platform.is_wasm() {
        request = by_image(request, Isolation::Wasm)?;
        machine = judge(&request, home, &gate)?;
    }
    let isolation = request.manifest.spec.virtualization.isolation;
    watcher.done("image ready");
    let allowed = gate.image(&store, &image, &options, &mut |line| watcher.say(line))?;
    if let (None, Some(unread)) = (&machine.scan_missing, &allowed.unread) {
        machine.scan_missing = Some(format!("have an image that can be read as a whole: {unread}"));
    }
    watcher.done("policy asked");
    let image_facts = gather::image_facts(&store, &image, isolation)?;
    let kernel = match isolation {
        Isolation::MicroVM => Some(guest_kernel(wanted, home, watcher)?),
        Isolation::Container | Isolation::Wasm | Isolation::Unikernel | Isolation::TEE => None,
    };
    if kernel.is_some() {
        watcher.done("kernel chosen");
    }
    let mut plan = Plan::decide(&request, &gather::facts(image_facts, kernel.as_ref(), machine))?;
    plan.notices.extend(allowed.notices);
    let initramfs = match (&kernel, plan.virtual_machine()) {
        (Some(kernel), Some(machine)) => Some(gather::initramfs(home, kernel, machine)?),
        _ => None,
    };
    watcher.done("plan decided");
    Ok(Prepared { home: home.clone(), plan, initramfs, image })
}

/// The request for an image that only this isolation can run, where nobody said which one there is to be.
fn by_image(mut request: Request, isolation: Isolation) -> Result<Request, PrepareError> {
    request.manifest.spec.virtualization.isolation = isolation;
    request.by_image = true;
    hac::validate(&request.manifest).map_err(|wrong| PrepareError::ByImage {
        image: request.manifest.spec.deployment.image.clone(),
        isolation,
        reason: wrong.to_string(),
    })?;
    Ok(request)
}

/// Finds out what matters of the machine, and refuses what it can't do before an image is fetched for it.
fn judge(request: &Request, home: &Home, gate: &Gate) -> Result<MachineFacts, PrepareError> {
    let isolation = request.manifest.spec.virtualization.isolation;
    let kvm_missing = match isolation {
        Isolation::MicroVM | Isolation::Unikernel | Isolation::TEE => {
            hypercore::kvm::known(&home.cache()).missing()
        }
        Isolation::Container | Isolation::Wasm => None,
    };
    let mut machine = gather::machine_facts(isolation, kvm_missing, gate.scan_missing());
    machine.volumes = gather::volumes(home, &request.manifest)?;
    machine.secrets = Secrets::at(home.secrets()).names()?;
    Plan::check(request, &machine)?;
    Ok(machine)
}

fn image(
    wanted: &Wanted,
    wasm: WasmChoice,
    store: &Store,
    gate: &Gate,
    watcher: &mut dyn Watcher,
) -> Result<(Image, PullOptions), PrepareError> {
    let reference: Reference = wanted.request.manifest.spec.deployment.image.parse()?;
    gate.name(&reference)?;
    let options = PullOptions { plain_http: wanted.plain_http, wasm, ..PullOptions::default() };
    // A folder or archive changes under its name; a registry's image is kept as it was pulled.
    let is_stable = matches!(reference, Reference::Registry(_));
    if is_stable
        && !wanted.pull
        && let Some(image) = store.find(&reference, &options)?
    {
        return Ok((image, options));
    }
    let pulled = watcher.pull(store, &reference, &options);
    let pulled = pulled.map_err(|source| PrepareError::Pull { image: reference.to_string(), source })?;
    Ok((pulled, options))
}

fn guest_kernel(wanted: &Wanted, home: &Home, watcher: &mut dyn Watcher) -> Result<Kernel, PrepareError> {
    let store = gather::kernels(home)?;
    match kernel::choose(&store, wanted.kernel.as_deref(), None) {
        Ok((kernel, _)) => Ok(kernel),
        Err(ChooseError::None) => {
            watcher.say("fetching a guest kernel (once)");
            let mut show = |step: kernel::Step| watcher.say(&step.to_string());
            kernel::fetch(&store, &mut show).map_err(PrepareError::Fetch)
        }
        Err(error) => Err(error.into()),
    }
}
