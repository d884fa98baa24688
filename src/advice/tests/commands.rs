//! The command beside the advice: for whom, and of which words.

use super::*;

#[test]
fn commands_by_owner() {
    let of_owner = |of: Option<(&str, &str, &str)>, hash: Option<&str>, config_hash: Option<&str>| {
        let mut e = throttle(0.2, 8.0, 0.2, 100);
        let pod = facts(&mut e);
        pod.owner = of.map(|(version, kind, name)| owner(version, kind, name));
        pod.template_hash = hash.map(Into::into);
        pod.config_hash = config_hash.map(Into::into);
        command(&recommend(&e, None)).map(str::to_owned)
    };
    let set = |owner: &str| Some(format!("kubectl -n shop set resources {owner} -c app --limits=cpu=800m"));
    let resize = Some(
        r#"kubectl -n shop patch pod web-5d9c-x7 --subresource resize -p '{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"800m"}}}]}}'"#
            .to_string(),
    );
    let apps = "apps/v1";
    assert_eq!(of_owner(Some((apps, "ReplicaSet", "web-5d9c")), Some("5d9c"), None), set("deployment/web"));
    assert_eq!(of_owner(Some((apps, "ReplicaSet", "web-5d9c")), None, None), set("replicaset/web-5d9c"));
    assert_eq!(of_owner(Some((apps, "StatefulSet", "db")), None, None), set("statefulset/db"));
    assert_eq!(of_owner(Some((apps, "DaemonSet", "log")), None, None), set("daemonset/log"));
    assert_eq!(
        of_owner(Some(("batch/v1", "Job", "crunch")), None, None),
        resize,
        "its template is immutable"
    );
    assert_eq!(of_owner(None, None, None), resize);
    assert_eq!(of_owner(Some(("v1", "Node", "n")), None, None), None);
    assert_eq!(of_owner(None, None, Some("0123")), None, "a static pod");
    // Whoever creates a pod chooses its owner. The first was seen on a cluster: what follows the semicolon ran.
    for (stranger, hash) in [
        ((apps, "Deployment", "web;echo PWNED #"), None),
        ((apps, "ReplicaSet", "web;echo PWNED #-5d9c"), Some("5d9c")),
        ((apps, "ReplicaSet", "-5d9c"), Some("5d9c")),
        ((apps, "StatefulSet", "$(id)"), None),
        ((apps, "DaemonSet", "--all"), None),
        ((apps, "Deployment", "web\nkubectl delete"), None),
        (("x.example/v1", "Deployment", "web"), None),
        (("extensions/v1beta1", "ReplicaSet", "web"), None),
        (("apps/v1", "Rollout", "web"), None),
    ] {
        assert_eq!(of_owner(Some(stranger), hash, None), resize, "{stranger:?}");
    }
}

#[test]
fn the_command_that_touches_the_least_comes_first_and_says_whom() {
    let commands = |resizes: Option<bool>, change: &dyn Fn(&mut PodFacts)| {
        let mut e = throttle(0.2, 8.0, 0.2, 100);
        change(facts(&mut e));
        let r = crate::signals::kinds::recommend(&e, NodeFacts { cpu_cores: None, resizes });
        assert!(r.text.contains(" This is what one pod did in 10 s; "), "{}", r.text);
        let told: String = r.commands.iter().map(|c| format!("\n{}\n{}", c.effect, c.line)).collect();
        assert!(r.text.ends_with(&told), "{}", r.text);
        r.commands
            .into_iter()
            .map(|c| (c.effect, c.line.contains("--subresource resize")))
            .collect::<Vec<_>>()
    };
    let resize = |what: &str| (format!("This pod alone, until it is recreated, {what}:"), true);
    let roll = |owner: &str| (format!("Every pod of {owner}, each of them restarted:"), false);
    let alone = |pod: &mut PodFacts| pod.owner = None;
    let as_it_is = |_: &mut PodFacts| {};
    let quiet = resize("without a restart");
    assert_eq!(commands(Some(true), &as_it_is), [quiet.clone(), roll("deployment/web")]);
    assert_eq!(commands(Some(false), &as_it_is), [roll("deployment/web")]);
    assert_eq!(commands(None, &as_it_is), [roll("deployment/web")]);
    assert_eq!(commands(Some(true), &alone), std::slice::from_ref(&quiet));
    assert_eq!(commands(Some(false), &alone), []);
    assert_eq!(commands(None, &alone), [resize("without a restart; Kubernetes 1.33 or later")]);
    let restarts = |pod: &mut PodFacts| {
        pod.owner = None;
        pod.containers[0].cpu_resize_restarts = true;
    };
    assert_eq!(commands(Some(true), &restarts), [resize("its resizePolicy restarts the container")]);
    // A ReplicaSet of nobody's, and one that an Argo Rollout makes: to change its template changes no pod, and is undone.
    let bare = |pod: &mut PodFacts| pod.template_hash = None;
    let stay = "The pods that replicaset/web-5d9c makes from now on; those that run stay as they are:";
    assert_eq!(commands(Some(true), &bare), [quiet.clone(), (stay.to_owned(), false)]);
    let of_rollout = |pod: &mut PodFacts| {
        bare(pod);
        pod.template_is_made = true;
    };
    assert_eq!(commands(Some(true), &of_rollout), [quiet]);
}

#[test]
fn commands_by_kind_of_container() {
    let of_kind = |kind: ContainerKind, owned: bool| {
        let mut e = throttle(0.2, 8.0, 0.2, 100);
        let pod = facts(&mut e);
        pod.containers[0].kind = kind;
        pod.owner = pod.owner.take().filter(|_| owned);
        command(&recommend(&e, None)).map(str::to_owned)
    };
    let resize = |list: &str| {
        Some(format!(
            r#"kubectl -n shop patch pod web-5d9c-x7 --subresource resize -p '{{"spec":{{"{list}":[{{"name":"app","resources":{{"limits":{{"cpu":"800m"}}}}}}]}}}}'"#
        ))
    };
    let set = Some("kubectl -n shop set resources deployment/web -c app --limits=cpu=800m".to_string());
    for (kind, owned, alone) in [
        (ContainerKind::Main, set.clone(), resize("containers")),
        (ContainerKind::Sidecar, set.clone(), resize("initContainers")),
        (ContainerKind::Init, set, None),
        (ContainerKind::Ephemeral, None, None),
    ] {
        assert_eq!((of_kind(kind, true), of_kind(kind, false)), (owned, alone), "{kind:?}");
    }
    // A limit to be dropped is dropped where the template has it.
    let mut e = throttle(1.5, 2.0, 0.1, 10);
    facts(&mut e).containers[0].kind = ContainerKind::Sidecar;
    let r = recommend(&e, Some(2.0));
    assert_eq!(r.kind, Kind::DropLimit, "{}", r.text);
    assert!(command(&r).unwrap().contains(r#"{"spec":{"template":{"spec":{"initContainers":["#));
}

#[test]
fn a_debug_container_takes_no_pod_its_class() {
    let class = |kind: ContainerKind| {
        let mut e = throttle(0.25, 8.0, 0.25, 100);
        let pod = facts(&mut e);
        let app = &mut pod.containers[0];
        (app.cpu_request_cores, app.memory_limit_bytes) = (app.cpu_limit_cores, Some(MIB));
        app.memory_request_bytes = app.memory_limit_bytes;
        pod.containers.push(ContainerFacts { name: "other".into(), kind, ..Default::default() });
        recommend(&e, None).text.contains("The pod is Guaranteed")
    };
    assert!(class(ContainerKind::Ephemeral));
    assert!(!class(ContainerKind::Init) && !class(ContainerKind::Sidecar) && !class(ContainerKind::Main));
}

/// A name as people choose them, as Kubernetes takes them, or any text.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?",
        1 => "[a-z]{1,5}[;|&$`'\" \n#/\\\\]{1,2}[a-z-]{0,5}",
        1 => any::<String>(),
        1 => Just("--all".to_owned()),
    ]
}

/// What Kubernetes takes for a name, by RFC 1123 and not by the code at hand.
fn taken(s: &str, max: usize, dots: bool) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('-')
            && !p.ends_with('-')
            && p.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
    };
    s.len() <= max && if dots { s.split('.').all(part) } else { part(s) }
}

prop_compose! {
    fn strange_pod()(
        namespace in name(), pod in name(), container in name(),
        version in prop_oneof![4 => Just("apps/v1".to_owned()), 1 => name()],
        kind in prop_oneof![
            Just("ReplicaSet".to_owned()), Just("Deployment".to_owned()), Just("StatefulSet".to_owned()),
            Just("DaemonSet".to_owned()), name()
        ],
        owned in name(), hash in prop::option::of(name()), suffix in any::<bool>(), has_owner in any::<bool>(),
    ) -> PodFacts {
        let end = hash.as_ref().filter(|_| suffix).map(|hash| format!("-{hash}")).unwrap_or_default();
        PodFacts {
            namespace, name: pod,
            owner: has_owner.then(|| owner(&version, &kind, &format!("{owned}{end}"))),
            template_hash: hash,
            containers: vec![ContainerFacts {
                name: container, cpu_limit_cores: Some(0.2), cpu_request_cores: Some(0.1), ..Default::default()
            }],
            ..PodFacts::default()
        }
    }
}

proptest! {
    #[test]
    fn a_command_is_split_into_the_words_it_was_made_of(pod in strange_pod(), neighbour in name(), of in name()) {
        let container = pod.containers[0].name.clone();
        let named = taken(&pod.namespace, 63, false) && taken(&pod.name, 253, true) && taken(&container, 63, false);
        let strings = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();

        let mut e = throttle(0.2, 8.0, 0.2, 100);
        (e.pod, e.container) = (Arc::new(pod.clone()), container.clone());
        let r = recommend(&e, None);
        let template = pod.owner.as_ref().filter(|o| o.api_version == "apps/v1").and_then(|o| {
            let of_deployment = pod.template_hash.as_ref().and_then(|h| o.name.strip_suffix(&format!("-{h}")));
            let (kind, name) = match (o.kind.as_str(), of_deployment) {
                ("ReplicaSet", Some(deployment)) => ("deployment", deployment),
                ("ReplicaSet", None) => ("replicaset", &*o.name),
                ("Deployment", _) => ("deployment", &*o.name),
                ("StatefulSet", _) => ("statefulset", &*o.name),
                ("DaemonSet", _) => ("daemonset", &*o.name),
                _ => return None,
            };
            taken(name, 253, true).then(|| format!("{kind}/{name}"))
        });
        let expected = (named && !container.is_empty()).then(|| match &template {
            Some(template) => strings(&[
                "kubectl", "-n", &pod.namespace, "set", "resources", template, "-c", &container, "--limits=cpu=800m",
            ]),
            None => {
                let patch = serde_json::json!({"spec": {"containers": [
                    {"name": container, "resources": {"limits": {"cpu": "800m"}}}
                ]}});
                strings(&[
                    "kubectl", "-n", &pod.namespace, "patch", "pod", &pod.name, "--subresource", "resize", "-p",
                    &patch.to_string(),
                ])
            }
        });
        let words = command(&r).map(|line| shlex::split(line).expect("words"));
        prop_assert_eq!(words, expected, "{}", r.text);

        let whole = format!("{of}/{neighbour}/main");
        let r = recommend(&contention(8.0, 0.2, Some(1.5), &[(&whole, 63.0)]), None);
        let expected = (taken(&of, 63, false) && taken(&neighbour, 253, true))
            .then(|| strings(&["kubectl", "-n", &of, "get", "pod", &neighbour, "--show-labels"]));
        let words = command(&r).map(|line| shlex::split(line).expect("words"));
        prop_assert_eq!(words, expected, "{}", r.text);
    }
}
