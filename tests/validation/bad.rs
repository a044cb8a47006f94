//! Bad objects, each wrong in one way, and what the server must say of it.

use serde_json::{Value, json};

use super::good::{self, put};

/// A good object, what is made of it, and a part of the message that refuses it.
#[derive(Clone)]
pub struct Row {
    pub name: String,
    pub base: Value,
    pub bad: Value,
    pub says: &'static str,
    /// The good object is there, and becomes the bad one.
    pub of_change: bool,
}

fn row(name: impl Into<String>, base: Value, change: impl FnOnce(&mut Value), says: &'static str) -> Row {
    let name = name.into();
    let mut bad = base.clone();
    change(&mut bad);
    Row { name, base, bad, says, of_change: false }
}

/// A row whose change is one value at a path below `spec`. `null` takes the field away.
fn set(name: impl Into<String>, base: Value, path: &str, value: Value, says: &'static str) -> Row {
    row(name, base, |bad| put(bad, path, value), says)
}

/// Rows for numbers: each one less than the least and one more than the most.
fn range(base: &Value, at: &str, fields: &[(&str, i64, i64)]) -> Vec<Row> {
    let mut rows = vec![];
    for (field, least, most) in fields {
        let path = format!("{at}/{field}");
        let mut set = |name, value: i64, says| {
            rows.push(set(format!("{path} {name}"), base.clone(), &path, json!(value), says));
        };
        set("too small", least - 1, "should be greater than or equal to");
        set("too large", most + 1, "should be less than or equal to");
    }
    rows
}

/// Rows for what must be there.
fn missing(base: &Value, at: &str, fields: &[&str]) -> Vec<Row> {
    let without = |field: &&str| {
        let path = format!("{at}/{field}");
        set(format!("without {path}"), base.clone(), &path, Value::Null, "Required value")
    };
    fields.iter().map(without).collect()
}

pub fn rows() -> Vec<Row> {
    [
        required(),
        ranges(),
        names(),
        triggers(),
        graphs(),
        nodes(),
        builtins(),
        containers(),
        records(),
        cartridges(),
        exchange(),
        clusters(),
        instances(),
        changes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn names() -> Vec<Row> {
    let kinds = [
        (good::flow(), 52, "`metadata.name` must have at most 52 characters (`generateName` at most 47)"),
        (
            good::cartridge(),
            52,
            "`metadata.name` must have at most 52 characters (`generateName` at most 47)",
        ),
        (good::cluster(), 40, "`metadata.name` must have at most 40 characters (`generateName` at most 35)"),
        (good::instance(), 52, "`metadata.name` must have at most 52 characters (`generateName` at most 47)"),
    ];
    let mut rows = vec![];
    for (mut base, length, says) in kinds {
        base["metadata"]["name"] = json!("a".repeat(length));
        rows.push(row(
            "a name one too long",
            base.clone(),
            |bad| bad["metadata"]["name"] = json!("a".repeat(length + 1)),
            says,
        ));
        rows.push(row(
            "a dotted name",
            base.clone(),
            |bad| bad["metadata"]["name"] = json!("a.b"),
            "put `-` where it has a dot",
        ));
        rows.push(row(
            "an upper-case name",
            base,
            |bad| bad["metadata"]["name"] = json!("Orders"),
            "must consist of lower case alphanumeric characters",
        ));
    }
    rows
}

fn triggers() -> Vec<Row> {
    const ONE: &str = "`trigger` must have exactly one of `cron` and `webhook`";
    const FIELDS: &str = "`schedule` must have five fields";
    const NUMBERS: &str = "`schedule` must have numbers that its fields can take";
    const ZONE: &str = "put the time zone into `timeZone`";
    const IANA: &str = "`timeZone` must be a name of the IANA database";
    let (cron, hook) = (good::flow, good::hooked_flow);
    let schedule = |name, text: &str, says| set(name, cron(), "/trigger/cron/schedule", json!(text), says);
    let zone = |name, text: &str| set(name, cron(), "/trigger/cron/timeZone", json!(text), IANA);
    let deadline = "/trigger/cron/startingDeadlineSeconds";
    vec![
        set("no trigger", cron(), "/trigger", json!({}), ONE),
        set("two triggers", cron(), "/trigger/webhook", json!({ "methods": ["POST"] }), ONE),
        set("the trigger is missing", cron(), "/trigger", Value::Null, "Required value"),
        schedule("four fields", "* * * *", FIELDS),
        schedule("seven fields", "* * * * * * *", FIELDS),
        schedule("a strange character", "* * * * $", FIELDS),
        schedule("a leading space", " * * * * *", FIELDS),
        schedule("a nickname that Millrace does not know", "@midnight", FIELDS),
        schedule("a pause instead of times", "@every 5m", FIELDS),
        schedule("five words", "every five minutes of day", FIELDS),
        schedule("a month that is none", "0 0 1 FOO *", FIELDS),
        schedule("a zone in the schedule", "TZ=Europe/Berlin * * * * *", ZONE),
        schedule("a zone in the schedule, by its other name", "CRON_TZ=UTC * * * * *", ZONE),
        schedule("an empty schedule", "", FIELDS),
        schedule("a minute that no hour has", "61 * * * *", NUMBERS),
        schedule("a long number", "0 0 001234 * *", NUMBERS),
        schedule("a step of zero", "*/0 * * * *", NUMBERS),
        zone("the server's own zone", "Local"),
        zone("a zone by its offset", "+02:00"),
        zone("a zone that leaves its folder", "../etc/localtime"),
        zone("a lower-case zone", "europe/berlin"),
        zone("a city alone", "Berlin"),
        zone("an abbreviation that is no zone", "CEST"),
        zone("no zone", ""),
        set("no time to start", cron(), deadline, json!(0), "greater than or equal to 1"),
        set("a very late start", cron(), deadline, json!(604_801), "less than or equal to 604800"),
        set("no methods", hook(), "/trigger/webhook/methods", json!([]), "should have at least 1 items"),
        set(
            "a method that does not exist",
            hook(),
            "/trigger/webhook/methods/0",
            json!("PUT"),
            "\"GET\", \"POST\"",
        ),
        set("a method twice", hook(), "/trigger/webhook/methods", json!(["GET", "GET"]), "Duplicate value"),
        set(
            "no body at all",
            hook(),
            "/trigger/webhook/maxBodyBytes",
            json!(0),
            "greater than or equal to 1",
        ),
        set(
            "a huge body",
            hook(),
            "/trigger/webhook/maxBodyBytes",
            json!(1_048_577),
            "less than or equal to 1048576",
        ),
        set(
            "no time for progress",
            cron(),
            "/progressDeadlineSeconds",
            json!(0),
            "greater than or equal to 1",
        ),
        set("less than no time to drain", cron(), "/drainSeconds", json!(-1), "greater than or equal to 0"),
    ]
}

fn graphs() -> Vec<Row> {
    const ENTRY: &str = "`graph` must have exactly one entry node";
    let flow = good::flow;
    let edge = |name, source: &str, target: &str, says| {
        set(name, flow(), "/graph/edges/-", json!({ "source": source, "target": target }), says)
    };
    vec![
        edge(
            "an edge from nowhere",
            "nowhere",
            "store",
            "`edges` must have the `id` of a node as their `source`",
        ),
        edge(
            "an edge to nowhere",
            "store",
            "nowhere",
            "`edges` must have the `id` of a node as their `target`",
        ),
        edge("an edge to its own node", "store", "store", "a node cannot send messages to itself"),
        edge("an edge from no name", "", "store", "`edges` must have the `id` of a node as their `source`"),
        edge("an edge to no name", "store", "", "`edges` must have the `id` of a node as their `target`"),
        edge("an edge twice", "fetch", "map", "Duplicate value"),
        edge("no entry node", "store", "fetch", ENTRY),
        set("two entry nodes", flow(), "/graph/nodes/-", json!({ "id": "other", "builtin": "log" }), ENTRY),
        row(
            "no edges between two nodes",
            flow(),
            |bad| drop(bad["spec"]["graph"].as_object_mut().unwrap().remove("edges")),
            ENTRY,
        ),
        set("no nodes", flow(), "/graph", json!({ "nodes": [] }), "should have at least 1 items"),
        set(
            "an id twice",
            flow(),
            "/graph/nodes/-",
            json!({ "id": "map", "builtin": "log" }),
            "Duplicate value",
        ),
        set("an empty expression", flow(), "/graph/edges/1/transform/jq", json!(""), "at least 1 chars long"),
        set(
            "a filter that is no object",
            flow(),
            "/graph/edges/1/condition",
            json!("a > 1"),
            "must be of type object",
        ),
    ]
}

fn nodes() -> Vec<Row> {
    const ONE: &str = "a node must have `image` or `builtin`, and not both";
    let flow = good::flow;
    let image =
        |name, field: &str, value, says| set(name, flow(), &format!("/graph/nodes/0/{field}"), value, says);
    let builtin =
        |name, field: &str, value, says| set(name, flow(), &format!("/graph/nodes/1/{field}"), value, says);
    vec![
        image("an image and a built-in", "builtin", json!("log"), ONE),
        builtin("neither image nor built-in", "builtin", Value::Null, ONE),
        row(
            "an upper-case id",
            flow(),
            |bad| {
                bad["spec"]["graph"]["nodes"][0]["id"] = json!("Fetch");
                bad["spec"]["graph"]["edges"][0]["source"] = json!("Fetch");
            },
            "`id` must be a DNS label",
        ),
        builtin(
            "a built-in with a strange name",
            "builtin",
            json!("Log It"),
            "`builtin` must be a DNS label",
        ),
        image("an image with a space", "image", json!("a b"), "`image` must be an image reference, without"),
        image(
            "a function with a slash",
            "function",
            json!("a/b"),
            "`function` must be one segment of a path",
        ),
        image("no pods", "replicas/min", json!(0), "greater than or equal to 1"),
        image("less than no attempts", "retry/limit", json!(-1), "greater than or equal to 0"),
        image("port 0", "port", json!(0), "greater than or equal to 1"),
        image("port 65536", "port", json!(65536), "less than or equal to 65535"),
        image("the agent's port", "port", json!(8687), "`port` must be another than 8687"),
        image(
            "an account with a space",
            "serviceAccountName",
            json!("a b"),
            "must be the name of a ServiceAccount",
        ),
        image(
            "a Secret in upper case",
            "credentials/secretRef/name",
            json!("ERP"),
            "an object in this namespace",
        ),
        image(
            "a time-out as a number",
            "timeout",
            json!("30"),
            "a duration must be whole numbers with units",
        ),
        image("a time-out in days", "timeout", json!("1d"), "a duration must be whole numbers with units"),
        image(
            "a time-out with a point",
            "timeout",
            json!("1.5s"),
            "a duration must be whole numbers with units",
        ),
        image("no time at all", "timeout", json!("0s"), "a duration must be more than zero and at most 24h"),
        image(
            "more than a day",
            "timeout",
            json!("24h1ms"),
            "a duration must be more than zero and at most 24h",
        ),
        image(
            "a backoff as a number",
            "retry/backoff",
            json!("500"),
            "a duration must be whole numbers with units",
        ),
        image("a negative time-out", "timeout", json!("-1s"), "a duration must be whole numbers with units"),
        image("an empty time-out", "timeout", json!(""), "a duration must be whole numbers with units"),
        image("a pull secret twice", "imagePullSecrets/-", json!({ "name": "registry" }), "Duplicate value"),
        image(
            "a pull secret in upper case",
            "imagePullSecrets/0/name",
            json!("REG"),
            "an object in this namespace",
        ),
        image("a backoff of nothing", "retry/backoff", json!("0ms"), "a duration must be more than zero"),
        image(
            "a longest backoff of nothing",
            "retry/maxBackoff",
            json!("0s"),
            "a duration must be more than zero",
        ),
        image(
            "a longest backoff in words",
            "retry/maxBackoff",
            json!("a while"),
            "a duration must be whole numbers",
        ),
    ]
}

/// What only a node with an image has.
fn builtins() -> Vec<Row> {
    let builtin = |name, field: &str, value, says| {
        set(name, good::flow(), &format!("/graph/nodes/1/{field}"), value, says)
    };
    let secret = json!([{ "name": "a" }]);
    vec![
        builtin("a function", "function", json!("a"), "`function` must be left out where `builtin` is given"),
        builtin("a port", "port", json!(1), "`port` must be left out where `builtin` is given"),
        builtin("env", "env", secret.clone(), "`env` must be left out where `builtin` is given"),
        builtin("resources", "resources", json!({}), "`resources` must be left out where `builtin` is given"),
        builtin(
            "a pull secret",
            "imagePullSecrets",
            secret,
            "`imagePullSecrets` must be left out where `builtin`",
        ),
        builtin(
            "an account",
            "serviceAccountName",
            json!("a"),
            "`serviceAccountName` must be left out where `builtin`",
        ),
        builtin(
            "a pod template",
            "podTemplate",
            json!({}),
            "`podTemplate` must be left out where `builtin` is given",
        ),
        builtin(
            "replicas",
            "replicas",
            json!({ "min": 1 }),
            "`replicas` must be left out where `builtin` is given",
        ),
    ]
}

fn required() -> Vec<Row> {
    let mut rows = vec![];
    let (flow, cartridge) = (good::flow(), good::cartridge());
    for base in [&flow, &cartridge, &good::cluster(), &good::instance()] {
        let change = |bad: &mut Value| drop(bad.as_object_mut().unwrap().remove("spec"));
        rows.push(row("without a spec", base.clone(), change, "Required value"));
    }
    rows.extend(missing(&flow, "", &["trigger", "graph", "trigger/cron/schedule", "graph/nodes"]));
    rows.extend(missing(
        &flow,
        "/graph/nodes/0",
        &["id", "credentials/secretRef", "credentials/secretRef/name"],
    ));
    rows.extend(missing(&flow, "/graph/nodes/0/imagePullSecrets/0", &["name"]));
    rows.extend(missing(&flow, "/graph/edges/1", &["source", "target", "transform/jq"]));
    rows.extend(missing(&good::hooked_flow(), "", &["trigger/webhook/methods"]));
    rows.extend(missing(&cartridge, "/ports/0", &["name", "port"]));
    rows.extend(missing(&cartridge, "", &["exports/0/name", "imports/0/name", "imports/0/cartridge"]));
    rows.extend(missing(
        &good::cluster(),
        "",
        &["cartridge", "cartridge/name", "imports/0/name", "imports/0/cluster"],
    ));
    rows.extend(missing(&good::cluster(), "", &["placement/partitions/0/name"]));
    rows.extend(missing(&good::instance(), "", &["cartridge", "cartridge/name"]));
    rows
}

/// A cluster with these limits and nothing that depends on them.
fn limited(instances: Value) -> Value {
    let mut cluster = good::cluster();
    cluster["spec"]["instances"] = instances;
    cluster["spec"].as_object_mut().unwrap().remove("placement");
    cluster
}

fn ranges() -> Vec<Row> {
    let flow = [("progressDeadlineSeconds", 1, 86_400), ("drainSeconds", 0, 86_400)];
    let cron = [("startingDeadlineSeconds", 1, 604_800)];
    let node = [("replicas/min", 1, 1000), ("retry/limit", 0, 100), ("port", 1, 65535)];
    let cluster = [("loadBalancer/drainSeconds", 0, 3600), ("nodeLossSeconds", 0, 86_400)];
    let partition = [("max", 0, 10_000)];
    let mut rows = [
        range(&good::flow(), "", &flow),
        range(&good::flow(), "/trigger/cron", &cron),
        range(&good::hooked_flow(), "/trigger/webhook", &[("maxBodyBytes", 1, 1_048_576)]),
        range(&good::flow(), "/graph/nodes/0", &node),
        range(&good::cartridge(), "/ports/0", &[("port", 1, 65535)]),
        range(&limited(json!({ "min": 1 })), "/instances", &[("min", 0, 10_000)]),
        range(&limited(json!({ "max": 1 })), "/instances", &[("max", 1, 10_000)]),
        range(&good::cluster(), "/placement/partitions/1", &partition),
        range(&good::cluster(), "", &cluster),
    ]
    .concat();
    let toleration = "/placement/partitions/0/tolerations/1/tolerationSeconds";
    rows.push(set(
        "a taint borne for less than no time",
        good::cluster(),
        toleration,
        json!(-1),
        "should be greater than or equal to 0",
    ));
    rows
}

/// What stands in a Flow's node and in a Cartridge, and what stands in several places of either.
fn containers() -> Vec<Row> {
    let mut rows = vec![];
    for (base, at) in [(good::flow(), "/graph/nodes/0"), (good::cartridge(), "")] {
        rows.extend(environment(&base, &format!("{at}/env")));
        rows.extend(resources(&base, &format!("{at}/resources")));
    }
    rows.extend(key(&good::cartridge(), "/exports/3/secretKeyRef"));
    rows.extend(command(&commanded(), "/command"));
    for probe in ["startup", "liveness", "readiness"] {
        rows.extend(probes(probe));
    }
    for hook in ["start", "update", "stop"] {
        rows.extend(hooks(hook));
    }
    rows
}

/// A cartridge with a command, on which nothing else depends.
fn commanded() -> Value {
    let mut cartridge = good::cartridge();
    cartridge["spec"].as_object_mut().unwrap().remove("lifecycle");
    cartridge
}

fn environment(base: &Value, at: &str) -> Vec<Row> {
    const NAME: &str = "`name` of an environment variable must begin with a letter or `_`";
    const BOTH: &str = "an environment variable must have `value` or `valueFrom`, and not both";
    const SOURCE: &str = "`valueFrom` must have exactly one of";
    const FIELD: &str = "`fieldPath` must be a field that Kubernetes gives to containers";
    let mut base = base.clone();
    let (parent, env) = at.rsplit_once('/').unwrap();
    base["spec"].pointer_mut(parent).unwrap()[env] = json!([
        { "name": "LOG_LEVEL", "value": "debug" },
        { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "erp", "key": "token" } } },
        { "name": "CONFIG", "valueFrom": { "configMapKeyRef": { "name": "erp", "key": "config" } } },
        { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
    ]);
    let env = |name, field: &str, value, says| set(name, base.clone(), &format!("{at}/{field}"), value, says);
    let mut rows = vec![
        env("a variable with a space", "0/name", json!("A B"), NAME),
        env("a variable that begins with a digit", "0/name", json!("1A"), NAME),
        env("a variable without a name", "0/name", json!(""), NAME),
        env(
            "a variable of Millrace's",
            "0/name",
            json!("MILLRACE_FIELDS"),
            "must not begin with `MILLRACE_`",
        ),
        env("a variable twice", "0/name", json!("POD"), "Duplicate value"),
        env("a value and a source", "1/value", json!("a"), BOTH),
        env("a source of nothing", "1/valueFrom", json!({}), SOURCE),
        env("two sources", "1/valueFrom/fieldRef", json!({ "fieldPath": "metadata.name" }), SOURCE),
        env(
            "a field that containers cannot have",
            "3/valueFrom/fieldRef/fieldPath",
            json!("status.phase"),
            FIELD,
        ),
        env("a label without a name", "3/valueFrom/fieldRef/fieldPath", json!("metadata.labels['']"), FIELD),
    ];
    rows.extend(missing(&base, at, &["0/name", "3/valueFrom/fieldRef/fieldPath"]));
    rows.extend(key(&base, &format!("{at}/1/valueFrom/secretKeyRef")));
    rows.extend(key(&base, &format!("{at}/2/valueFrom/configMapKeyRef")));
    rows
}

/// One key of a Secret or ConfigMap.
fn key(base: &Value, at: &str) -> Vec<Row> {
    const NAME: &str = "`name` must be the name of a Secret or ConfigMap";
    const KEY: &str = "`key` must hold only letters";
    let key = |name, field: &str, value, says| set(name, base.clone(), &format!("{at}/{field}"), value, says);
    let mut rows = vec![
        key("a Secret in upper case", "name", json!("ERP"), NAME),
        key("a Secret without a name", "name", json!(""), NAME),
        key("a key with a slash", "key", json!("a/b"), KEY),
        key("a key that is a folder", "key", json!(".."), KEY),
        key("an empty key", "key", json!(""), KEY),
    ];
    rows.extend(missing(base, at, &["name", "key"]));
    rows
}

fn resources(base: &Value, at: &str) -> Vec<Row> {
    const QUANTITY: &str = "a resource must be a quantity of zero or more";
    let mut base = base.clone();
    let (parent, resources) = at.rsplit_once('/').unwrap();
    base["spec"].pointer_mut(parent).unwrap()[resources] = json!({
        "requests": { "cpu": "0.1", "memory": "64Mi", "example.com/gpu": 1 },
        "limits": { "cpu": 1, "memory": "64Mi", "ephemeral-storage": "1G", "hugepages-2Mi": "0" },
    });
    let resource =
        |name, field: &str, value, says| set(name, base.clone(), &format!("{at}/{field}"), value, says);
    let mut rows = vec![resource(
        "more than the limit",
        "requests/memory",
        json!("65Mi"),
        "must not be more than `limits`",
    )];
    // Of each part a resource that the other does not have, so that the two are not compared.
    for (part, one, names) in [
        ("requests", "example.com~1gpu", "`requests` must hold `cpu`"),
        ("limits", "ephemeral-storage", "`limits` must hold `cpu`"),
    ] {
        let amount = |name, value| resource(name, &format!("{part}/{one}"), value, QUANTITY);
        rows.push(amount("an amount of nonsense", json!("much")));
        rows.push(amount("an amount with a space", json!("1 m")));
        rows.push(amount("an empty amount", json!("")));
        rows.push(amount("less than nothing", json!(-1)));
        rows.push(amount("less than nothing in small units", json!("-1m")));
        rows.push(resource("a resource that nobody has", &format!("{part}/memroy"), json!("64Mi"), names));
    }
    rows
}

fn probes(probe: &str) -> Vec<Row> {
    const ONE: &str = "a probe must have exactly one of";
    let at = format!("/probes/{probe}");
    let with = |how: Value| {
        let mut base = good::cartridge();
        base["spec"]["probes"] = json!({ probe: how });
        base
    };
    let http = with(json!({ "httpGet": { "path": "/healthz", "port": 8080 } }));
    let tcp = with(json!({ "tcpSocket": { "port": 8080 } }));
    let exec = with(json!({ "exec": { "command": ["true"] } }));
    let numbers = [
        ("initialDelaySeconds", 0, 3600),
        ("periodSeconds", 1, 3600),
        ("timeoutSeconds", 1, 3600),
        ("failureThreshold", 1, 1000),
    ];
    let success = format!("{at}/successThreshold");
    let mut rows = vec![
        set("a probe of nothing", tcp.clone(), &at, json!({}), ONE),
        set("a probe of two kinds", tcp.clone(), &format!("{at}/exec"), json!({ "command": ["true"] }), ONE),
        set("no success at all", tcp.clone(), &success, json!(0), "should be greater than or equal to 1"),
        set("too many successes", tcp.clone(), &success, json!(1001), "should be less than or equal to 1000"),
    ];
    if probe != "readiness" {
        rows.push(set(
            "two successes",
            tcp.clone(),
            &success,
            json!(2),
            "`successThreshold` must be 1 or left out",
        ));
    }
    rows.extend(range(&tcp, &at, &numbers));
    rows.extend(range(&tcp, &at, &[("tcpSocket/port", 1, 65535)]));
    rows.extend(missing(&tcp, &at, &["tcpSocket/port"]));
    rows.extend(request(&http, &format!("{at}/httpGet")));
    rows.extend(command(&exec, &format!("{at}/exec/command")));
    rows.extend(missing(&exec, &at, &["exec/command"]));
    rows
}

fn hooks(hook: &str) -> Vec<Row> {
    const ONE: &str = "a hook must have exactly one of `exec` and `httpGet`";
    let at = format!("/lifecycle/{hook}");
    let with = |how: Value| {
        let mut base = good::cartridge();
        base["spec"]["lifecycle"] = json!({ hook: how });
        base
    };
    let http = with(json!({ "httpGet": { "path": "/reload", "port": 8080 } }));
    let exec = with(json!({ "exec": { "command": ["true"] } }));
    let mut rows = vec![
        set("a hook of nothing", http.clone(), &at, json!({}), ONE),
        set("a hook of two kinds", exec.clone(), &format!("{at}/httpGet"), json!({ "port": 80 }), ONE),
        set(
            "a hook that runs in what Millrace did not start",
            exec.clone(),
            "/command",
            Value::Null,
            "`lifecycle` must use `httpGet`, or `command` must be given",
        ),
    ];
    rows.extend(request(&http, &format!("{at}/httpGet")));
    rows.extend(command(&exec, &format!("{at}/exec/command")));
    rows.extend(missing(&exec, &at, &["exec/command"]));
    rows
}

fn request(base: &Value, at: &str) -> Vec<Row> {
    const PATH: &str = "`path` must begin with `/`";
    let mut rows = range(base, at, &[("port", 1, 65535)]);
    rows.extend(missing(base, at, &["port"]));
    for path in ["healthz", "", "http://localhost/"] {
        rows.push(set("a path that begins nowhere", base.clone(), &format!("{at}/path"), json!(path), PATH));
    }
    rows
}

fn command(base: &Value, at: &str) -> Vec<Row> {
    const PROGRAM: &str = "`command` must begin with a program";
    vec![
        set("no command", base.clone(), at, json!([]), "should have at least 1 items"),
        set("a program without a name", base.clone(), at, json!(["", "-v"]), PROGRAM),
        set("a program of spaces", base.clone(), at, json!([" "]), PROGRAM),
    ]
}

/// What only an application has.
fn records() -> Vec<Row> {
    let record = |name, path: &str, value, says| set(name, good::record_type(), path, value, says);
    let env = json!([{ "name": "A" }]);
    let port = json!([{ "name": "http", "port": 80 }]);
    let import = json!([{ "name": "mysql", "cartridge": "mysql" }]);
    let hook = json!({ "stop": { "httpGet": { "port": 80 } } });
    vec![
        record(
            "a record with a command",
            "/command",
            json!(["a"]),
            "`command` must be left out, or `image` must be",
        ),
        record(
            "a record with arguments",
            "/args",
            json!(["a"]),
            "`args` must be left out, or `image` must be given",
        ),
        record("a record with variables", "/env", env, "`env` must be left out, or `image` must be given"),
        record("a record with ports", "/ports", port, "`ports` must be left out, or `image` must be given"),
        record(
            "a record with resources",
            "/resources",
            json!({}),
            "`resources` must be left out, or `image` must",
        ),
        record(
            "a record with probes",
            "/probes",
            json!({}),
            "`probes` must be left out, or `image` must be given",
        ),
        record(
            "a record with a pod",
            "/podTemplate",
            json!({}),
            "`podTemplate` must be left out, or `image` must be",
        ),
        record(
            "a record with imports",
            "/imports",
            import,
            "`imports` must be left out, or `image` must be given",
        ),
        record(
            "a record with hooks",
            "/lifecycle",
            hook,
            "`lifecycle` must be left out, or `image` must be given",
        ),
        record(
            "a record with an address",
            "/exports/-",
            json!({ "name": "ip", "address": "PodIP" }),
            "`exports` must each have a fixed `value`, or `image` must be given",
        ),
        record(
            "a record with a port",
            "/exports/-",
            json!({ "name": "port", "port": "http" }),
            "`exports` must each have a fixed `value`, or `image` must be given",
        ),
    ]
}

fn cartridges() -> Vec<Row> {
    const TWICE: &str = "`ports` must differ in `port` or `protocol`";
    const IMAGE: &str = "`image` must be an image reference, without";
    const TAKEN: &str = "`env` must not hold a variable that one of `imports` makes";
    const PORT: &str = "`name` of a port must be lower-case letters";
    let cartridge = |name, path: &str, value, says| set(name, good::cartridge(), path, value, says);
    let taken = |name| {
        let variable = json!({ "name": name, "value": "a" });
        set(format!("the variable {name}"), good::cartridge(), "/env/-", variable, TAKEN)
    };
    vec![
        cartridge("a port's name in upper case", "/ports/1/name", json!("DNS"), PORT),
        cartridge("a port's name of digits", "/ports/1/name", json!("53"), PORT),
        cartridge("a port's name with two dashes", "/ports/1/name", json!("a--b"), PORT),
        cartridge(
            "a port's name too long",
            "/ports/1/name",
            json!("a".repeat(16)),
            "may not be more than 15 bytes",
        ),
        cartridge("a port's name twice", "/ports/1/name", json!("http"), "Duplicate value"),
        cartridge("a port's number twice", "/ports/1/port", json!(8080), TWICE),
        cartridge("a port's number and protocol twice", "/ports/2/protocol", Value::Null, TWICE),
        cartridge("port 0", "/ports/0/port", json!(0), "greater than or equal to 1"),
        cartridge("port 65536", "/ports/0/port", json!(65536), "less than or equal to 65535"),
        cartridge(
            "a protocol of another layer",
            "/ports/0/protocol",
            json!("HTTP"),
            "supported values: \"TCP\"",
        ),
        cartridge("an empty image", "/image", json!(""), IMAGE),
        cartridge("an image by its address", "/image", json!("https://registry.example/orders:1.4"), IMAGE),
        cartridge("an image in upper case", "/image", json!("Tomcat:10.1"), IMAGE),
        cartridge("an image without its tag", "/image", json!("tomcat:"), IMAGE),
        cartridge("an image with half a digest", "/image", json!("tomcat@sha256:abc"), IMAGE),
        cartridge("an image with a space", "/image", json!("a b"), "`image` must be an image reference"),
        cartridge(
            "a pattern of namespaces",
            "/allowedNamespaces/0",
            json!("shop-*"),
            "must hold names of namespaces",
        ),
        cartridge("all namespaces and one", "/allowedNamespaces/-", json!("*"), "must be `*` alone"),
        cartridge("a namespace twice", "/allowedNamespaces/-", json!("shop"), "Duplicate value"),
        cartridge(
            "a variable of a value",
            "/env/-",
            json!({ "name": "VALUE_A" }),
            "a name that begins with `VALUE_`",
        ),
        taken("MYSQL_IP"),
        taken("MYSQL_SIZE"),
        taken("MYSQL_NAME"),
        taken("MYSQL_REPLICA_IP"),
        taken("MYSQL_0_IP"),
        taken("PEERS_12"),
        set(
            "a variable of an import, from a ConfigMap",
            good::cartridge(),
            "/env/0/name",
            json!("MYSQL_PORT"),
            TAKEN,
        ),
        cartridge("a schema that is no object", "/values", json!(true), "must be of type object"),
    ]
}

fn exchange() -> Vec<Row> {
    const ONE: &str = "an export must have exactly one of";
    const COLLIDE: &str = "`imports` must have names whose environment variables differ";
    const SAME: &str = "`variables` must differ in more than upper and lower case";
    const TAKEN: &str = "`name` of an export must not be `name` or `size`";
    const RESERVED: &str = "`name` of an import must not begin with `value` or `millrace`";
    const SHAPE: &str = "`name` must begin with a letter and hold only letters";
    let set = |name, path: &str, value, says| set(name, good::cartridge(), path, value, says);
    let import = |name, import: &str| {
        set(name, "/imports/-", json!({ "name": import, "cartridge": "mysql", "variables": ["ip"] }), COLLIDE)
    };
    vec![
        set("an export of nothing", "/exports/0/address", Value::Null, ONE),
        set("an export of two things", "/exports/0/value", json!("a"), ONE),
        set(
            "an address of another kind",
            "/exports/0/address",
            json!("NodeIP"),
            "supported values: \"PodIP\"",
        ),
        set(
            "an export of a port that is not there",
            "/exports/1/port",
            json!("ajp"),
            "must name in `port` a port of",
        ),
        set(
            "an export of a port without a name",
            "/exports/1/port",
            json!(""),
            "must name in `port` a port of",
        ),
        set("an export with a space", "/exports/0/name", json!("my ip"), SHAPE),
        set("an export called size", "/exports/0/name", json!("Size"), TAKEN),
        set("an export called name", "/exports/0/name", json!("name"), TAKEN),
        set("an export twice", "/exports/0/name", json!("port"), "Duplicate value"),
        set("an import that begins with a digit", "/imports/0/name", json!("1db"), SHAPE),
        set("an import called value", "/imports/0/name", json!("Value"), RESERVED),
        set("an import called millrace-x", "/imports/0/name", json!("millrace-x"), RESERVED),
        set("an import twice", "/imports/1/name", json!("mysql"), "Duplicate value"),
        set(
            "an import of a bad name",
            "/imports/0/cartridge",
            json!("My.SQL"),
            "`cartridge` must be a DNS label",
        ),
        set(
            "a variable with a space",
            "/imports/0/variables/0",
            json!("a b"),
            "each of `variables` must begin",
        ),
        set(
            "a variable that is there anyway",
            "/imports/0/variables/0",
            json!("Name"),
            "`variables` must not hold",
        ),
        set("a variable twice", "/imports/0/variables/0", json!("port"), "Duplicate value"),
        set("two variables that are one", "/imports/0/variables/0", json!("PORT"), SAME),
        set("two variables that are one but for a dash", "/imports/0/variables", json!(["a-b", "a.b"]), SAME),
        import("two imports that are one", "MySQL"),
        import("two imports that are one but for a dash", "MYSQL_REPLICA"),
        import("an import that looks like a member of another", "mysql-0"),
        import("an import that looks like a variable of a member of another", "mysql-12-x"),
        import("an import that looks like a variable of another", "mysql-ip"),
        set(
            "a self-import that is not optional",
            "/imports/2/optional",
            Value::Null,
            "must say `optional: true`",
        ),
        set("a self-import that is needed", "/imports/2/optional", json!(false), "must say `optional: true`"),
    ]
}

fn clusters() -> Vec<Row> {
    const ROOM: &str = "`placement.partitions` must have room for `instances.min` members";
    const UNAVAILABLE: &str = "`maxUnavailable` must be a number of at least 1, or a share";
    let set = |name, path: &str, value, says| set(name, good::cluster(), path, value, says);
    let partition = "/placement/partitions/0";
    let at = |name, field: &str, value, says| set(name, &format!("{partition}/{field}"), value, says);
    vec![
        set("no cartridge", "/cartridge", Value::Null, "Required value"),
        set("a cartridge with a dot", "/cartridge/name", json!("a.b"), "`name` must be a DNS label"),
        set(
            "a namespace with a dot",
            "/cartridge/namespace",
            json!("a.b"),
            "`namespace` must be a DNS label",
        ),
        set("less than no members", "/replicas", json!(-1), "should be a non-negative integer"),
        set("more at least than at most", "/instances/max", json!(1), "`min` must not be more than `max`"),
        set("no members at most", "/instances", json!({ "max": 0 }), "greater than or equal to 1"),
        set("partitions too small", "/placement/partitions/0/max", json!(1), ROOM),
        at("a partition twice", "name", json!("west"), "Duplicate value"),
        at("a partition with a space", "name", json!("a b"), "`name` must be a DNS label"),
        set("less than no room", "/placement/partitions/1/max", json!(-1), "greater than or equal to 0"),
        at(
            "a label with a space",
            "nodeSelector/bare",
            json!("a b"),
            "`nodeSelector` must hold labels of nodes",
        ),
        at(
            "a label without a name",
            "nodeSelector",
            json!({ "": "a" }),
            "`nodeSelector` must hold labels of nodes",
        ),
        at("a zone without a name", "zone", json!(""), "`zone` must be a value of the nodes' label"),
        at("a taint with a space", "tolerations/0/key", json!("a b"), "`key` of a toleration must be"),
        at("a taint without a name", "tolerations/0/key", json!(""), "`key` of a toleration must be"),
        at(
            "a taint's value with a space",
            "tolerations/0/value",
            json!("a b"),
            "`value` of a toleration must be",
        ),
        at("a comparison that is none", "tolerations/0/operator", json!("In"), "supported values: \"Equal\""),
        at(
            "a time for what has none",
            "tolerations/0/tolerationSeconds",
            json!(60),
            "`effect` must be `NoExecute`",
        ),
        at("a zone with a space", "zone", json!("a b"), "`zone` must be a value of the nodes' label"),
        at(
            "a toleration of nothing",
            "tolerations/-",
            json!({}),
            "`operator` of a toleration must be `Exists`",
        ),
        at(
            "a toleration of any value",
            "tolerations/1/value",
            json!("a"),
            "`value` of a toleration must be left out",
        ),
        at(
            "an effect that is none",
            "tolerations/0/effect",
            json!("Never"),
            "supported values: \"NoSchedule\"",
        ),
        set(
            "an algorithm that is none",
            "/placement/algorithm",
            json!("Random"),
            "supported values: \"RoundRobin\"",
        ),
        set(
            "a type of Service that is none",
            "/loadBalancer/serviceType",
            json!("ExternalName"),
            "supported values",
        ),
        set("another affinity", "/loadBalancer/sessionAffinity", json!("Cookie"), "\"None\", \"ClientIP\""),
        set("no member may be missing", "/update/maxUnavailable", json!(0), UNAVAILABLE),
        set("no share may be missing", "/update/maxUnavailable", json!("0%"), UNAVAILABLE),
        set("a share of nonsense", "/update/maxUnavailable", json!("half"), UNAVAILABLE),
        set("more than all", "/update/maxUnavailable", json!("101%"), UNAVAILABLE),
        set("an import twice", "/imports/-", json!({ "name": "mysql", "cluster": "a" }), "Duplicate value"),
        set("an import with a space", "/imports/0/name", json!("my sql"), "`name` must begin with a letter"),
        set("an import without a name", "/imports/0/name", json!(""), "`name` must begin with a letter"),
        set("a cluster with a dot", "/imports/0/cluster", json!("a.b"), "`cluster` must be a DNS label"),
        set("a node lost before it is", "/nodeLossSeconds", json!(-1), "greater than or equal to 0"),
    ]
}

fn instances() -> Vec<Row> {
    let set = |name, path: &str, value, says| set(name, good::instance(), path, value, says);
    vec![
        set("no cartridge", "/cartridge", Value::Null, "Required value"),
        set("a cartridge with a dot", "/cartridge/name", json!("a.b"), "`name` must be a DNS label"),
        set(
            "a namespace with a dot",
            "/cartridge/namespace",
            json!("a.b"),
            "`namespace` must be a DNS label",
        ),
        set("a cluster with a dot", "/cluster", json!("a.b"), "`cluster` must be a DNS label"),
        set("a partition with a dot", "/partition", json!("a.b"), "`partition` must be a DNS label"),
        set(
            "a partition of no cluster",
            "/cluster",
            Value::Null,
            "`partition` must be left out, or `cluster` must be",
        ),
        set(
            "a revision with a space",
            "/revision",
            json!("a b"),
            "`revision` must be the name of a ControllerRevision",
        ),
        set("a wish that nobody knows", "/desired", json!("Running"), "supported values: \"Started\""),
        set("values that are no object", "/values", json!([1]), "must be of type object"),
    ]
}

/// What is immutable.
fn changes() -> Vec<Row> {
    const CARTRIDGE: &str = "`cartridge` must stay as it is";
    const CLUSTER: &str = "`cluster` must stay as it is: the instance must be recreated";
    let mut alone = good::instance();
    alone["spec"].as_object_mut().unwrap().retain(|field, _| field != "cluster" && field != "partition");
    let without_cluster = alone["spec"].clone();
    let mut rows = vec![
        set("another cartridge", good::cluster(), "/cartridge/name", json!("other"), CARTRIDGE),
        set("another namespace", good::cluster(), "/cartridge/namespace", Value::Null, CARTRIDGE),
        set("another cartridge", good::instance(), "/cartridge/name", json!("other"), CARTRIDGE),
        set("another cluster", good::instance(), "/cluster", json!("other"), CLUSTER),
        row("out of a cluster", good::instance(), |bad| bad["spec"] = without_cluster, CLUSTER),
        set("into a cluster", alone, "/cluster", json!("tomcat"), CLUSTER),
    ];
    for row in &mut rows {
        row.of_change = true;
    }
    rows
}
