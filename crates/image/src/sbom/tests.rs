use super::*;
use crate::inventory::{Distribution, Format, Kind, Unread};

fn inventory() -> Inventory {
    let distribution = Distribution::parse(b"ID=debian\nVERSION_ID=12\n");
    let text = "Package: libc6\nVersion: 2.36-9\nArchitecture: amd64\nSource: glibc\n\nPackage: bash\nVersion: 5.2\n";
    let layer = Digest::of(b"layer");
    let packages = Format::Dpkg.parse(text.as_bytes()).unwrap().into_iter().map(|record| {
        let place = Location { layer: layer.clone(), path: "/var/lib/dpkg/status".to_owned() };
        Package::new(Kind::Deb, record, vec![place], distribution.as_ref())
    });
    let unread = Unread { path: "/var/lib/rpm/Packages".to_owned(), reason: "isn't read".to_owned() };
    Inventory { packages: packages.collect(), unread: vec![unread], distribution }
}

fn written() -> Value {
    document("docker.io/library/x", &Digest::of(b"image"), "linux/amd64", &inventory())
}

#[test]
fn the_same_image_has_the_same_bytes_and_another_has_others() {
    assert_eq!(written().to_string(), written().to_string());
    let other = document("docker.io/library/x", &Digest::of(b"other"), "linux/amd64", &inventory());
    assert_ne!(written()["serialNumber"], other["serialNumber"]);
}

/// What bom-1.6.schema.json demands of the parts that are used here.
#[test]
fn the_document_keeps_cyclonedx_s_rules() {
    let bom = written();
    assert_eq!(
        (&bom["bomFormat"], &bom["specVersion"], &bom["version"]),
        (&json!("CycloneDX"), &json!("1.6"), &json!(1))
    );
    let known = ["$schema", "bomFormat", "specVersion", "serialNumber", "version", "metadata", "components"];
    assert!(bom.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())));
    let serial = bom["serialNumber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
    let lengths: Vec<usize> = serial.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert!(serial.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f' | '-')));
    let mut references = BTreeSet::new();
    let subject = &bom["metadata"]["component"];
    let types = ["application", "framework", "library", "container", "platform", "operating-system"];
    for component in bom["components"].as_array().unwrap().iter().chain([subject]) {
        assert!(types.contains(&component["type"].as_str().unwrap()));
        assert!(!component["name"].as_str().unwrap().is_empty());
        assert!(
            references.insert(component["bom-ref"].as_str().unwrap().to_owned()),
            "each reference is there once"
        );
        let allowed = ["type", "bom-ref", "name", "version", "hashes", "purl", "properties"];
        assert!(component.as_object().unwrap().keys().all(|key| allowed.contains(&key.as_str())));
        for property in component["properties"].as_array().into_iter().flatten() {
            assert!(property["name"].is_string() && property["value"].is_string());
        }
    }
    assert_eq!(subject["hashes"][0]["content"].as_str().unwrap().len(), 64);
    assert_eq!(bom["metadata"]["properties"][1]["name"], "vimana:unread");
}

#[test]
fn a_component_names_its_layer_and_its_file() {
    let bom = written();
    let package = &bom["components"][1];
    assert_eq!(package["name"], "libc6");
    assert_eq!(package["purl"], "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc");
    assert_eq!(package["properties"][0]["value"], Digest::of(b"layer").to_string());
    assert_eq!(package["properties"][1]["value"], "/var/lib/dpkg/status");
    assert_eq!(package["properties"][2]["value"], "Debian:12");
}
