//! Programs compiled from C with wasi-libc, as people bring them.

use std::fs;

use spacecore::wire::message::ExitStatus;

use super::rig::{self, Rig};

fn compiled(test: &str, source: &str) -> Option<Rig> {
    match rig::c(source, &[]) {
        Ok(bytes) => Some(Rig::binary(&bytes)),
        Err(reason) => {
            rig::skipped(test, &reason);
            None
        }
    }
}

#[test]
fn arguments_and_variables_are_what_was_configured_and_no_others() {
    const TEST: &str = "arguments_and_variables_are_what_was_configured_and_no_others";
    let source = r#"
        #include <stdio.h>
        extern char **environ;
        int main(int argc, char **argv) {
            for (int i = 0; i < argc; i++) printf("arg %s\n", argv[i]);
            for (char **e = environ; e && *e; e++) printf("env %s\n", *e);
            return argc;
        }"#;
    let Some(rig) = compiled(TEST, source) else { return };
    let mut rig = rig.args(&["one", "two words", ""]);
    rig.process.env = vec!["A=1".into(), "B=x=y".into(), "EMPTY=".into()];
    let seen = rig.run();
    let wanted = "arg program\narg one\narg two words\narg \nenv A=1\nenv B=x=y\nenv EMPTY=\n";
    assert_eq!((seen.stdout().as_str(), seen.status), (wanted, Some(ExitStatus::Code(4))));
    rig.process.args.clear();
    rig.process.env.clear();
    assert_eq!(rig.run().stdout(), "arg program.wasm\n", "without arguments it is called by its file's name");
}

#[test]
fn files_are_reached_through_the_folders_that_were_granted_alone() {
    const TEST: &str = "files_are_reached_through_the_folders_that_were_granted_alone";
    let source = r#"
        #include <errno.h>
        #include <stdio.h>
        #include <string.h>
        int main(int argc, char **argv) {
            for (int i = 1; i < argc; i++) {
                const char *mode = argv[i][0] == '+' ? "w" : "r";
                FILE *file = fopen(argv[i] + 1, mode);
                char line[64] = "";
                if (!file) { printf("%s: no\n", argv[i]); continue; }
                if (*mode == 'w') fputs("written", file); else fgets(line, 64, file);
                fclose(file);
                printf("%s: %s\n", argv[i], line);
            }
        }"#;
    let Some(mut rig) = compiled(TEST, source) else { return };
    let (data, fixed) = (rig.mount("data", "/data", false), rig.mount("fixed", "/fixed", true));
    fs::write(fixed.join("in"), "fixed").unwrap();
    fs::create_dir(data.join("sub")).unwrap();
    fs::write(data.join("sub/near"), "near").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", data.join("link")).unwrap();
    rig.process.working_directory = "/data/sub".into();
    let rig = rig.args(&[
        "-/fixed/in",
        "+/fixed/in",
        "+/fixed/new",
        "+/data/out",
        "-near",
        "-/etc/passwd",
        "-/data/link",
        "-/data/../../etc/passwd",
        "-../../../../etc/passwd",
    ]);
    let seen = rig.run();
    let wanted = "-/fixed/in: fixed\n+/fixed/in: no\n+/fixed/new: no\n+/data/out: \n-near: near\n-/etc/passwd: no\n\
                  -/data/link: no\n-/data/../../etc/passwd: no\n-../../../../etc/passwd: no\n";
    assert_eq!(seen.stdout(), wanted);
    assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "written");
    assert_eq!(fs::read_to_string(fixed.join("in")).unwrap(), "fixed");
}

#[test]
fn a_hog_that_opens_files_for_ever_leaves_the_process_its_descriptors() {
    const TEST: &str = "a_hog_that_opens_files_for_ever_leaves_the_process_its_descriptors";
    let source = r#"
        #include <stdio.h>
        #include <fcntl.h>
        int main(void) {
            int n = 0;
            while (n < 100000 && open("/data/file", O_CREAT | O_RDWR, 0600) >= 0) n++;
            printf("%d\n", n);
            for (;;) ;
        }"#;
    let Some(mut rig) = compiled(TEST, source) else { return };
    rig.mount("data", "/data", false);
    let seen = rig.run();
    assert_eq!(seen.status, super::programs::killed_by(6));
    assert!(seen.stderr().contains("resource table has no free keys"), "{}", seen.stderr());
}

#[test]
fn clocks_and_random_numbers_are_there_and_sleeping_costs_nothing() {
    const TEST: &str = "clocks_and_random_numbers_are_there_and_sleeping_costs_nothing";
    let source = r#"
        #include <stdio.h>
        #include <time.h>
        #include <unistd.h>
        int main(void) {
            unsigned char a[16] = {0}, sum = 0;
            if (getentropy(a, 16)) return 1;
            for (int i = 0; i < 16; i++) sum |= a[i];
            time_t before = time(0);
            usleep(300000);
            printf("%d %d\n", sum != 0, before > 1700000000);
            fflush(stdout);
            sleep(1000);
        }"#;
    let Some(rig) = compiled(TEST, source) else { return };
    let mut running = rig.start();
    running.until("asleep", |seen| seen.stdout.ends_with(b"\n"));
    assert_eq!(running.seen.stdout(), "1 1\n");
    assert!(running.instance.observe().unwrap().cpu < std::time::Duration::from_millis(250));
    running.say(&spacecore::wire::message::ToGuest::Shutdown { grace_ms: 60_000 });
    running.until("gone", |seen| seen.gone);
}
