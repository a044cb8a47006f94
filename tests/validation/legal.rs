//! Unusual objects that are legal, and that a rule written too tightly would refuse.

use serde_json::{Value, json};

use super::good::{self, put};

/// What is unusual, and the object.
pub fn all() -> Vec<(String, Value)> {
    [flows(), cartridges(), clusters()].concat()
}

/// An object with each of these values at a path.
fn with(base: &Value, path: &str, values: Vec<Value>) -> Vec<(String, Value)> {
    let changed = |value: Value| {
        let mut object = base.clone();
        put(&mut object, path, value.clone());
        (format!("{} {path} {value}", base["kind"]), object)
    };
    values.into_iter().map(changed).collect()
}

fn texts(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| json!(text)).collect()
}

fn flows() -> Vec<(String, Value)> {
    let node = |field: &str| format!("/graph/nodes/0/{field}");
    [
        with(&good::flow(), "/trigger/cron/schedule", texts(SCHEDULES)),
        with(&good::flow(), "/trigger/cron/timeZone", texts(ZONES)),
        with(&good::flow(), &node("image"), texts(IMAGES)),
        with(&good::flow(), &node("timeout"), texts(&["1h30m", "24h", "1ms", "0h1s", "90s", "00001s"])),
        with(&good::flow(), &node("function"), texts(&["v1.getOrders", "_x", "0", "get-orders"])),
        with(&good::flow(), &node("replicas"), vec![json!({})]),
        with(&good::flow(), &node("retry"), vec![json!({}), json!({ "limit": 0 })]),
        with(
            &good::flow(),
            &node("resources/limits/ephemeral-storage"),
            QUANTITIES.iter().map(|it| json!(it)).collect(),
        ),
        with(&good::flow(), &node("resources/limits/ephemeral-storage"), vec![json!(1), json!(1000)]),
        with(
            &good::flow(),
            &node("resources"),
            vec![
                json!({}),
                json!({ "requests": { "memory": "1024Mi" }, "limits": { "memory": "1Gi" } }),
                json!({ "requests": { "cpu": "500m" }, "limits": { "memory": "1Gi", "nvidia.com/gpu": 1 } }),
            ],
        ),
        with(&good::flow(), &node("env/3/valueFrom/fieldRef/fieldPath"), texts(FIELDS)),
        with(
            &good::flow(),
            &node("podTemplate"),
            vec![json!({}), json!({ "spec": { "hostNetwork": true } })],
        ),
        with(&good::flow(), "/drainSeconds", vec![json!(0)]),
        with(&good::flow(), "/graph", graphs()),
        with(&good::hooked_flow(), "/trigger/webhook", vec![json!({ "methods": ["GET"] })]),
    ]
    .concat()
}

fn cartridges() -> Vec<(String, Value)> {
    [
        with(&good::cartridge(), "/image", texts(IMAGES)),
        with(
            &good::cartridge(),
            "/command",
            vec![json!(["sh", "-c", ""]), json!(["sh", "-c", "a".repeat(4096)])],
        ),
        with(
            &good::cartridge(),
            "/env/-",
            texts(&["MYSQL", "MYSQL_DATABASE", "mysql_ip", "PATH", "a.b-c", "VALUE"])
                .into_iter()
                .map(|name| json!({ "name": name, "value": "" }))
                .collect(),
        ),
        // A secret of an import is a file, so the variable is free.
        with(
            &good::cartridge(),
            "/env/-",
            vec![json!({
                "name": "MYSQL_PORT", "valueFrom": { "secretKeyRef": { "name": "mysql", "key": "port" } },
            })],
        ),
        with(&good::cartridge(), "/probes/readiness/successThreshold", vec![json!(3)]),
        with(
            &good::cartridge(),
            "/probes",
            vec![json!({}), json!({ "liveness": { "tcpSocket": { "port": 80 }, "successThreshold": 1 } })],
        ),
        with(&good::cartridge(), "/ports/0/name", vec![json!("http")]),
        with(&good::cartridge(), "/ports/1/name", texts(&["8a", "a", "a-1", &"a".repeat(15)])),
        with(&good::cartridge(), "/imports/0/variables", vec![json!([]), json!(["a.b", "aB", "x-y"])]),
        with(&good::cartridge(), "/imports/0/name", texts(&["My.SQL", "valuedb", "x"])),
        with(&good::cartridge(), "/allowedNamespaces", vec![json!(["*"]), json!(["0"]), json!([])]),
        with(&good::record_type(), "", vec![json!({})]),
    ]
    .concat()
}

fn clusters() -> Vec<(String, Value)> {
    [
        with(
            &good::cluster(),
            "/instances",
            vec![json!({}), json!({ "min": 0 }), json!({ "min": 3, "max": 3 })],
        ),
        with(&good::cluster(), "/placement", vec![json!({}), json!({ "partitions": [] })]),
        with(
            &good::cluster(),
            "/placement/partitions",
            vec![json!([{ "name": "a" }, { "name": "b", "max": 0 }])],
        ),
        with(
            &good::cluster(),
            "/placement/partitions/0/tolerations",
            vec![json!([
                { "operator": "Exists" }, { "key": "a.example/b" }, { "key": "a", "value": "" },
                { "key": "a", "effect": "NoExecute", "tolerationSeconds": 0 },
            ])],
        ),
        with(&good::cluster(), "/placement/partitions/0/zone", texts(&["europe-west1-b", "1", "Zone_A.1"])),
        with(
            &good::cluster(),
            "/update",
            vec![json!({}), json!({ "maxUnavailable": 3 }), json!({ "maxUnavailable": "100%" })],
        ),
        // More or fewer than the limits allow is clamped.
        with(&good::cluster(), "/replicas", vec![json!(0), json!(1), json!(7), json!(i32::MAX)]),
        with(&good::cluster(), "/nodeLossSeconds", vec![json!(0)]),
        // Members of one cluster import from each other.
        with(
            &good::cluster(),
            "/imports",
            vec![json!([{ "name": "peers", "cluster": "tomcat" }]), json!([])],
        ),
        with(&good::instance(), "/revision", texts(&["tomcat.v1", "0"])),
        with(&good::instance(), "/values", vec![json!({})]),
        with(&good::instance(), "/desired", texts(&["Started", "Stopped", "NotDeployed"])),
    ]
    .concat()
}

const SCHEDULES: &[&str] = &[
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
    "0 9 * * MON-FRI",
    "0 9 * * mon-fri",
    "0 0 L * *",
    "0 0 15W * *",
    "0 0 LW * ?",
    "0 0 ? * 5L",
    "0 0 * * FRI#2",
    "0 0 * JAN,JUL 1#1",
    "*/10 * * * * *",
    "0 0 1-7/2 * *",
    "5,10,15-20 1-5 1 1 0",
    "*  *  *  *  *",
];
const ZONES: &[&str] = &[
    "UTC",
    "GMT",
    "CET",
    "EST5EDT",
    "GMT+0",
    "W-SU",
    "Etc/GMT+3",
    "Etc/UTC",
    "Europe/Berlin",
    "America/Port-au-Prince",
    "America/Argentina/Buenos_Aires",
    "America/North_Dakota/New_Salem",
    "US/Pacific",
];
const IMAGES: &[&str] = &[
    "nginx",
    "nginx:1.27",
    "library/nginx",
    "registry.example/orders:1.4",
    "localhost:5000/a/b_c/d--e:v1.0-rc_1",
    "registry.example:443/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "a:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "[::1]:5000/a",
    "10.0.0.1:5000/a",
    "REGISTRY.example/a",
    "0/0",
];
const QUANTITIES: &[&str] = &["1", "0", "0.5", "100m", "1e3", "1E", "64Mi", "1.5Gi", "2k"];
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels['tier']",
    "metadata.annotations['a.example/b']",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn graphs() -> Vec<Value> {
    let log = |id: &str| json!({ "id": id, "builtin": "log" });
    let edge = |source: &str, target: &str| json!({ "source": source, "target": target });
    vec![
        json!({ "nodes": [log("only")] }),
        json!({ "nodes": [log("only")], "edges": [] }),
        json!({ "nodes": [log("last"), log("first")], "edges": [edge("first", "last")] }),
        json!({
            "nodes": [log("a"), log("b"), log("c"), log("d")],
            "edges": [edge("a", "b"), edge("a", "c"), edge("b", "d"), edge("c", "d"), edge("a", "d")],
        }),
        json!({ "nodes": [{ "id": "0", "builtin": "log" }] }),
    ]
}
