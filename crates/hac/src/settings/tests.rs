use proptest::prelude::*;

use super::*;
use crate::units::BitRate;

const WHOLE: &str = r#"
apiVersion = "vistara.eigenlayer/v1"

[spec.deployment]
user = "1000"
readonly_root = true

[spec.virtualization]
type = "MicroVM"
criteria = { security = "high" }

[spec.networking]
network_type = "public"
allow_to = ["api.example.org:443", "203.0.113.0/24"]
allow_from = ["192.0.2.0/24"]
egress = "10Mbps"

[spec.security]
isolation = ["AppArmor"]
"#;

fn manifest(text: &str) -> Manifest {
    crate::parse(&format!("[spec.deployment]\nimage = \"app\"\n{text}"), Format::Toml).unwrap()
}

#[test]
fn every_setting_tightens_a_manifest_that_says_nothing() {
    let tightened = parse(WHOLE).unwrap().tighten(&manifest("")).unwrap();
    let spec = &tightened.manifest.spec;
    assert_eq!((spec.deployment.user.as_deref(), spec.deployment.readonly_root), (Some("1000"), true));
    assert_eq!(spec.virtualization.criteria.security, Level::High);
    assert_eq!(listed(&spec.networking.allow_to), "[api.example.org:443, 203.0.113.0/24]");
    assert_eq!(listed(&spec.networking.allow_from), "[192.0.2.0/24]");
    assert_eq!((spec.networking.egress, spec.networking.ingress), (Some(BitRate(10_000_000)), None));
    assert_eq!(tightened.changes.len(), 6, "{:?}", tightened.changes);
    let change = "spec.networking.allow_to = [api.example.org:443, 203.0.113.0/24] (was [public])";
    assert!(tightened.changes.iter().any(|said| said == change), "{:?}", tightened.changes);
    let again = parse(WHOLE).unwrap().tighten(&tightened.manifest).unwrap();
    assert_eq!((again.manifest, again.changes), (tightened.manifest, Vec::new()));
}

#[test]
fn settings_read_the_same_in_every_format_and_in_one_line() {
    let settings = parse(WHOLE).unwrap();
    let line = settings.to_line();
    assert_eq!(line.lines().count(), 1);
    assert_eq!(parse(&line).unwrap(), settings, "{line}");
    let yaml = "spec:\n  deployment:\n    readonly_root: true\n";
    let settings = parse(yaml).unwrap();
    assert_eq!(settings.to_line(), r#"{"spec":{"deployment":{"readonly_root":true}}}"#);
    assert_eq!(parse("").unwrap().to_line(), "{}");
    let nothing = parse("{}").unwrap().tighten(&manifest("")).unwrap();
    assert_eq!((nothing.manifest, nothing.changes), (manifest(""), Vec::new()));
}

#[test]
fn what_the_manifest_says_already_stays_where_it_is_tighter() {
    let tight = manifest(
        "readonly_root = true\n[spec.networking]\nnetwork_type = \"none\"\nallow_to = []\nallow_from = [\"192.0.2.7\"]\n\
         bandwidth_limit = \"1Mbps\"\n[spec.security]\nisolation = [\"SELinux\", \"AppArmor\"]\n",
    );
    let settings = parse(
        "[spec.networking]\nallow_to = [\"any\"]\nallow_from = [\"any\"]\nbandwidth_limit = \"2Mbps\"\n\
         [spec.security]\nisolation = [\"AppArmor\"]\n",
    );
    let tightened = settings.unwrap().tighten(&tight).unwrap();
    assert_eq!((tightened.manifest, tightened.changes), (tight, Vec::new()));
}

#[test]
fn a_contradiction_shows_both_sides() {
    let settings = parse(WHOLE).unwrap();
    for (text, key, sides) in [
        ("user = \"0\"\n", "spec.deployment.user", ["\"1000\"", "\"0\""]),
        (
            "[spec.virtualization]\ntype = \"Container\"\n",
            "spec.virtualization.type",
            ["MicroVM", "Container"],
        ),
        (
            "[spec.networking]\nallow_to = [\"10.0.0.0/8\"]\n",
            "spec.networking.allow_to",
            ["[api.example.org:443, 203.0.113.0/24]", "[10.0.0.0/8]"],
        ),
        (
            "[spec.networking]\nallow_from = [\"198.51.100.7\"]\n",
            "spec.networking.allow_from",
            ["[192.0.2.0/24]", "[198.51.100.7]"],
        ),
    ] {
        let said = settings.tighten(&manifest(text)).unwrap_err().to_string();
        for part in [key, sides[0], sides[1]] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn what_an_image_can_t_set_is_refused_with_what_it_can() {
    for (text, part) in [
        ("[spec.deployment]\nimage = \"x\"\n", "known here: user, readonly_root"),
        ("[spec.networking]\nallow_too = []\n", "did you mean `allow_to`?"),
        ("[spec.deployment]\nuser = \"0:0\"\n", "root may do everything"),
        ("[spec.deployment]\nuser = \"root\"\n", "root may do everything"),
        ("[spec.deployment]\nreadonly_root = \"yes\"\n", "true or false"),
        ("[spec.networking]\negress = \"0bps\"\n", "a rate of 0"),
        ("[spec.networking]\nallow_from = [\"example.org\"]\n", "can't be who reaches a port"),
        ("apiVersion = \"v9\"\n", "isn't known to this program"),
        ("- 1\n", "is a list"),
        ("{\"spec\": ", "1:"),
    ] {
        let said = parse(text).unwrap_err().to_string();
        assert!(said.contains(part), "{text}: {said}");
    }
    let many = format!("[spec.networking]\nallow_to = [{}]\n", "\"any\",".repeat(MOST_PEERS + 1));
    assert!(parse(&many).unwrap_err().to_string().contains("257 entries"));
    assert!(parse(&"#".repeat(LONGEST + 1)).unwrap_err().to_string().contains("at most 65536"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,120}") {
        if let Ok(settings) = parse(&text) {
            prop_assert_eq!(parse(&settings.to_line()), Ok(settings));
        }
    }

    #[test]
    fn what_comes_out_is_never_wider_than_either(
        mine in (any::<bool>(), 0_usize..3, proptest::option::of(1_u64..50), proptest::option::of(1_u64..50), 0_usize..4),
        theirs in (any::<bool>(), 0_usize..3, proptest::option::of(1_u64..50), proptest::option::of(1_u64..50), 0_usize..4),
    ) {
        const KINDS: [NetworkType; 3] = [NetworkType::Public, NetworkType::Private, NetworkType::None];
        const PEERS: [&str; 4] = ["any", "0.0.0.0/0", "public:443", "10.0.0.0/8"];
        let mut manifest = manifest("");
        let networking = &mut manifest.spec.networking;
        networking.network_type = KINDS[mine.1];
        networking.bandwidth_limit = mine.2.map(BitRate);
        networking.egress = mine.3.map(BitRate);
        networking.allow_to = vec![PEERS[mine.4].parse().unwrap()];
        manifest.spec.deployment.readonly_root = mine.0;
        let mut settings = Settings::default();
        settings.spec.deployment.readonly_root = theirs.0;
        settings.spec.networking = NetworkingSettings {
            network_type: Some(KINDS[theirs.1]),
            bandwidth_limit: theirs.2.map(BitRate),
            egress: theirs.3.map(BitRate),
            allow_to: Some(vec![PEERS[theirs.4].parse().unwrap()]),
            ..NetworkingSettings::default()
        };
        let Ok(Tightened { manifest: result, .. }) = settings.tighten(&manifest) else {
            // Only the private network and the public one have nothing in common.
            prop_assert!(PEERS[mine.4] == "10.0.0.0/8" || PEERS[theirs.4] == "10.0.0.0/8");
            return Ok(());
        };
        let networking = &result.spec.networking;
        prop_assert_eq!(result.spec.deployment.readonly_root, mine.0 || theirs.0);
        prop_assert_eq!(networking.network_type, KINDS[mine.1.max(theirs.1)]);
        let rate = |own: Option<u64>, both: Option<u64>| own.or(both).unwrap_or(u64::MAX);
        let out = networking.egress.or(networking.bandwidth_limit).map_or(u64::MAX, |rate| rate.0);
        prop_assert_eq!(out, rate(mine.3, mine.2).min(rate(theirs.3, theirs.2)));
        for peer in &networking.allow_to {
            for whole in [PEERS[mine.4], PEERS[theirs.4]] {
                prop_assert_eq!(&peer.both(&whole.parse().unwrap()), &vec![peer.clone()]);
            }
        }
    }
}
