#[path = "../../../../fuzz/mutated.rs"]
mod mutated;
use mutated::stands;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn manifests_stand_any_change() {
    let (toml, yaml) = (crate::starter("web", "app"), crate::starter_yaml("web", "app"));
    let small = "[spec.deployment]\nimage = \"x\"\n[[spec.mounts]]\nsource = \"./a\"\ndestination = \"/b\"\n";
    stands(FOLDER, "manifest", &texts(&[&toml, &yaml, small]), super::manifest);
}

#[test]
fn policies_stand_any_change() {
    let policy = "[registries]\nallowed = [\"ghcr.io/a\", \"oci:/x\"]\n[signatures]\nkeys = [\"k\"]\ntrusted_root = \"r\"\n\
        identities = [{ identity = \"https://a.org/b/*\", issuer = \"https://c\" }]\n[scan]\nadvisories = \"/o\"\n\
        ignore = [\"CVE-1 why until 2030-01-31\"]\n";
    stands(FOLDER, "policy", &texts(&[policy]), super::policy);
}

#[test]
fn settings_stand_any_change() {
    let toml = "[spec.deployment]\nuser = \"1000\"\nreadonly_root = true\n[spec.networking]\nallow_to = [\"0.0.0.0/0:1-9/tcp\", \
        \"*.a.org\", \"2000::/3\"]\negress = \"1Mbps\"\n";
    let json = "{\"spec\":{\"networking\":{\"network_type\":\"none\",\"allow_from\":[\"any\"]}}}";
    stands(FOLDER, "settings", &texts(&[toml, json]), super::settings);
}

#[test]
fn imports_stand_any_change() {
    let compose = "services:\n  web:\n    image: nginx:1\n    ports: [\"8080:80\"]\n    environment: {A: \"${B:-c}\"}\n    volumes: [\"data:/d\", \
        \"./a:/b:ro\"]\n    healthcheck: {test: [CMD, x], interval: 30s}\n    deploy: {resources: {limits: {cpus: \"0.5\", memory: 64M}}}\n\
        volumes: {data: {}}\n";
    let akash = "version: \"2.0\"\nservices:\n  web:\n    image: nginx:1\n    expose: [{port: 80, as: 80, to: [{global: true}]}]\nprofiles:\n  \
        compute:\n    web:\n      resources: {cpu: {units: 0.1}, memory: {size: 512Mi}, storage: {size: 1Gi}}\n  placement:\n    \
        a:\n      pricing: {web: {denom: uakt, amount: 10}}\ndeployment: {web: {a: {profile: web, count: 1}}}\n";
    stands(FOLDER, "import", &texts(&[compose, akash]), super::import);
}
