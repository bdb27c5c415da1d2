//! The tables of the manifest: which keys each has, and which field of the model each fills.

use super::{Context, Decode, join};
use crate::model::{
    Accelerator, Check, Condition, Criteria, Deployment, Failover, Manifest, Metadata, MetricsPage, Mount,
    Networking, Observability, Placement, Pricing, Resources, Restart, Scaling, Security, Sidecar, Spec,
    Task, Update, Verification, Virtualization,
};
use crate::node::{AnomalySettings, NodeSettings, OfferSettings, TelemetrySettings};
use crate::policy::{Identity, Policy, Registries, Scan, Signatures};
use crate::preset::Operations;
use crate::settings::{
    CriteriaSettings, DeploymentSettings, NetworkingSettings, SecuritySettings, Settings, SettingsSpec,
    VirtualizationSettings,
};
use crate::tree::Node;

/// Implements [`Decode`] for a struct: what isn't given keeps its default. Every field must be listed; keys after the
/// semicolon are known but read elsewhere.
macro_rules! table {
    ($name:ident { $($key:literal => $field:ident),+ $(; $elsewhere:literal)? }) => {
        impl Decode for $name {
            fn decode(node: &Node, path: &str, context: &mut Context<'_>) -> Option<Self> {
                let mut table = Self::default();
                let entries = context.entries(node, path, &[$($key,)+ $($elsewhere)?])?;
                for entry in entries {
                    let path = join(path, &entry.key);
                    match entry.key.as_str() {
                        $($key => {
                            if let Some(value) = Decode::decode(&entry.node, &path, context) {
                                table.$field = value;
                            }
                        })+
                        _ => {}
                    }
                }
                // Fails to compile when a field is added and not read.
                let Self { $($field: _),+ } = &table;
                Some(table)
            }
        }
    };
}

table!(Manifest { "apiVersion" => api_version, "kind" => kind, "metadata" => metadata, "spec" => spec });

table!(Metadata { "name" => name, "labels" => labels });

table!(Spec {
    "deployment" => deployment,
    "resources" => resources,
    "virtualization" => virtualization,
    "networking" => networking,
    "mounts" => mounts,
    "checks" => checks,
    "sidecars" => sidecars,
    "security" => security,
    "observability" => observability,
    "scaling" => scaling,
    "update" => update,
    "restart" => restart,
    "task" => task,
    "failover" => failover,
    "placement" => placement,
    "pricing" => pricing,
    "verification" => verification,
    "conditions" => conditions;
    "operations"
});

table!(Operations { "updateStrategy" => update_strategy, "scaling" => scaling });

table!(Deployment {
    "image" => image,
    "command" => command,
    "args" => args,
    "env" => env,
    "secrets" => secrets,
    "user" => user,
    "workdir" => workdir,
    "readonly_root" => readonly_root,
    "replicas" => replicas
});

table!(Resources {
    "cpu" => cpu,
    "memory" => memory,
    "storage" => storage,
    "pids" => pids,
    "table_elements" => table_elements,
    "gpu" => gpu,
    "accelerators" => accelerators,
    "iops" => iops,
    "disk_bandwidth" => disk_bandwidth,
    "cpu_pinning" => cpu_pinning,
    "class" => class
});

table!(Accelerator { "kind" => kind, "model" => model, "count" => count });

table!(Virtualization {
    "type" => isolation,
    "provider" => provider,
    "accel" => accel,
    "criteria" => criteria
});

table!(Criteria { "security" => security, "performance" => performance });

table!(Networking {
    "bandwidth_limit" => bandwidth_limit,
    "ingress" => ingress,
    "egress" => egress,
    "network_type" => network_type,
    "private_network" => private_network,
    "allow_to" => allow_to,
    "allow_from" => allow_from,
    "inbound_ports" => inbound_ports
});

table!(Mount {
    "source" => source,
    "destination" => destination,
    "size" => size,
    "readonly" => readonly,
    "encrypted" => encrypted
});

table!(Check {
    "type" => kind,
    "port" => port,
    "path" => path,
    "command" => command,
    "interval" => interval,
    "timeout" => timeout,
    "grace_period" => grace_period,
    "retries" => retries
});

table!(Sidecar {
    "name" => name,
    "image" => image,
    "command" => command,
    "args" => args,
    "env" => env,
    "cpu" => cpu,
    "memory" => memory
});

table!(Security { "attestation" => attestation, "isolation" => isolation });

table!(Observability {
    "sidecar" => sidecar,
    "monitoring" => monitoring,
    "logging" => logging,
    "metrics" => metrics,
    "anomalies" => anomalies
});

table!(MetricsPage { "port" => port, "path" => path, "interval" => interval });

table!(Scaling {
    "min" => min,
    "max" => max,
    "metric" => metric,
    "target" => target,
    "series" => series
});

table!(Update { "strategy" => strategy, "max_parallel" => max_parallel, "auto_revert" => auto_revert });

table!(Task { "deadline" => deadline });

table!(Restart { "policy" => policy, "backoff" => backoff, "max_attempts" => max_attempts });

table!(Failover { "strategy" => strategy });

table!(Placement { "dvci" => dvci, "attributes" => attributes, "operators" => operators });

table!(Pricing { "max_per_hour" => max_per_hour });

table!(Verification { "modes" => modes, "replicas" => replicas, "quorum" => quorum });

table!(Condition {
    "type" => kind,
    "after" => after,
    "height" => height,
    "environment" => environment,
    "account" => account,
    "at_least" => at_least,
    "zapp" => zapp,
    "answer" => answer
});

table!(Policy { "registries" => registries, "signatures" => signatures, "scan" => scan });

table!(Registries { "allowed" => allowed, "require_digest" => require_digest });

table!(Signatures {
    "keys" => keys,
    "trusted_root" => trusted_root,
    "identities" => identities,
    "required_for" => required_for
});

table!(Identity { "identity" => identity, "issuer" => issuer });

table!(Scan {
    "advisories" => advisories,
    "threshold" => threshold,
    "unrated" => unrated,
    "ignore" => ignore
});

table!(NodeSettings { "offer" => offer, "anomalies" => anomalies, "telemetry" => telemetry });

table!(TelemetrySettings {
    "endpoint" => endpoint,
    "interval" => interval,
    "headers_file" => headers_file,
    "metrics" => metrics,
    "logs" => logs
});

table!(AnomalySettings { "round" => round, "warm_up" => warm_up });

table!(OfferSettings { "cpu" => cpu, "memory" => memory, "disk" => disk, "oversell" => oversell, "evict_below" => evict_below });

table!(Settings { "apiVersion" => api_version, "spec" => spec });

table!(SettingsSpec {
    "deployment" => deployment,
    "virtualization" => virtualization,
    "networking" => networking,
    "security" => security
});

table!(DeploymentSettings { "user" => user, "readonly_root" => readonly_root });

table!(VirtualizationSettings { "type" => isolation, "criteria" => criteria });

table!(CriteriaSettings { "security" => security });

table!(NetworkingSettings {
    "network_type" => network_type,
    "allow_to" => allow_to,
    "allow_from" => allow_from,
    "bandwidth_limit" => bandwidth_limit,
    "ingress" => ingress,
    "egress" => egress
});

table!(SecuritySettings { "isolation" => isolation });
