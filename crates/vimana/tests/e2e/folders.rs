//! Folders of the host inside a spacecore.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Home, code, missing, skipped, text};

#[test]
fn a_folder_is_read_and_written_and_a_read_only_one_only_read() {
    let Some(home) = Home::new("a_folder_is_read_and_written_and_a_read_only_one_only_read") else {
        return;
    };
    let (rw, ro) = (home.path().join("rw"), home.path().join("ro"));
    for folder in [&rw, &ro] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("in"), "from outside\n").unwrap();
    }
    let flags = [format!("{}:/rw", rw.display()), format!("{}:/a/ro:ro", ro.display())];
    let script = "cat /rw/in /a/ro/in && mkdir -p /rw/sub && echo from inside > /rw/sub/out && mv /rw/in /rw/moved && \
                  (echo x > /a/ro/out) 2>/dev/null || echo refused; ls /a/ro";
    let output = home.output(&["-v", &flags[0], "-v", &flags[1]], script);
    assert_eq!(text(&output.stdout), "from outside\nfrom outside\nrefused\nin\n", "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(rw.join("sub/out")).unwrap(), "from inside\n");
    assert!(rw.join("moved").exists() && !rw.join("in").exists() && !ro.join("out").exists());
    home.assert_nothing_is_left();
}

#[test]
fn a_single_file_can_be_mounted() {
    let Some(home) = Home::new("a_single_file_can_be_mounted") else {
        return;
    };
    let file = home.path().join("config");
    fs::write(&file, "key = 1\n").unwrap();
    let output = home.output(
        &["-v", &format!("{}:/etc/app/config:ro", file.display())],
        "cat /etc/app/config; ls /etc/app",
    );
    assert_eq!(text(&output.stdout), "key = 1\nconfig\n", "{}", text(&output.stderr));
}

#[test]
fn a_large_file_survives_both_ways() {
    let Some(home) = Home::new("a_large_file_survives_both_ways") else {
        return;
    };
    let share = home.path().join("share");
    fs::create_dir(&share).unwrap();
    let data: Vec<u8> = (0..6_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(share.join("in"), &data).unwrap();
    let output = home.output(
        &["-v", &format!("{}:/share", share.display())],
        "cp /share/in /tmp/x && cp /tmp/x /share/out",
    );
    assert_eq!(code(output.status), 0, "{}", text(&output.stderr));
    assert!(fs::read(share.join("out")).unwrap() == data);
}

#[test]
fn links_never_lead_out_of_a_folder() {
    let Some(home) = Home::new("links_never_lead_out_of_a_folder") else {
        return;
    };
    let share = home.path().join("share");
    fs::create_dir(&share).unwrap();
    fs::write(home.path().join("secret"), "secret of the host\n").unwrap();
    symlink("../secret", share.join("up")).unwrap();
    symlink(home.path().join("secret"), share.join("absolute")).unwrap();
    let script = "cat /share/up /share/absolute /share/../secret 2>&1 | grep -c 'secret of the host'";
    let output = home.output(&["-v", &format!("{}:/share", share.display())], script);
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
}

#[test]
fn a_source_that_doesnt_exist_is_named_before_anything_starts() {
    let Some(home) = Home::new("a_source_that_doesnt_exist_is_named_before_anything_starts") else {
        return;
    };
    let output = home.output(&["-v", "/no/such/folder:/x"], "true");
    assert_eq!(code(output.status), 125);
    assert!(text(&output.stderr).contains("/no/such/folder"), "{}", text(&output.stderr));
    home.assert_nothing_is_left();
}

#[test]
fn what_a_user_mounts_over_etc_hosts_is_read_and_never_written() {
    let test = "what_a_user_mounts_over_etc_hosts_is_read_and_never_written";
    let Some(home) = Home::new(test) else { return };
    let own = home.path().join("hosts");
    fs::write(&own, "192.0.2.7 own\n").unwrap();
    for isolation in ["MicroVM", "Container"] {
        if let Some(reason) = missing(isolation) {
            skipped(&format!("{test}: {isolation}"), &reason);
            continue;
        }
        for mode in ["", ":ro"] {
            let mount = format!("{}:/etc/hosts{mode}", own.display());
            let args = [
                "run",
                "--isolation",
                isolation,
                "-m",
                "96Mi",
                "--network",
                "none",
                "-v",
                &mount,
                &home.image,
            ];
            let output = home.vimana(&args).args(["--", "cat", "/etc/hosts"]).output().unwrap();
            assert_eq!(
                text(&output.stdout),
                "192.0.2.7 own\n",
                "{isolation}{mode}: {}",
                text(&output.stderr)
            );
            assert_eq!(fs::read_to_string(&own).unwrap(), "192.0.2.7 own\n", "{isolation}{mode}");
        }
    }
    home.assert_nothing_is_left();
}
