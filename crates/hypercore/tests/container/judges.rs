//! The bundle before the runtimes of others.

use std::process::Command;

use hypercore::driver::container::{ContainerDriver, FIRST_ID};
use hypercore::driver::{Driver, Execution};

use super::rig::{Image, container_of};
use super::skipped;

/// Runs the configuration as it is prepared, with a static program of the image in place of `spacecore`.
pub(crate) fn other_runtimes_accept_and_run_the_bundle() {
    let name = "judges::other_runtimes_accept_and_run_the_bundle";
    let image = Image::new();
    let mut machine = image.machine();
    container_of(&mut machine).pids = 20;
    let Execution::Container { mut config, .. } = ContainerDriver.prepare(&machine).unwrap().execution else {
        unreachable!("a container was prepared");
    };
    config["process"]["args"] =
        serde_json::json!(["/bin/busybox", "sh", "-c", "id -u; grep Seccomp: /proc/self/status"]);
    config["root"]["path"] = serde_json::json!(image.layer());
    let bundle = image.folder.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    std::fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    // They know nothing of idmapped roots: the tree is the container's.
    let owner = format!("{FIRST_ID}:{FIRST_ID}");
    for folder in [image.layer(), image.folder.path().to_owned()] {
        let given = Command::new("chown").args(["-hR", &owner]).arg(&folder).status().unwrap();
        assert!(given.success());
    }
    for runtime in ["crun", "runc"] {
        let id = format!("vimana-judge-{runtime}-{}", std::process::id());
        let mut command = Command::new(runtime);
        command
            .arg("--root")
            .arg(image.folder.path().join(runtime))
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(&id);
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                skipped(name, &format!("{runtime}: {error}"));
                continue;
            }
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if errors.contains("hybrid mode not supported") {
            // It refuses version 1 where version 2 has any controller beside it.
            skipped(name, &format!("{runtime}: {}", errors.trim()));
            continue;
        }
        assert_eq!(said, "0\nSeccomp:\t2\n", "{runtime}: {errors}");
        assert!(output.status.success(), "{runtime}: {errors}");
    }
}
