//! The workload's process: the image's configuration with what the manifest changes in it.

use spacecore::wire::message::Process;

use super::{ImageFacts, PlanError, Request};

/// Merges manifest and image as the OCI image specification says.
pub(super) fn workload(request: &Request, image: &ImageFacts) -> Result<Process, PlanError> {
    let deployment = &request.manifest.spec.deployment;
    let config = &image.config;
    let entrypoint = deployment.command.as_ref().unwrap_or(&config.entrypoint);
    // A replaced entrypoint doesn't get the arguments that the image has for its own.
    let image_args: &[String] = if deployment.command.is_some() { &[] } else { &config.cmd };
    let rest = deployment.args.as_deref().unwrap_or(image_args);
    let mut args: Vec<String> = entrypoint.iter().chain(rest).cloned().collect();
    // A bare Wasm program comes without a configuration that would name it.
    if let Some(wasm) = image.wasm.as_ref().filter(|_| entrypoint.is_empty() && config.cmd.is_empty()) {
        args.insert(0, wasm.name.clone());
    }
    if args.is_empty() {
        return Err(PlanError::NoCommand { image: image.reference.clone() });
    }
    let stop_signal = match config.stop_signal.as_deref() {
        None | Some("") => libc::SIGTERM,
        Some(signal) => signal_number(signal).ok_or_else(|| PlanError::StopSignal {
            image: image.reference.clone(),
            signal: signal.to_owned(),
        })?,
    };
    Ok(Process {
        args,
        env: environment(
            &config.env,
            deployment.env.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        ),
        user: deployment.user.clone().unwrap_or_else(|| config.user.clone()),
        working_directory: deployment.workdir.clone().unwrap_or_else(|| config.working_dir.clone()),
        stdin: request.stdin,
        terminal: request.terminal,
        stop_signal,
        transfer: None,
    })
}

/// The image's variables, each replaced where there is a newer value, and then the new ones.
fn environment<'a>(image: &[String], newer: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut env = image.to_vec();
    for (name, value) in newer {
        let pair = format!("{name}={value}");
        let of_name = |known: &&mut String| known.split('=').next() == Some(name);
        match env.iter_mut().find(of_name) {
            Some(known) => *known = pair,
            None => env.push(pair),
        }
    }
    env
}

/// The number of a signal as people write it: `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // The kernel's own numbers: a C library may keep the first real-time signals for itself.
    const RT_MIN: i32 = 34;
    const RT_MAX: i32 = 64;
    let offset = |rest: &str| {
        if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() }
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest).map(|n| RT_MIN.saturating_add(n)).filter(|n| (RT_MIN..=RT_MAX).contains(n));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest).map(|n| RT_MAX.saturating_add(n)).filter(|n| (RT_MIN..=RT_MAX).contains(n));
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

const NAMES: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_people_write_them() {
        let cases = [
            ("15", Some(15)),
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigquit", Some(3)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("SIGRTMIN+99", None),
            ("SIGNOTHING", None),
            ("", None),
        ];
        for (text, number) in cases {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }

    #[test]
    fn a_newer_variable_replaces_the_image_s_own_in_its_place() {
        let image = ["PATH=/bin".to_owned(), "A=1".to_owned()];
        let env = environment(&image, [("A", "2"), ("B", "x=y")].into_iter());
        assert_eq!(env, ["PATH=/bin", "A=2", "B=x=y"]);
    }
}
