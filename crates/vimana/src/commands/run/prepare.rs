//! From what is asked for to what can be started: image, kernel, plan, initramfs.

use std::path::PathBuf;

use anyhow::Context;
use hypercore::kernel::{self, ChooseError, Kernel};
use image::{Image, PullOptions, Reference, Store, StoreOptions};
use node::gather;
use node::home::Home;
use node::plan::Plan;
use spacecore::wire::message::TerminalSize;

use super::progress::Steps;
use super::request::Workload;

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
    /// What the guest boots from.
    pub initramfs: PathBuf,
    /// Keeps the image's layers from being collected.
    _image: Image,
}

/// Prepares a start: pulls the image and fetches a kernel where they lack, decides the plan, makes the initramfs.
pub fn prepare(workload: &Workload, streams: Option<Streams>, steps: &mut Steps) -> anyhow::Result<Prepared> {
    let mut request = workload.request()?;
    if let Some(streams) = streams {
        request.stdin = streams.stdin;
        request.terminal = streams.terminal;
    }
    steps.done("manifest read");
    let home = Home::find()?;
    node::run_folder::sweep(&home.run()).with_context(|| format!("can't clear {}", home.run().display()))?;
    let machine = gather::machine_facts(hypercore::kvm::known(&home.cache()).missing());
    Plan::check(&request, &machine)?;
    steps.done("machine judged");
    let image = image(workload, &request.manifest.spec.deployment.image, &home, steps)?;
    steps.done("image ready");
    let kernel = guest_kernel(workload, &home, steps)?;
    steps.done("kernel chosen");
    let plan = Plan::decide(&request, &gather::facts(&image, &kernel, machine))?;
    let initramfs = gather::initramfs(&home, &kernel, &plan)?;
    steps.done("plan decided");
    Ok(Prepared { home, plan, initramfs, _image: image })
}

fn image(workload: &Workload, name: &str, home: &Home, steps: &mut Steps) -> anyhow::Result<Image> {
    let reference: Reference = name.parse()?;
    let store = Store::open(&home.images(), StoreOptions::from_env()?)?;
    // A folder or archive changes under its name; a registry's image is kept as it was pulled.
    let stable = matches!(reference, Reference::Registry(_));
    if stable
        && !workload.pull
        && let Some(image) = store.get(&reference)?
    {
        return Ok(image);
    }
    let options = PullOptions { plain_http: workload.plain_http, ..PullOptions::default() };
    steps.pull(&store, &reference, &options).with_context(|| format!("can't get the image {reference}"))
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
