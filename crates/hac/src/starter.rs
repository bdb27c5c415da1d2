//! A first manifest, with comments, for `init`.

/// Writes a commented `hac.toml` for an image; what is commented out is at its default or an example.
pub fn starter(name: &str, image: &str) -> String {
    let [name, image] = [name, image].map(quoted);
    format!(
        r#"# What this spacecore needs. `vimana hac check` checks it, `vimana run` runs it,
# and `vimana hac explain KEY` explains every key.
apiVersion = "vistara.eigenlayer/v1"
kind = "AVSSpaceCore"

[metadata]
name = {name}

[spec.deployment]
image = {image}
# command = ["/app/server"]
# args = ["--port", "8080"]
# env = {{ LOG_LEVEL = "info" }}

[spec.resources]
cpu = "1"
memory = "512Mi"
# storage = "1Gi"

[spec.virtualization]
type = "MicroVM"    # or Unikernel, Container, Wasm, TEE

# [spec.networking.inbound_ports]
# http = 80

# [[spec.mounts]]
# source = "./data"
# destination = "/data"

# [[spec.checks]]
# type = "http"
# port = 80
# path = "/"

# Starts it again when it fails, and elsewhere when its node is lost.
# [spec.failover]
# strategy = "auto-recovery"
"#
    )
}

/// Writes a commented `hac.yaml` for an image.
pub fn starter_yaml(name: &str, image: &str) -> String {
    let [name, image] = [name, image].map(quoted);
    format!(
        r#"# What this spacecore needs. `vimana hac check` checks it, `vimana run` runs it,
# and `vimana hac explain KEY` explains every key.
apiVersion: vistara.eigenlayer/v1
kind: AVSSpaceCore
metadata:
  name: {name}
spec:
  deployment:
    image: {image}
    # command: ["/app/server"]
    # args: ["--port", "8080"]
    # env:
    #   LOG_LEVEL: info
  resources:
    cpu: "1"
    memory: 512Mi
    # storage: 1Gi
  virtualization:
    type: MicroVM    # or Unikernel, Container, Wasm, TEE
  # networking:
  #   inbound_ports:
  #     http: 80
  # mounts:
  #   - source: ./data
  #     destination: /data
  # checks:
  #   - type: http
  #     port: 80
  #     path: /
  # Starts it again when it fails, and elsewhere when its node is lost.
  # failover:
  #   strategy: auto-recovery
"#
    )
}

/// Quotes a text so that TOML and YAML read it alike.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
