//! The environment of a process, and where its program is looked for.

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The value of a variable; the last one counts, as it does for a shell.
pub(crate) fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The variables as given, with `PATH`, `HOME`, `HOSTNAME` and (with a terminal) `TERM` where they lack.
pub(crate) fn complete(given: &[String], home: &str, hostname: &str, terminal: bool) -> Vec<String> {
    let mut env = given.to_vec();
    let mut default = |name: &str, content: &str| {
        if value(&env, name).is_none() {
            env.push(format!("{name}={content}"));
        }
    };
    default("PATH", DEFAULT_PATH);
    default("HOME", home);
    default("HOSTNAME", hostname);
    if terminal {
        default("TERM", "xterm");
    }
    env
}

/// Where a program can be, in order: itself where it has a `/`, else in each folder of `PATH`; an empty folder is the
/// working directory.
pub(crate) fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    value(env, "PATH")
        .unwrap_or(DEFAULT_PATH)
        .split(':')
        .map(|folder| match folder {
            "" => format!("./{program}"),
            folder => format!("{}/{program}", folder.trim_end_matches('/')),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(given: &[&str]) -> Vec<String> {
        given.iter().map(|pair| (*pair).to_owned()).collect()
    }

    #[test]
    fn what_lacks_is_added_and_what_is_given_stays() {
        let env = complete(&strings(&["HOME=/x", "EMPTY="]), "/root", "box", true);
        assert_eq!(value(&env, "HOME"), Some("/x"));
        assert_eq!(value(&env, "EMPTY"), Some(""));
        assert_eq!(value(&env, "HOSTNAME"), Some("box"));
        assert_eq!(value(&env, "TERM"), Some("xterm"));
        assert_eq!(value(&env, "PATH"), Some(DEFAULT_PATH));
        assert_eq!(value(&complete(&[], "/", "box", false), "TERM"), None);
    }

    #[test]
    fn a_name_that_only_begins_alike_is_another_variable() {
        assert_eq!(value(&strings(&["PATHS=/x", "PATH=/a", "PATH=/b"]), "PATH"), Some("/b"));
    }

    #[test]
    fn programs_are_looked_for_along_the_path() {
        let env = strings(&["PATH=/a::/b/"]);
        assert_eq!(candidates("ls", &env), ["/a/ls", "./ls", "/b/ls"]);
        assert_eq!(candidates("./ls", &env), ["./ls"]);
        assert_eq!(candidates("/bin/ls", &env), ["/bin/ls"]);
    }
}
