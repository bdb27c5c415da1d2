//! One run that shows what a workload is given and what it sees; many behaviours look at it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::rig::{Ran, Rig, finish};

/// Arguments that something between here and the workload could spoil.
pub const ODD: [&str; 8] =
    ["", "two words", "quo\"te'$HOME\\", "grüße ☃", "line\nline", "-x", "--", "*?[a]{b,c}~;|&<>"];

/// The length of the longest argument and of the longest variable.
pub const LONG: usize = 60_000;

/// FNV-1a with 64 bits, as the probe has it.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

pub fn long(letter: char) -> String {
    std::iter::repeat_n(letter, LONG).collect()
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The run: as a user of the image's, in a folder that isn't there, with odd arguments and variables from three sides. The
/// last two lines of its standard error are the host's clock before and after it.
pub fn survey(rig: &Rig) -> Ran {
    rig.shared("survey", || {
        let long = long('x');
        let mut probe = vec!["args", ",", "env", ",", "cwd", ",", "now", ",", "fds", ",", "terminal", ",", "sum", ","];
        probe.extend(["id", ",", "host", ",", "processes", ",", "status", ",", "interfaces", ","]);
        probe.extend(["read", "/etc/hosts", ",", "nothing"]);
        probe.extend(ODD);
        probe.extend([long.as_str(), ",", "say", "no newline at the end"]);
        let lines = format!(
            "[spec.deployment]\nuser = \"worker\"\nworkdir = \"/made/for/it\"\n[spec.deployment.env]\nBOTH = \"of the manifest\"\n\
             MANIFEST = \"of the manifest\"\nTHREE = \"of the manifest\"\nLONG = \"{}\"\n\
             [spec.networking]\nnetwork_type = \"none\"\n",
            self::long('y')
        );
        let flags = ["-e", "THREE=of the command line", "-e", "EMPTY=", "-e", "ODD=a=b c\"'\n$X"];
        let before = seconds();
        let mut ran = finish(&mut rig.run_manifest(&lines, &flags, &probe));
        ran.err.push_str(&format!("\n{before}\n{}", seconds()));
        ran
    })
}
