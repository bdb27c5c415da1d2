//! The workload: what it is given and what comes back.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::support::{Home, Killed, code, eventually, text};

#[test]
fn output_and_exit_code_come_back_apart_and_whole() {
    let Some(home) = Home::new("output_and_exit_code_come_back_apart_and_whole") else {
        return;
    };
    let output = home.output(&[], "echo out; echo err >&2; exit 7");
    assert_eq!(
        (text(&output.stdout).as_str(), code(output.status)),
        ("out\n", 7),
        "{}",
        text(&output.stderr)
    );
    assert!(text(&output.stderr).lines().any(|line| line == "err"));
    home.assert_nothing_is_left();
}

#[test]
fn a_workload_runs_on_a_kernel_and_in_a_namespace_of_its_own() {
    let Some(home) = Home::new("a_workload_runs_on_a_kernel_and_in_a_namespace_of_its_own") else {
        return;
    };
    let script = "echo pid $$; uname -r; hostname; id -u; pwd; cat /proc/1/comm; ls /sys/class/net; touch /x && echo writable";
    let output = home.output(&[], script);
    let out = text(&output.stdout);
    assert!(out.contains("pid 2\n") && out.contains("writable\n"), "{out}{}", text(&output.stderr));
    assert!(!out.contains(text(&std::fs::read("/proc/sys/kernel/osrelease").unwrap()).trim()), "{out}");
    assert!(!out.contains("eth"), "no network was asked for: {out}");
}

#[test]
fn env_user_and_working_folder_are_those_of_the_manifest() {
    let Some(home) = Home::new("env_user_and_working_folder_are_those_of_the_manifest") else {
        return;
    };
    let manifest = home.path().join("hac.toml");
    let text_of = format!(
        "[metadata]\nname = \"tester\"\n[spec.deployment]\nimage = \"{}\"\ncommand = [\"sh\", \"-c\"]\n\
         args = [\"id -un; id -gn; pwd; echo $COLOR; hostname\"]\nuser = \"nobody\"\nworkdir = \"/tmp/deep/er\"\n\
         [spec.deployment.env]\nCOLOR = \"blue\"\n[spec.resources]\nmemory = \"96Mi\"\n\
         [spec.networking]\nnetwork_type = \"none\"\n",
        home.image
    );
    std::fs::write(&manifest, text_of).unwrap();
    let output = home.vimana(&["run", "--accel", "tcg", manifest.to_str().unwrap()]).output().unwrap();
    assert_eq!(
        text(&output.stdout),
        "nobody\nnogroup\n/tmp/deep/er\nblue\ntester\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_isnt_there_or_cant_be_executed_has_a_shell_s_exit_codes() {
    let Some(home) = Home::new("what_isnt_there_or_cant_be_executed_has_a_shell_s_exit_codes") else {
        return;
    };
    let run = |program: &str| {
        let output = home
            .vimana(&["run", "--accel", "tcg", "-m", "96Mi", &home.image, "--", program])
            .output()
            .unwrap();
        (code(output.status), text(&output.stderr))
    };
    let (missing, said) = run("/no/such/program");
    assert_eq!(missing, 127, "{said}");
    assert!(said.contains("/no/such/program"), "{said}");
    let (refused, said) = run("/etc/passwd");
    assert_eq!(refused, 126, "{said}");
    home.assert_nothing_is_left();
}

#[test]
fn standard_input_reaches_the_workload_and_ends() {
    let Some(home) = Home::new("standard_input_reaches_the_workload_and_ends") else {
        return;
    };
    let mut child = home
        .run(&["-i"], "sha256sum | cut -c1-64")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    child.stdin.take().unwrap().write_all(&data).unwrap();
    let output = child.wait_with_output().unwrap();
    use sha2::Digest;
    let expected: String = sha2::Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text(&output.stdout).trim(), expected);
}

#[test]
fn large_binary_output_arrives_intact_also_at_a_slow_reader() {
    let Some(home) = Home::new("large_binary_output_arrives_intact_also_at_a_slow_reader") else {
        return;
    };
    let script = "dd if=/dev/urandom of=/tmp/x bs=1M count=8 2>/dev/null; sha256sum /tmp/x >&2; cat /tmp/x";
    let mut child = home.run(&[], script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut all, mut chunk) = (Vec::new(), vec![0; 50_000]);
    loop {
        let read = out.read(&mut chunk).unwrap();
        if read == 0 {
            break;
        }
        all.extend_from_slice(&chunk[..read]);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let said = text(&child.wait_with_output().unwrap().stderr);
    use sha2::Digest;
    let digest: String = sha2::Sha256::digest(&all).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(all.len(), 8 << 20);
    assert!(said.contains(&digest), "{said}");
}

#[test]
fn a_workload_that_eats_all_memory_dies_with_the_reason() {
    let Some(home) = Home::new("a_workload_that_eats_all_memory_dies_with_the_reason") else {
        return;
    };
    let output = home.output(&[], "exec tail /dev/zero");
    assert_eq!(code(output.status), 137, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("memory"), "{}", text(&output.stderr));
    home.assert_nothing_is_left();
}

#[test]
fn a_scratch_disk_takes_more_than_the_memory_holds() {
    let Some(home) = Home::new("a_scratch_disk_takes_more_than_the_memory_holds") else {
        return;
    };
    let manifest = home.path().join("hac.toml");
    let text_of = format!(
        "[spec.deployment]\nimage = \"{}\"\ncommand = [\"sh\", \"-c\"]\n\
         args = [\"dd if=/dev/zero of=/big bs=1M count=150 2>/dev/null && ls -l /big | tr -s ' ' | cut -d' ' -f5\"]\n\
         [spec.resources]\nmemory = \"96Mi\"\nstorage = \"512Mi\"\n[spec.networking]\nnetwork_type = \"none\"\n",
        home.image
    );
    std::fs::write(&manifest, text_of).unwrap();
    let output = home.vimana(&["run", "--accel", "tcg", manifest.to_str().unwrap()]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), (150 << 20).to_string(), "{}", text(&output.stderr));
    home.assert_nothing_is_left();
}

#[test]
fn layers_are_held_to_their_merkle_roots_where_that_is_asked_for() {
    let Some(home) = Home::new("layers_are_held_to_their_merkle_roots_where_that_is_asked_for") else {
        return;
    };
    let output = home.output(&["--verity"], "ls /sys/block; echo fine");
    let out = text(&output.stdout);
    assert!(out.contains("dm-0") && out.ends_with("fine\n"), "{out}{}", text(&output.stderr));
}

#[test]
fn events_are_json_lines_with_the_output_among_them() {
    let Some(home) = Home::new("events_are_json_lines_with_the_output_among_them") else {
        return;
    };
    let output = home.output(&["--json", "--timings"], "echo hello; exit 3");
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said: String = lines
        .iter()
        .filter(|line| line["event"] == "output" && line["stream"] == "stdout")
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(said, "hello\n");
    let ended = lines.iter().find(|line| line["event"] == "ended").unwrap();
    assert_eq!(ended["exit_code"], 3);
    assert!(lines.iter().any(|line| line["event"] == "timings"));
    assert_eq!(code(output.status), 3);
}

#[test]
fn two_spacecores_run_at_once_and_know_nothing_of_each_other() {
    let Some(home) = Home::new("two_spacecores_run_at_once_and_know_nothing_of_each_other") else {
        return;
    };
    let start = |name: &str| {
        let script = format!("echo {name} > /mine; sleep 1; cat /mine; ls / | grep -c mine");
        Killed(home.run(&[], &script).stdout(Stdio::piped()).spawn().unwrap())
    };
    let children = [start("one"), start("two")];
    eventually("both run", 30, || (home.run_folders().len() == 2).then_some(()));
    for (mut child, name) in children.into_iter().zip(["one", "two"]) {
        let mut out = String::new();
        child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(out, format!("{name}\n1\n"));
    }
    home.assert_nothing_is_left();
}
