//! Bad objects, each wrong in one way, and what the server must say of it.

use serde_json::{Value, json};

use super::good;

/// A good object, what is made of it, and a part of the message that refuses it.
pub struct Row {
    pub name: &'static str,
    pub base: Value,
    pub bad: Value,
    pub says: &'static str,
}

fn row(name: &'static str, base: Value, change: impl FnOnce(&mut Value), says: &'static str) -> Row {
    let mut bad = base.clone();
    change(&mut bad);
    Row { name, base, bad, says }
}

/// A row whose change is one value at a path, written as a JSON pointer below `spec`. `null` takes the field
/// away.
fn set(name: &'static str, base: Value, path: &str, value: Value, says: &'static str) -> Row {
    let change = |bad: &mut Value| {
        let (parent, last) = path.rsplit_once('/').unwrap();
        let parent = bad["spec"].pointer_mut(parent).unwrap_or_else(|| panic!("{name}: {path} is not there"));
        match (parent, value) {
            (Value::Object(fields), Value::Null) => drop(fields.remove(last)),
            (Value::Array(items), value) if last == "-" => items.push(value),
            (parent @ Value::Array(_), value) => parent[last.parse::<usize>().unwrap()] = value,
            (parent, value) => parent[last] = value,
        }
    };
    row(name, base, change, says)
}

pub fn rows() -> Vec<Row> {
    [
        names(),
        triggers(),
        graphs(),
        nodes(),
        containers(),
        cartridges(),
        exchange(),
        hooks(),
        clusters(),
        instances(),
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
    const ZONE: &str = "put the time zone into `timeZone`";
    const IANA: &str = "`timeZone` must be `UTC` or a name of the IANA database";
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
        schedule("a nickname that nobody knows", "@midnight", FIELDS),
        schedule("a zone in the schedule", "TZ=Europe/Berlin * * * * *", ZONE),
        schedule("a zone in the schedule, by its other name", "CRON_TZ=UTC * * * * *", ZONE),
        schedule("an empty schedule", "", FIELDS),
        zone("the server's own zone", "Local"),
        zone("a zone by its offset", "+02:00"),
        zone("a zone that leaves its folder", "../etc/localtime"),
        zone("a lower-case zone", "europe/berlin"),
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
    let secret = json!([{ "name": "a" }]);
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
        image(
            "an image with a space",
            "image",
            json!("a b"),
            "`image` must be an image reference without spaces",
        ),
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
        image("a time-out as a number", "timeout", json!("30"), "a duration must be numbers with units"),
        image("a time-out in days", "timeout", json!("1d"), "a duration must be numbers with units"),
        image("a time-out with a point", "timeout", json!("1.5s"), "a duration must be numbers with units"),
        image("no time at all", "timeout", json!("0s"), "a duration must be more than zero and at most 24h"),
        image(
            "more than a day",
            "timeout",
            json!("24h1ms"),
            "a duration must be more than zero and at most 24h",
        ),
        image("a backoff of nothing", "retry/backoff", json!("0ms"), "a duration must be more than zero"),
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

fn containers() -> Vec<Row> {
    const ENV: &str = "an environment variable must have `value` or `valueFrom`, and not both";
    const SOURCE: &str = "`valueFrom` must have exactly one of";
    const QUANTITY: &str = "a resource must be a quantity such as";
    const PROBE: &str = "a probe must have exactly one of";
    let flow = |name, field: &str, value, says| {
        set(name, good::flow(), &format!("/graph/nodes/0/{field}"), value, says)
    };
    let probe = |name, field: &str, value, says| {
        set(name, good::cartridge(), &format!("/probes/{field}"), value, says)
    };
    let field = json!({ "fieldPath": "metadata.name" });
    vec![
        flow(
            "a variable with a space",
            "env/0/name",
            json!("A B"),
            "`name` of an environment variable must begin",
        ),
        flow(
            "a variable that begins with a digit",
            "env/0/name",
            json!("1A"),
            "`name` of an environment variable",
        ),
        flow("a variable twice", "env/0/name", json!("POD"), "Duplicate value"),
        flow("a value and a source", "env/2/value", json!("a"), ENV),
        flow("a source of nothing", "env/2/valueFrom", json!({}), SOURCE),
        flow("two sources", "env/2/valueFrom/fieldRef", field, SOURCE),
        flow(
            "a Secret with a bad name",
            "env/2/valueFrom/secretKeyRef/name",
            json!("_"),
            "a Secret or ConfigMap",
        ),
        flow(
            "a key with a slash",
            "env/2/valueFrom/secretKeyRef/key",
            json!("a/b"),
            "`key` must hold only letters",
        ),
        flow("an amount of nonsense", "resources/requests/cpu", json!("much"), QUANTITY),
        flow("an amount with a space", "resources/requests/memory", json!("64 Mi"), QUANTITY),
        probe("a probe of nothing", "startup", json!({}), PROBE),
        probe("a probe of two kinds", "startup/exec", json!({ "command": ["true"] }), PROBE),
        probe("a relative path", "readiness/httpGet/path", json!("healthz"), "`path` must begin with `/`"),
        probe("a check all the time", "liveness/periodSeconds", json!(0), "greater than or equal to 1"),
        probe("an empty command", "liveness/exec/command", json!([]), "should have at least 1 items"),
    ]
}

fn cartridges() -> Vec<Row> {
    const TWICE: &str = "`ports` must differ in `port` or `protocol`";
    const PORT: &str = "`name` of a port must be lower-case letters";
    let cartridge = |name, path: &str, value, says| set(name, good::cartridge(), path, value, says);
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
        cartridge("an image with a space", "/image", json!("a b"), "`image` must be an image reference"),
        cartridge(
            "a pattern of namespaces",
            "/allowedNamespaces/0",
            json!("shop-*"),
            "must hold names of namespaces",
        ),
        cartridge("all namespaces and one", "/allowedNamespaces/-", json!("*"), "must be `*` alone"),
        cartridge("a namespace twice", "/allowedNamespaces/-", json!("shop"), "Duplicate value"),
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

fn hooks() -> Vec<Row> {
    const ONE: &str = "a hook must have exactly one of `exec` and `httpGet`";
    const COMMAND: &str = "`lifecycle` must use `httpGet`, or `command` must be given";
    // Without a command, with one hook of each kind.
    let only = |name, hook: &str| {
        let mut base = good::cartridge();
        base["spec"]["lifecycle"] = json!({ hook: { "exec": { "command": ["true"] } } });
        set(name, base, "/command", Value::Null, COMMAND)
    };
    vec![
        set("a hook of nothing", good::cartridge(), "/lifecycle/start", json!({}), ONE),
        set("a hook of two kinds", good::cartridge(), "/lifecycle/start/httpGet", json!({ "port": 80 }), ONE),
        only("a start hook without a command", "start"),
        only("an update hook without a command", "update"),
        only("a stop hook without a command", "stop"),
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
        set("a cluster with a dot", "/imports/0/cluster", json!("a.b"), "`cluster` must be a DNS label"),
        set("a node lost before it is", "/nodeLossSeconds", json!(-1), "greater than or equal to 0"),
    ]
}

fn instances() -> Vec<Row> {
    let set = |name, path: &str, value, says| set(name, good::instance(), path, value, says);
    vec![
        set("no cartridge", "/cartridge", Value::Null, "Required value"),
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
