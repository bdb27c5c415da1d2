//! `vimana start | stop | restart | rm | scale | wait`: what is done with a whole deployment.

use std::io::Write;
use std::process::ExitCode;

use hyper::Method;
use node::daemon::view::{DeploymentView, Outcome, SpacecoreView};

use crate::client::{At, Client, check_name, code_of};

/// Which deployment, and whether to wait.
#[derive(clap::Args)]
pub struct Target {
    /// The deployment
    name: String,
    /// Don't wait until it is done
    #[arg(short, long)]
    detach: bool,
    /// The longest wait in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u32,
    #[command(flatten)]
    at: At,
}

/// Has a deployment run again that was stopped, and what of it has failed for good begin anew
#[derive(clap::Args)]
#[command(after_help = "Example:\n  vimana start web")]
pub struct Start {
    #[command(flatten)]
    target: Target,
}

/// Ends a deployment's spacecores in order, and keeps the deployment
#[derive(clap::Args)]
#[command(after_help = "Example:\n  vimana stop web")]
pub struct Stop {
    #[command(flatten)]
    target: Target,
}

/// Ends a deployment in order and forgets it; its volumes are kept, and its logs until there is too much of such
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana rm web
  vimana rm web --logs        also the logs of one that is gone already")]
pub struct Rm {
    /// Remove the logs too
    #[arg(long)]
    logs: bool,
    #[command(flatten)]
    target: Target,
}

/// Sets how many spacecores a deployment has
#[derive(clap::Args)]
#[command(after_help = "Example:\n  vimana scale worker 4")]
pub struct Scale {
    #[command(flatten)]
    target: Target,
    /// How many
    replicas: u32,
}

/// Ends a spacecore, or all of a deployment, in order and starts it again
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana restart web
  vimana restart web-1")]
pub struct Restart {
    /// A deployment, or a spacecore
    name: String,
    #[command(flatten)]
    at: At,
}

/// Waits until a deployment is ready, has ended, stands still, or is gone
///
/// Exit codes: 0 once it is so; 1 if it isn't in time, or can't become so; 3 if another revision was applied, or it was removed,
/// meanwhile. With --for ended the exit code is that of the first workload that failed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana wait web
  vimana wait web --revision 4
  vimana wait batch --for ended --timeout 3600")]
pub struct Wait {
    /// The deployment
    name: String,
    /// What to wait for: ready, ended, stopped or gone
    #[arg(long = "for", value_name = "STATE", default_value = "ready", value_parser = ["ready", "ended", "stopped", "gone"])]
    what: String,
    /// Only this revision will do, and none that is applied after it
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,
    /// The longest wait in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,
    #[command(flatten)]
    at: At,
}

impl Target {
    /// Has it done, waits for it, says so.
    fn act(
        &self,
        method: Method,
        verb: &str,
        body: crate::client::Payload,
        what: &str,
    ) -> anyhow::Result<ExitCode> {
        let (client, name) = (Client::new(&self.at)?, check_name(&self.name)?);
        let asked: DeploymentView = client.send(method, &format!("/v1/deployments/{name}{verb}"), body)?;
        if self.detach {
            return say(&format!("{name}: {}", asked.state), Outcome::Reached);
        }
        let waited = client.wait(name, what, None, self.timeout)?;
        let state = waited.deployment.as_ref().map_or("gone".to_owned(), |found| {
            format!("{}, {} of {} ready", found.state, found.ready, found.replicas)
        });
        say(&format!("{name}: {state}"), waited.outcome)
    }
}

fn say(text: &str, outcome: Outcome) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(code_of(outcome))
}

/// Runs the command.
pub fn start(args: &Start) -> anyhow::Result<ExitCode> {
    args.target.act(Method::POST, "/start", None, "ready")
}

/// Runs the command.
pub fn stop(args: &Stop) -> anyhow::Result<ExitCode> {
    args.target.act(Method::POST, "/stop", None, "stopped")
}

/// Runs the command.
pub fn rm(args: &Rm) -> anyhow::Result<ExitCode> {
    args.target.act(Method::DELETE, if args.logs { "?logs=true" } else { "" }, None, "gone")
}

/// Runs the command.
pub fn scale(args: &Scale) -> anyhow::Result<ExitCode> {
    let body = serde_json::to_vec(&serde_json::json!({ "replicas": args.replicas }))?;
    args.target.act(Method::POST, "/scale", Some(("application/json", body)), "ready")
}

/// Runs the command.
pub fn restart(args: &Restart) -> anyhow::Result<ExitCode> {
    let (client, name) = (Client::new(&args.at)?, check_name(&args.name)?);
    let spacecores: Vec<SpacecoreView> =
        client.send(Method::POST, &format!("/v1/spacecores/{name}/restart"), None)?;
    let mut out = std::io::stdout().lock();
    spacecores.iter().try_for_each(|one| writeln!(out, "{}: {}", one.name, one.phase))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the command.
pub fn wait_for(args: &Wait) -> anyhow::Result<ExitCode> {
    let (client, name) = (Client::new(&args.at)?, check_name(&args.name)?);
    let waited = client.wait(name, &args.what, args.revision, args.timeout)?;
    let spacecores = waited.deployment.as_ref().map(|found| found.spacecores.as_slice()).unwrap_or_default();
    let state = waited.deployment.as_ref().map_or("gone", |found| found.state.as_str());
    let code = say(&format!("{name}: {state}"), waited.outcome)?;
    let mut failed =
        spacecores.iter().filter(|one| one.phase == "failed").map(|one| one.exit_code.unwrap_or(1));
    match failed.find(|code| *code != 0) {
        Some(status) if args.what == "ended" && waited.reached => Ok(ExitCode::from(status)),
        _ => Ok(code),
    }
}
