//! Keys of compose files that no manifest has: why, and what to do instead.

use crate::import::reader::Unsupported;
use crate::model::Isolation;

const LIMITS: &str = "a spacecore is limited by the hardware that it is given";
const NAMESPACE: &str = "a spacecore shares no namespace with the host or another";
const NETWORK: &str = "the network is set up by the driver";

/// Why there are no further networks among services, and what to do instead.
pub(super) const NETWORKS: (&str, &str) = (
    "the services of a project share one private network, which has no further parts",
    "write `spec.networking.private_network`: spacecores that name the same reach each other",
);

/// Keys at the top.
pub(super) const TOP: &[Unsupported] = &[
    (
        "include",
        "other files aren't read",
        "`docker compose config` writes all of them out as one: import its output",
    ),
    ("models", "a manifest has no models", "run the model as a service"),
];

/// Keys of a service.
pub(super) const SERVICE: &[Unsupported] = &[
    ("annotations", "a manifest has labels only", "write those that matter into `metadata.labels`"),
    ("attach", "a manifest doesn't say whose output is shown", ""),
    ("blkio_config", "limits by device aren't known", "set `spec.resources.iops` and `disk_bandwidth`"),
    (
        "cap_drop",
        "capabilities aren't listed in a manifest",
        "run the workload as a user without them: `spec.deployment.user`",
    ),
    ("cgroup", NAMESPACE, ""),
    ("cgroup_parent", "a node puts each spacecore into a cgroup of its own", ""),
    ("container_name", "a spacecore is called as its service is", "write another `metadata.name`"),
    ("cpu_count", LIMITS, "write `spec.resources.cpu`"),
    ("cpu_percent", LIMITS, "write `spec.resources.cpu`"),
    ("cpu_period", LIMITS, "write `spec.resources.cpu`, for example \"500m\""),
    ("cpu_quota", LIMITS, "write `spec.resources.cpu`, for example \"500m\""),
    ("cpu_rt_period", LIMITS, ""),
    ("cpu_rt_runtime", LIMITS, ""),
    ("cpu_shares", LIMITS, "write `spec.resources.cpu`; `class` says what happens under contention"),
    (
        "cpuset",
        "a manifest doesn't choose cores",
        "`spec.resources.cpu_pinning = true` gives each vCPU a core of its own",
    ),
    ("credential_spec", "this is for Windows", ""),
    ("develop", "this is for building while one edits", "mount the source with `vimana run -v ./src:/src`"),
    ("device_cgroup_rules", "devices of the host aren't reached from a spacecore", ""),
    (
        "devices",
        "devices of the host aren't reached from a spacecore",
        "GPUs are asked for with `spec.resources.gpu`",
    ),
    ("dns", NETWORK, "the node's name servers are used"),
    ("dns_opt", NETWORK, "the node's name servers are used"),
    ("dns_search", NETWORK, "write full names"),
    ("domainname", "the host name is the spacecore's name", ""),
    ("external_links", "containers outside of the file aren't reached by name", "write addresses"),
    (
        "extra_hosts",
        "names of one's own aren't set up",
        "write the addresses, or add the lines to the image's /etc/hosts",
    ),
    ("group_add", "the workload has the groups that the image gives its user", "add them in the image"),
    (
        "init",
        "PID 1 is always Vimana's own, which forwards signals and collects orphans",
        "nothing needs to be done",
    ),
    ("ipc", NAMESPACE, ""),
    ("isolation", "this is for Windows", "the isolation is `spec.virtualization.type`"),
    ("label_file", "this file isn't read", "write the labels into `metadata.labels`"),
    (
        "links",
        "services don't know each other's names",
        "write addresses, or make one a [[spec.sidecars]] of the other",
    ),
    (
        "logging",
        "output is kept by the spacecore's keeper",
        "`spec.observability.logging` names what takes the logs",
    ),
    ("mac_address", NETWORK, ""),
    ("mem_swappiness", "there is no swap", ""),
    ("memswap_limit", "there is no swap", "raise `spec.resources.memory`"),
    ("models", "a manifest has no models", "run the model as a service"),
    ("networks", NETWORKS.0, NETWORKS.1),
    ("oom_kill_disable", LIMITS, ""),
    ("oom_score_adj", LIMITS, ""),
    ("pid", NAMESPACE, ""),
    (
        "platform",
        "an image is taken for the node's own architecture",
        "choose nodes with `spec.placement.attributes`",
    ),
    ("post_start", "a manifest has no hooks", "start it from a script of the image"),
    ("pre_stop", "a manifest has no hooks", "have the workload do it when it is told to stop"),
    (
        "profiles",
        "a manifest has no profiles",
        "each service is a manifest of its own: run those that you want",
    ),
    ("provider", "what provides a service outside of the file isn't started", ""),
    ("pull_policy", "an image is pulled if the node lacks it", "`vimana run --pull` pulls it again"),
    ("runtime", "the isolation is chosen by `spec.virtualization.type`", ""),
    ("security_opt", "confinement is `spec.security.isolation`, and always on", ""),
    ("stdin_open", "a manifest doesn't say whether standard input is read", "`vimana run -i`"),
    ("stop_grace_period", "how long a workload may take to end isn't in a manifest", ""),
    ("stop_signal", "the signal is the image's own (STOPSIGNAL), or SIGTERM", "set it in the image"),
    ("tty", "a manifest doesn't say whether there is a terminal", "`vimana run -t`"),
    ("use_api_socket", "there is no container engine to be reached", ""),
    ("userns_mode", NAMESPACE, ""),
    ("uts", NAMESPACE, ""),
    ("volumes_from", "spacecores share no mounts", "mount the same volume in both"),
];

/// Keys of a service that ask for more of the kernel than a workload has: what to do depends on whose kernel it is.
pub(super) fn privileges(isolation: Isolation) -> [Unsupported; 4] {
    let kernel =
        "no manifest configures the kernel: a microVM has one of its own, a container shares the host's";
    let (why, root, itself) = if isolation.is_hardware_virtualisation() {
        (
            "what confines a spacecore can't be loosened: it shares nothing of the host that a privilege would open",
            "a microVM's workload is root of its own kernel, which is enough for most programs",
            "in a microVM, a workload that is root sets them itself when it starts",
        )
    } else {
        (
            "what confines a spacecore can't be loosened",
            "choose the isolation MicroVM, whose workload is root of its own kernel, which is enough for most programs",
            "choose the isolation MicroVM, in which a workload that is root sets them itself when it starts",
        )
    };
    [
        ("cap_add", why, root),
        ("privileged", why, root),
        ("sysctls", kernel, itself),
        ("ulimits", kernel, itself),
    ]
}

/// Keys of `deploy`.
pub(super) const DEPLOY: &[Unsupported] = &[
    ("endpoint_mode", NETWORK, ""),
    ("labels", "these label the service in a swarm", "write those that matter into `metadata.labels`"),
    (
        "rollback_config",
        "a rollback goes like an update",
        "`spec.update.auto_revert` says whether there is one",
    ),
];

/// Keys of `deploy.update_config`.
pub(super) const UPDATE: &[Unsupported] = &[
    (
        "delay",
        "each replica must be healthy before the next is replaced; there is no other wait",
        "write a check",
    ),
    ("max_failure_ratio", "one replica that doesn't get healthy ends the update", ""),
    ("monitor", "a check's `grace_period` says how long a start may take", "write a check"),
    ("order", "the order follows from the strategy", "`spec.update.strategy`"),
];

/// Keys of `deploy.restart_policy`.
pub(super) const RESTART: &[Unsupported] =
    &[("window", "how long a start counts as one isn't in a manifest", "")];

/// Keys of `deploy.placement`.
pub(super) const PLACEMENT: &[Unsupported] = &[
    ("max_replicas_per_node", "replicas are spread over operators", ""),
    ("preferences", "replicas are spread over operators", ""),
];

/// Keys of a config at the top that has been mounted from a file.
pub(super) const CONFIG: &[Unsupported] = &[
    ("external", "what lies outside of the file isn't read", ""),
    ("name", "the file is mounted, and has no name of its own", ""),
    ("template_driver", "files are mounted as they are", ""),
    ("labels", "files have no labels", ""),
];

/// Keys of a volume at the top.
pub(super) const VOLUME: &[Unsupported] = &[
    (
        "driver_opts",
        "volumes lie on the node's disks",
        "mount what it names on the host, and mount that folder",
    ),
    ("labels", "volumes have no labels", ""),
];

/// Keys of a mount in its long form.
pub(super) const MOUNT: &[Unsupported] = &[
    ("bind", "how a folder is bound isn't in a manifest", "the folder must be there"),
    ("consistency", "mounts are always consistent", "nothing needs to be done"),
    ("image", "images aren't mounted", "copy the files into the workload's image"),
];

/// Keys of a health check.
pub(super) const HEALTH: &[Unsupported] =
    &[("start_interval", "there is one interval for all checks", "shorten `interval`")];

/// Keys of a port in its long form.
pub(super) const PORT: &[Unsupported] =
    &[("app_protocol", "a port is a TCP port, whatever is spoken on it", "")];
