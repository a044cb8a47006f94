use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::cluster::Cluster;

fn identity() -> Identity {
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Cluster",
        "metadata": {"namespace": "shop", "name": "web", "uid": "c1", "labels": {"team": "a"}},
        "spec": {"cartridge": {"name": "web"}},
    }))
    .unwrap();
    Identity::of(&cluster).unwrap()
}

fn port(number: u16) -> Port {
    Port { name: "http".into(), port: number, protocol: None }
}

/// How a member is.
#[allow(clippy::struct_excessive_bools, reason = "each varies by itself")]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Is {
    serving: bool,
    started: bool,
    desired: &'static str,
    leaving: bool,
    ending: bool,
    port: u16,
}

const ACTIVE: Is =
    Is { serving: true, started: true, desired: "Started", leaving: false, ending: false, port: 8080 };

fn member(number: usize, is: Is) -> Member {
    let name = format!("web-{number}");
    let address = format!("10.1.{}.{}", number / 250, number % 250);
    let now = "2026-01-01T00:00:00Z";
    let condition = |of: &str, holds: bool| {
        json!({
            "type": of, "status": if holds { "True" } else { "False" }, "reason": "X", "message": "", "lastTransitionTime": now,
        })
    };
    let instance = serde_json::from_value(json!({
        "apiVersion": "millrace.dev/v1alpha1", "kind": "Instance",
        "metadata": {"namespace": "shop", "name": name, "deletionTimestamp": is.leaving.then_some(now)},
        "spec": {"cartridge": {"name": "web"}, "cluster": "web", "desired": is.desired},
        "status": {"addresses": [address], "conditions": [condition("Started", is.started), condition("Serving", is.serving)]},
    }))
    .unwrap();
    let pod = serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": format!("{name}-x"), "uid": format!("p{number}"),
            "deletionTimestamp": is.ending.then_some(now),
        },
        "spec": {"containers": [], "nodeName": "n1"},
        "status": {"podIP": address},
    }))
    .unwrap();
    Member { instance: Arc::new(instance), pod: Some(Arc::new(pod)), ports: Some(vec![port(is.port)]) }
}

fn seen(members: Vec<Member>, before: &Plan) -> Snapshot {
    Snapshot {
        members,
        ports: Some(vec![port(8080)]),
        slices: before.slices.iter().cloned().map(Arc::new).collect(),
        ..Snapshot::default()
    }
}

/// The endpoints of all slices: whose, and how listed.
fn listing(plan: &Plan) -> Vec<(String, bool, bool, bool)> {
    let one = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions.clone().unwrap();
        (
            target(endpoint).unwrap().to_owned(),
            conditions.ready.unwrap(),
            conditions.serving.unwrap(),
            conditions.terminating.unwrap(),
        )
    };
    plan.slices.iter().flat_map(|slice| &slice.endpoints).map(one).collect()
}

fn p(number: usize, ready: bool, serving: bool, terminating: bool) -> (String, bool, bool, bool) {
    (format!("p{number}"), ready, serving, terminating)
}

#[test]
fn a_cluster_with_ports_has_a_service_and_a_slice_of_its_active_members() {
    let waiting = Is { serving: false, started: true, ..ACTIVE };
    let plan = plan(&identity(), &seen(vec![member(0, ACTIVE), member(1, waiting)], &Plan::default()));
    let service = serde_json::to_value(plan.service.as_ref().unwrap()).unwrap();
    assert_eq!(
        service["spec"],
        json!({
            "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}],
        })
    );
    assert_eq!(service["metadata"]["labels"]["team"], "a");
    let slice = serde_json::to_value(&plan.slices[0]).unwrap();
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], service["metadata"]["name"]);
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "c1");
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["endpoints"],
        json!([{
            "addresses": ["10.1.0.0"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0-x", "uid": "p0"},
        }])
    );
    assert_eq!((plan.slices.len(), plan.gone.len()), (1, 0));
}

#[test]
fn one_that_leaves_is_listed_as_not_ready_until_it_does_not_run_any_more() {
    let identity = identity();
    let both = plan(&identity, &seen(vec![member(0, ACTIVE), member(1, ACTIVE)], &Plan::default()));
    for (is, listed) in [
        (Is { leaving: true, ..ACTIVE }, Some(p(1, false, true, false))),
        (Is { desired: "Stopped", ..ACTIVE }, Some(p(1, false, true, false))),
        (Is { desired: "Maintenance", ..ACTIVE }, Some(p(1, false, true, false))),
        (Is { serving: false, ..ACTIVE }, Some(p(1, false, true, false))),
        (Is { ending: true, ..ACTIVE }, Some(p(1, false, true, true))),
        (Is { serving: false, started: false, ..ACTIVE }, None),
    ] {
        let after = plan(&identity, &seen(vec![member(0, ACTIVE), member(1, is)], &both));
        let expected: Vec<_> = [p(0, true, true, false)].into_iter().chain(listed).collect();
        assert_eq!(listing(&after), expected, "{is:?}");
    }
    let gone = plan(&identity, &seen(vec![member(0, ACTIVE)], &both));
    assert_eq!(listing(&gone), [p(0, true, true, false)]);
}

#[test]
fn the_last_slice_stays_though_it_is_empty() {
    let identity = identity();
    let one = plan(&identity, &seen(vec![member(0, ACTIVE)], &Plan::default()));
    let none = plan(&identity, &seen(vec![], &one));
    assert_eq!((none.slices.len(), listing(&none).len(), none.gone.len()), (1, 0, 0));
    let never = plan(&identity, &seen(vec![], &Plan::default()));
    assert_eq!(never.slices, []);
}

#[test]
fn members_of_another_revision_with_other_ports_have_a_slice_of_their_own() {
    let old = Is { port: 8081, ..ACTIVE };
    let plan = plan(&identity(), &seen(vec![member(0, ACTIVE), member(1, old)], &Plan::default()));
    assert_eq!(plan.slices.iter().map(|slice| slice.endpoints.len()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_revision_that_cannot_be_read_takes_nobody_out_and_a_new_pod_waits_for_its_own_word() {
    let identity = identity();
    let before = plan(&identity, &seen(vec![member(0, ACTIVE)], &Plan::default()));
    let mut unread = seen(vec![member(0, ACTIVE)], &before);
    unread.members[0].ports = None;
    assert_eq!(plan(&identity, &unread).slices, before.slices);
    let mut replaced = seen(vec![member(0, ACTIVE)], &before);
    let mut pod = (**replaced.members[0].pod.as_ref().unwrap()).clone();
    pod.metadata.uid = Some("another".into());
    pod.status.as_mut().unwrap().pod_ip = Some("10.9.9.9".into());
    replaced.members[0].pod = Some(Arc::new(pod));
    assert_eq!(listing(&plan(&identity, &replaced)), []);
}

#[test]
fn without_ports_there_is_nothing_to_balance() {
    let mut seen = seen(vec![member(0, ACTIVE)], &Plan::default());
    seen.ports = Some(vec![]);
    seen.members[0].ports = Some(vec![]);
    assert_eq!(plan(&identity(), &seen), Plan::default());
}

fn anyhow_it_is() -> impl Strategy<Value = Is> {
    let desired = prop_oneof![4 => Just("Started"), 1 => Just("Stopped"), 1 => Just("Maintenance")];
    let port = prop_oneof![6 => Just(8080_u16), 1 => Just(8081)];
    (any::<bool>(), any::<bool>(), desired, prop::bool::weighted(0.1), prop::bool::weighted(0.1), port)
        .prop_map(|(serving, started, desired, leaving, ending, port)| Is {
            serving: serving && started,
            started,
            desired,
            leaving,
            ending,
            port,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_ready_are_active_members_only_and_nobody_moves(
        rounds in prop::collection::vec(prop::collection::btree_map(0..260_usize, anyhow_it_is(), 0..260), 1..6),
    ) {
        let identity = identity();
        let mut before = Plan::default();
        for round in rounds {
            let members: Vec<_> = round.iter().map(|(number, is)| member(*number, *is)).collect();
            let after = plan(&identity, &seen(members.clone(), &before));
            for (uid, ready, ..) in listing(&after) {
                let is = round[&uid[1..].parse::<usize>().unwrap()];
                let active = is.serving && is.desired == "Started" && !is.leaving && !is.ending;
                prop_assert_eq!(ready, active);
            }
            let listed = listing(&after);
            let unique: BTreeSet<_> = listed.iter().map(|(uid, ..)| uid).collect();
            prop_assert_eq!(unique.len(), listed.len());
            for slice in &after.slices {
                prop_assert!(slice.endpoints.len() <= MOST);
                for endpoint in &slice.endpoints {
                    let uid = target(endpoint).unwrap();
                    let was = before.slices.iter().find(|slice| {
                        slice.endpoints.iter().any(|endpoint| target(endpoint) == Some(uid))
                    });
                    if let Some(was) = was.filter(|was| was.ports == slice.ports) {
                        prop_assert_eq!(was.name_any(), slice.name_any());
                    }
                }
            }
            let again = plan(&identity, &seen(members, &after));
            prop_assert_eq!(&again.slices, &after.slices);
            prop_assert_eq!(again.gone.len(), 0);
            before = after;
        }
    }
}
