//! What compose files and Akash SDLs become, and what is said of the rest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::BTreeMap;

use hac::import::{Import, Options, Outcome, Source, env_files, import};

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn imported(text: &str) -> Import {
    imported_with(text, &Options::default())
}

fn imported_with(text: &str, options: &Options) -> Import {
    import(text, options).unwrap_or_else(|errors| panic!("{}", errors.render("file", text, false)))
}

/// The errors of a file, as a person sees them.
fn refused(text: &str) -> String {
    match import(text, &Options::default()) {
        Ok(import) => panic!("this was imported: {import:?}"),
        Err(errors) => errors.render("compose.yaml", text, false),
    }
}

/// Everything that an import gives, as text.
fn shown(import: &Import) -> String {
    let mut out = String::new();
    for service in &import.services {
        out.push_str(&format!("==> {}/hac.toml\n", service.folder));
        out.push_str(&import.to_toml(service, "the sample"));
        out.push('\n');
    }
    for outcome in [Outcome::NotCarried, Outcome::Changed] {
        out.push_str(&format!("==> {outcome}\n"));
        for remark in import.remarks_of(outcome) {
            out.push_str(&format!("{remark}\n"));
        }
        out.push('\n');
    }
    out
}

/// Compares with a file beside the sample; `UPDATE_SAMPLES=1` writes it anew.
fn assert_like(sample: &str, import: &Import) {
    let path = format!("{}/tests/data/import/{sample}.expected", env!("CARGO_MANIFEST_DIR"));
    let now = shown(import);
    if std::env::var("UPDATE_SAMPLES").is_ok() {
        std::fs::write(&path, &now).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(now, expected, "{sample} is imported otherwise than {path} says");
    for service in &import.services {
        let again = hac::parse(&import.to_toml(service, "the sample"), hac::Format::Toml).unwrap();
        assert_eq!(again, service.manifest);
    }
}

#[test]
fn a_web_application_with_anchors_is_imported() {
    let options = Options {
        variables: variables(&[("DB_PASSWORD", "s3cret"), ("EMPTY", "")]),
        base: "..".to_owned(),
        ..Options::default()
    };
    let import = imported_with(include_str!("data/import/web.yaml"), &options);
    assert_eq!(import.source, Source::Compose);
    assert_like("web.yaml", &import);
}

#[test]
fn a_stack_with_deploy_sections_is_imported() {
    let text = include_str!("data/import/deploy.yaml");
    assert_eq!(env_files(text, &Options::default()), ["api.env"]);
    let options = Options {
        env_files: BTreeMap::from([("api.env".to_owned(), Ok("A=1\n# no\nB='two words'\n".to_owned()))]),
        base: "..".to_owned(),
        ..Options::default()
    };
    assert_like("deploy.yaml", &imported_with(text, &options));
}

#[test]
fn an_sdl_with_a_gpu_and_persistent_storage_is_imported() {
    let import = imported(include_str!("data/import/gpu.sdl.yaml"));
    assert_eq!(import.source, Source::Akash);
    assert_like("gpu.sdl.yaml", &import);
}

#[test]
fn an_sdl_of_two_services_is_imported() {
    assert_like("wordpress.sdl.yaml", &imported(include_str!("data/import/wordpress.sdl.yaml")));
}

/// Every leaf of a document: a path as keys and indices, and the value there.
fn leaves(value: &serde_json::Value, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    match value {
        serde_json::Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                path.push(key.clone());
                leaves(value, path, out);
                path.pop();
            }
        }
        serde_json::Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                path.push(index.to_string());
                leaves(value, path, out);
                path.pop();
            }
        }
        _ => out.push(path.clone()),
    }
}

fn without(document: &serde_json::Value, path: &[String]) -> serde_json::Value {
    let mut document = document.clone();
    let (last, parents) = path.split_last().unwrap();
    let mut at = &mut document;
    for key in parents {
        at = match at {
            serde_json::Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
            other => other.get_mut(key).unwrap(),
        };
    }
    match at {
        serde_json::Value::Array(items) => drop(items.remove(last.parse::<usize>().unwrap())),
        serde_json::Value::Object(entries) => drop(entries.shift_remove(last)),
        _ => unreachable!(),
    }
    document
}

/// What an import says of a document, but for places: the manifests, or the errors.
fn essence(document: &serde_json::Value, options: &Options) -> String {
    match import(&document.to_string(), options) {
        Ok(import) => {
            let manifests: Vec<_> =
                import.services.iter().map(|service| hac::to_toml(&service.manifest)).collect();
            manifests.join("\n")
        }
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

/// Takes every key out of a document in turn: unless it was named as not carried over, the manifests must differ.
fn assert_nothing_is_lost(text: &str, options: &Options, means_nothing: &[&str]) {
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    let import = imported_with(text, options);
    let whole = essence(&document, options);
    let mut all = Vec::new();
    leaves(&document, &mut Vec::new(), &mut all);
    let named: Vec<_> = import.remarks.iter().map(|remark| remark.key.clone()).collect();
    let mut lost = Vec::new();
    for leaf in &all {
        let path = leaf.iter().fold(String::new(), |path, key| match key.parse::<usize>() {
            Ok(index) => format!("{path}[{index}]"),
            Err(_) if path.is_empty() => key.clone(),
            Err(_) if key.contains('.') => format!("{path}.{key:?}"),
            Err(_) => format!("{path}.{key}"),
        });
        let is_named = named.iter().any(|key| {
            path.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        let is_carried = || essence(&without(&document, leaf), options) != whole;
        if !is_named && !means_nothing.contains(&path.as_str()) && !is_carried() {
            lost.push(path);
        }
    }
    assert!(all.len() > 60, "{}", all.len());
    assert_eq!(lost, Vec::<String>::new(), "silently lost");
}

#[test]
fn every_key_of_a_compose_file_is_carried_over_or_named() {
    let options = Options {
        variables: variables(&[("HOSTED", "from outside")]),
        env_files: BTreeMap::from([("some.env".to_owned(), Ok("E=5\n".to_owned()))]),
        ..Options::default()
    };
    let means_nothing = [
        "version",
        // How the file of variables is read, which has happened.
        "services.everything.env_file[0].required",
        // What is said again, or is so by itself.
        "services.everything.ports[1].protocol",
        "services.everything.ports[1].host_ip",
        "services.everything.configs[0]",
        "services.everything.secrets[1].source",
        "services.everything.mem_reservation",
        "services.everything.volumes[4].type",
        "services.everything.volumes[5].type",
        "services.other.mem_limit",
        "volumes.other_volume",
        "configs.conf.file",
        "services.everything.deploy.resources.reservations.devices[0].capabilities[0]",
    ];
    assert_nothing_is_lost(include_str!("data/import/everything.compose.json"), &options, &means_nothing);
}

#[test]
fn every_key_of_an_sdl_is_carried_over_or_named() {
    let means_nothing = [
        "version",
        // The defaults: an empty folder is one whatever it lies in.
        "profiles.compute.big.resources.storage[2].attributes.persistent",
        "profiles.compute.big.resources.storage[2].attributes.class",
        "services.app_one.expose[0].proto",
        "deployment.db.here.count",
    ];
    assert_nothing_is_lost(
        include_str!("data/import/everything.sdl.json"),
        &Options::default(),
        &means_nothing,
    );
}

#[test]
fn every_remark_says_where_it_is_and_of_which_service() {
    let text = include_str!("data/import/web.yaml");
    let import = imported(text);
    for remark in &import.remarks {
        let line = text.lines().nth(remark.span.line - 1).unwrap();
        let rest: String = line.chars().skip(remark.span.column - 1).collect();
        let last = remark.key.rsplit('.').next().unwrap();
        assert!(last.ends_with(']') || rest.starts_with(last), "{remark}: {rest}");
        assert_eq!(remark.service.is_some(), remark.key.starts_with("services."), "{remark}");
    }
}

#[test]
fn what_is_no_importable_file_gets_an_error_for_people() {
    for (text, expected) in [
        ("", "the file is empty"),
        ("just words", "the file is a string"),
        ("services:\n\tweb:\n\t\timage: x\n", "line 2 is indented with a tab"),
        ("services: {web: [}", "this isn't YAML"),
        ("# mine\n[spec.deployment]\nimage = \"x\"\n", "it looks like TOML"),
        ("apiVersion = \"x\"\nkind = \"y\"\n", "this is TOML"),
        ("a: 1\n", "neither a compose file nor an Akash SDL"),
        ("web:\n  image: nginx\n", "compose file of the first version"),
        ("apiVersion: v1\nspec: {}\n", "a manifest already"),
        ("services: {}\n", "there is no service"),
        ("services:\n  web:\n    ports: [80]\n", "the service \"web\" has no image"),
        ("services:\n  web:\n    image: ${TAG}\n", "the service \"web\" has no image"),
        ("services:\n  web: nginx\n", "`services.web` expects a table"),
        ("services:\n  web:\n    image: [x]\n", "`services.web.image` expects a single value"),
        ("services:\n  web:\n    image: a b\n", "an image reference can't contain ' '"),
        ("services:\n  web: {image: x, ports: [\"80:x\"]}\n", "\"80:x\" is no port"),
        ("services:\n  web: {image: x, command: \"echo 'a\"}\n", "a quote or a backslash is left open"),
        ("services:\n  web: {image: x, mem_limit: lots}\n", "`services.web.mem_limit` can't be read"),
        ("services:\n  web: {image: x, environment: {A: \"${B\"}}\n", "isn't complete"),
        ("services:\n  web: {image: x, depends_on: [nobody]}\n", "no service \"nobody\" to depend on"),
        ("services:\n  web: {image: x, volumes: [\"data:/data\"]}\n", "no volume \"data\""),
        ("services:\n  web: {image: x, working_dir: app}\n", "must be an absolute path"),
        ("services:\n  web: {image: !reset x}\n", "the tag `!reset` isn't understood"),
        ("services:\n  web: {image: \"a\\0b\"}\n", "NUL"),
        ("services:\n  web: {<<: [1], image: x}\n", "a merge key (`<<`) takes a table"),
        ("a: &a [*a]\nservices: {}\n", "stands for something that contains it"),
        ("services: {}\n---\nservices: {}\n", "a second document"),
        (
            "version: \"1.0\"\nservices: {a: {image: x}}\ndeployment: {}\n",
            "version \"1.0\" of the SDL isn't known",
        ),
        (
            "services: {a: {image: x}}\nprofiles: {compute: {big: {}}, placement: {p: {}}}\ndeployment: {a: {p: {profile: huge}}}\n",
            "there is no compute profile \"huge\"",
        ),
        (
            "services: {a: {image: x}}\nprofiles: {compute: {big: {}}}\ndeployment: {b: {p: {profile: big}}}\n",
            "there is no service \"b\" to deploy",
        ),
        ("services: {a: {command: x}}\nprofiles: {}\ndeployment: {}\n", "the service \"a\" has no image"),
    ] {
        let said = refused(text);
        assert!(said.contains(expected), "{text:?}:\n{said}");
        assert!(said.starts_with("compose.yaml:") && said.contains("|"), "{text:?} has no place:\n{said}");
    }
}

#[test]
fn all_errors_come_at_once_with_their_places() {
    let said = refused("services:\n  a:\n    ports: [x]\n  b:\n    image: y\n    cpus: many\n");
    for part in ["compose.yaml:2:3", "compose.yaml:3:13", "compose.yaml:6:11"] {
        assert!(said.contains(part), "{part} isn't in\n{said}");
    }
}

#[test]
fn aliases_can_t_make_a_small_file_huge() {
    let mut text = String::from("x0: &a0 [z, z, z, z, z, z, z, z, z, z]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("x{level}: &a{level} [{aliases}]\n"));
    }
    text.push_str("services: {web: {image: x}}\n");
    assert!(refused(&text).contains("more than 10000 values"));
    let long =
        format!("x: &a {}\ny: [{}]\nservices: {{}}\n", "z".repeat(100_000), vec!["*a"; 100].join(", "));
    assert!(refused(&long).contains("too large"));
    let mut nested = String::from("x0: &a0 z\n");
    for level in 1..60 {
        nested.push_str(&format!("x{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(refused(&nested).contains("deep"));
}

#[test]
fn variables_can_t_make_a_small_file_huge() {
    let text = format!("services: {{web: {{image: x, command: [{}]}}}}\n", vec!["\"$A$A\""; 1000].join(", "));
    let options = Options { variables: variables(&[("A", &"z".repeat(100_000))]), ..Options::default() };
    let errors = import(&text, &options).unwrap_err();
    assert!(errors.to_string().contains("larger than 1 MiB"), "{}", &errors.to_string()[..200]);
}

#[test]
fn what_a_table_says_itself_goes_before_what_it_merges() {
    let text = "x-a: &a {image: first, user: a}\nx-b: &b {image: second, working_dir: /b}\n\
                services:\n  web:\n    <<: [*a, *b]\n    user: own\n";
    let import = imported(text);
    let deployment = &import.services[0].manifest.spec.deployment;
    assert_eq!(deployment.image, "first");
    assert_eq!(deployment.user.as_deref(), Some("own"));
    assert_eq!(deployment.workdir.as_deref(), Some("/b"));
    assert_eq!(import.remarks_of(Outcome::NotCarried).count(), 0);
}

#[test]
fn an_extension_that_no_alias_uses_is_named() {
    let import = imported("x-a: {b: &b redis, c: 1}\nservices: {web: {image: *b}}\n");
    let named: Vec<_> = import.remarks_of(Outcome::NotCarried).map(|remark| remark.key.as_str()).collect();
    assert_eq!(named, ["x-a.c"]);
}

#[test]
fn names_become_host_names_and_stay_apart() {
    let import =
        imported("services:\n  a_b: {image: x}\n  a-b: {image: x}\n  A.B: {image: x}\n  _: {image: x}\n");
    let names: Vec<_> = import.services.iter().map(|service| service.folder.as_str()).collect();
    assert_eq!(names, ["a-b-2", "a-b", "a-b-3", "service"]);
    let renamed =
        import.remarks_of(Outcome::Changed).filter(|remark| remark.why.contains("the name became")).count();
    assert_eq!(renamed, 3);
}

#[test]
fn the_isolation_decides_how_much_memory_is_too_little() {
    let text = "services: {web: {image: x, mem_limit: 64m}}\n";
    let memory = |isolation| {
        let options = Options { isolation, ..Options::default() };
        imported_with(text, &options).services[0].manifest.spec.resources.memory.to_string()
    };
    assert_eq!(memory(None), "144Mi");
    assert_eq!(memory(Some(hac::model::Isolation::Container)), "64Mi");
}

#[test]
fn a_kind_that_is_named_goes_before_what_the_content_says() {
    let text = "version: \"2.0\"\nservices: {web: {image: x, env: [A=1]}}\n";
    let forced = Options { source: Some(Source::Akash), ..Options::default() };
    let env = |import: &Import| import.services[0].manifest.spec.deployment.env.len();
    assert_eq!(env(&imported(text)), 0);
    assert_eq!(env(&imported_with(text, &forced)), 1);
}

#[test]
fn what_compose_itself_writes_out_is_imported() {
    let text = "name: shop\nservices:\n  web:\n    cpus: .5\n    command: null\n    entrypoint: null\n    user: ${NOBODY:-}\n\
                \x20   image: nginx\n    networks:\n      default: null\n    ports:\n      - mode: ingress\n        target: 80\n\
                \x20       published: \"8080\"\n        protocol: tcp\n    volumes:\n      - type: bind\n        source: /srv/x\n\
                \x20       target: /x\n        bind: {create_host_path: true}\nnetworks:\n  default:\n    name: shop_default\n";
    let import = imported(text);
    let spec = &import.services[0].manifest.spec;
    assert_eq!(spec.resources.cpu.to_string(), "500m");
    assert_eq!(
        (&spec.deployment.command, &spec.deployment.args, &spec.deployment.user),
        (&None, &None, &None)
    );
    assert_eq!(spec.mounts[0].source.as_deref(), Some("/srv/x"));
    assert_eq!(spec.networking.private_network.as_deref(), Some("shop"));
    let named: Vec<_> = import.remarks_of(Outcome::NotCarried).map(|remark| remark.key.as_str()).collect();
    let expected = [
        "services.web.networks",
        "services.web.ports[0]",
        "services.web.volumes[0].bind",
        "networks.default",
    ];
    assert_eq!(named, expected);
}

#[test]
fn a_read_only_root_and_a_limit_of_processes_are_carried_over() {
    use hac::model::Isolation;
    fn with(keys: &str, isolation: Isolation) -> (bool, u32, Vec<(Outcome, String)>) {
        let text = format!("services:\n  web:\n    image: x\n    {keys}\n");
        let import = imported_with(&text, &Options { isolation: Some(isolation), ..Options::default() });
        let spec = import.services[0].manifest.spec.clone();
        let remarks: Vec<_> = import
            .remarks
            .iter()
            .filter(|remark| remark.key.contains("pids") || remark.key.contains("read_only"))
            .map(|remark| (remark.outcome, remark.why.clone()))
            .collect();
        (spec.deployment.readonly_root, spec.resources.pids, remarks)
    }
    let container = |keys: &str| with(keys, Isolation::Container);
    assert_eq!(container("read_only: true"), (true, 4096, vec![]));
    assert_eq!(container("read_only: false"), (false, 4096, vec![]));
    assert_eq!(container("pids_limit: 64"), (false, 64, vec![]));
    assert_eq!(container("deploy: {resources: {limits: {pids: 10}}}"), (false, 10, vec![]));
    let (_, pids, remarks) = container("deploy: {resources: {limits: {pids: 10}}}\n    pids_limit: 20");
    assert_eq!((pids, remarks.len()), (10, 1), "{remarks:?}");
    for unlimited in ["-1", "0"] {
        let (_, pids, remarks) = container(&format!("pids_limit: {unlimited}"));
        assert_eq!(pids, 4096);
        assert!(matches!(&remarks[..], [(Outcome::NotCarried, _)]), "{remarks:?}");
    }
    // A microVM isn't held to the number, and nobody shall believe that it is.
    let (_, pids, remarks) = with("pids_limit: 64", Isolation::MicroVM);
    assert!(matches!(&remarks[..], [(Outcome::Changed, why)] if why.contains("Container")), "{remarks:?}");
    assert_eq!(pids, 64);
    assert!(refused("services: {web: {image: x, pids_limit: many}}\n").contains("whole number"));
}

#[test]
fn advice_about_privileges_fits_the_isolation() {
    use hac::model::Isolation;
    let text = "services:\n  web:\n    image: x\n    privileged: true\n    cap_add: [ALL]\n    sysctls: {a.b: 1}\n    ulimits: {nofile: 1}\n";
    let said = |isolation| {
        let import = imported_with(text, &Options { isolation, ..Options::default() });
        let remarks: Vec<_> = import.remarks_of(Outcome::NotCarried).cloned().collect();
        assert_eq!(remarks.len(), 4, "{remarks:?}");
        remarks
    };
    for remark in said(None) {
        let instead = remark.instead.unwrap_or_default();
        assert!(instead.contains("microVM") && !instead.contains("choose"), "{instead}");
    }
    for isolation in [Isolation::Container, Isolation::Wasm] {
        for remark in said(Some(isolation)) {
            let instead = remark.instead.clone().unwrap_or_default();
            assert!(instead.starts_with("choose the isolation MicroVM"), "{isolation}: {remark}");
            assert!(!remark.why.contains("shares nothing of the host"), "{isolation}: {remark}");
        }
    }
}
