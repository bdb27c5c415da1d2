//! From what is asked for to what can be started: image, kernel, plan, initramfs.

use std::path::PathBuf;

use anyhow::Context;
use hac::model::Isolation;
use hypercore::kernel::{self, ChooseError, Kernel};
use image::{Image, PullOptions, Reference, Store, StoreOptions, WasmChoice};
use node::gather;
use node::home::Home;
use node::keeper::assignment::{Assignment, Lifetime};
use node::plan::{MachineFacts, Plan, Request};
use node::policy::Gate;
use spacecore::wire::message::TerminalSize;

use super::progress::Steps;
use super::request::{Asked, Workload};

/// The streams that the workload gets.
pub struct Streams {
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// The terminal's size, if the workload gets one.
    pub terminal: Option<TerminalSize>,
}

/// Everything that is needed for a start.
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
    /// What a keeper is told. Volumes that are made for it belong to who owns their place in the image.
    pub fn assignment(&self, id: &str, lifetime: Lifetime) -> anyhow::Result<Assignment> {
        let mut assignment = self.plan.assignment(id, &self.home, self.initramfs.as_deref(), lifetime);
        for (used, volume) in assignment.volumes.iter_mut().zip(&self.plan.volumes) {
            if !node::volume::exists(&used.folder) {
                used.owner = Some(gather::owner_at(&self.image, &volume.destination)?);
            }
        }
        Ok(assignment)
    }
}

/// Prepares a start: pulls the image and fetches a kernel where they lack, decides the plan, makes the initramfs.
pub fn prepare(workload: &Workload, streams: Option<Streams>, steps: &mut Steps) -> anyhow::Result<Prepared> {
    let Asked { request, names_isolation } = workload.request()?;
    let mut request = with_streams(request, streams.as_ref());
    steps.done("manifest read");
    let home = Home::find()?;
    node::run_folder::sweep(&home.run()).with_context(|| format!("can't clear {}", home.run().display()))?;
    let gate = Gate::open(&home)?;
    let mut machine = judge(&request, &home, &gate)?;
    steps.done("machine judged");
    let store = gather::images(&home, StoreOptions::from_env()?)?;
    let wasm = match (request.manifest.spec.virtualization.isolation, names_isolation) {
        (Isolation::Wasm, _) => WasmChoice::First,
        (_, true) => WasmChoice::Never,
        (_, false) => WasmChoice::Fallback,
    };
    let (image, options) =
        image(workload, &request.manifest.spec.deployment.image, wasm, &store, &gate, steps)?;
    // An image for this machine's own platform stays what it is, even if its entrypoint is a Wasm program.
    if wasm == WasmChoice::Fallback && image.wasm.is_some() && image.platform.is_wasm() {
        request = with_streams(workload.request_by_image(Isolation::Wasm)?, streams.as_ref());
        machine = judge(&request, &home, &gate)?;
    }
    let isolation = request.manifest.spec.virtualization.isolation;
    steps.done("image ready");
    let allowed = gate.image(&store, &image, &options, &mut |line| steps.say(line))?;
    if let (None, Some(unread)) = (&machine.scan_missing, &allowed.unread) {
        machine.scan_missing = Some(format!("have an image that can be read as a whole: {unread}"));
    }
    steps.done("policy asked");
    let image_facts = gather::image_facts(&store, &image, isolation)?;
    let kernel = match isolation {
        Isolation::MicroVM => Some(guest_kernel(workload, &home, steps)?),
        Isolation::Container | Isolation::Wasm | Isolation::Unikernel | Isolation::TEE => None,
    };
    if kernel.is_some() {
        steps.done("kernel chosen");
    }
    let mut plan = Plan::decide(&request, &gather::facts(image_facts, kernel.as_ref(), machine))?;
    plan.notices.extend(allowed.notices);
    let initramfs = match (&kernel, plan.virtual_machine()) {
        (Some(kernel), Some(machine)) => Some(gather::initramfs(&home, kernel, machine)?),
        _ => None,
    };
    steps.done("plan decided");
    Ok(Prepared { home, plan, initramfs, image })
}

fn with_streams(mut request: Request, streams: Option<&Streams>) -> Request {
    if let Some(streams) = streams {
        request.stdin = streams.stdin;
        request.terminal = streams.terminal;
    }
    request
}

/// Finds out what matters of the machine, and refuses what it can't do before an image is fetched for it.
fn judge(request: &Request, home: &Home, gate: &Gate) -> anyhow::Result<MachineFacts> {
    let isolation = request.manifest.spec.virtualization.isolation;
    let kvm_missing = match isolation {
        Isolation::MicroVM | Isolation::Unikernel | Isolation::TEE => {
            hypercore::kvm::known(&home.cache()).missing()
        }
        Isolation::Container | Isolation::Wasm => None,
    };
    let mut machine = gather::machine_facts(isolation, kvm_missing, gate.scan_missing());
    machine.volumes = gather::volumes(home, &request.manifest)?;
    Plan::check(request, &machine)?;
    Ok(machine)
}

fn image(
    workload: &Workload,
    name: &str,
    wasm: WasmChoice,
    store: &Store,
    gate: &Gate,
    steps: &mut Steps,
) -> anyhow::Result<(Image, PullOptions)> {
    let reference: Reference = name.parse()?;
    gate.name(&reference)?;
    let options = PullOptions { plain_http: workload.plain_http, wasm, ..PullOptions::default() };
    // A folder or archive changes under its name; a registry's image is kept as it was pulled.
    let stable = matches!(reference, Reference::Registry(_));
    if stable
        && !workload.pull
        && let Some(image) = store.find(&reference, &options)?
    {
        return Ok((image, options));
    }
    let pulled = steps
        .pull(store, &reference, &options)
        .with_context(|| format!("can't get the image {reference}"))?;
    Ok((pulled, options))
}

fn guest_kernel(workload: &Workload, home: &Home, steps: &mut Steps) -> anyhow::Result<Kernel> {
    let store = gather::kernels(home)?;
    match kernel::choose(&store, workload.kernel.as_deref(), None) {
        Ok((kernel, _)) => Ok(kernel),
        Err(ChooseError::None) => {
            steps.say("fetching a guest kernel (once)");
            let mut show = |step: kernel::Step| steps.say(&step.to_string());
            kernel::fetch(&store, &mut show).context("there is no guest kernel yet, and it can't be fetched")
        }
        Err(error) => Err(error.into()),
    }
}
