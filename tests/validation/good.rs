//! Objects that are legal: ordinary ones that use every field, and the largest of each kind.

use serde_json::{Value, json};

/// Sets one value at a path, written as a JSON pointer below `spec`: `-` is behind the last item, and `null` takes the field
/// away.
pub fn put(object: &mut Value, path: &str, value: Value) {
    let Some((parent, last)) = path.rsplit_once('/') else {
        object["spec"] = value;
        return;
    };
    let parent = object["spec"].pointer_mut(parent).unwrap_or_else(|| panic!("{path} is not there"));
    match (parent, value) {
        (Value::Object(fields), Value::Null) => drop(fields.remove(last)),
        (Value::Array(items), value) if last == "-" => items.push(value),
        (parent @ Value::Array(_), value) => parent[last.parse::<usize>().unwrap()] = value,
        (parent, value) => parent[last.replace("~1", "/")] = value,
    }
}

fn named(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "millrace.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// What only its user understands, in all the shapes that JSON has.
fn free() -> Value {
    json!({
        "": "", "b": 1, "a": 0.1, "big": 9_007_199_254_740_993_i64, "text": " 1.0 \n", "list": [null, [], {}, true],
        "x-kubernetes": { "$ref": "#/a", "cpu": "0.1", "Straße": "ä" },
    })
}

pub fn flow() -> Value {
    named(
        "Flow",
        "orders",
        &json!({
            "suspend": false,
            "trigger": { "cron": {
                "schedule": "*/3 * * * *", "timeZone": "Europe/Berlin", "startingDeadlineSeconds": 300,
            } },
            "graph": {
                "nodes": [
                    {
                        "id": "fetch", "image": "registry.example/erp-adapter:1.4", "function": "getOrders",
                        "fields": free(), "credentials": { "secretRef": { "name": "erp" } },
                        "replicas": { "min": 1 }, "retry": { "limit": 8, "backoff": "1s", "maxBackoff": "1m" }, "timeout": "90s",
                        "port": 8080,
                        "env": [
                            { "name": "LOG_LEVEL", "value": "debug" },
                            { "name": "EMPTY" },
                            { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "erp", "key": "token" } } },
                            { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                        ],
                        "resources": { "requests": { "cpu": "0.1", "memory": "64Mi" }, "limits": { "cpu": 1 } },
                        "imagePullSecrets": [{ "name": "registry" }],
                        "serviceAccountName": "erp-adapter",
                        "podTemplate": free(),
                    },
                    { "id": "map", "builtin": "transform", "fields": { "jq": "." }, "timeout": "500ms" },
                    { "id": "store", "builtin": "http", "credentials": { "secretRef": { "name": "shop" } } },
                ],
                "edges": [
                    { "source": "fetch", "target": "map" },
                    { "source": "map", "target": "store", "condition": free(), "transform": { "jq": "." } },
                ],
            },
            "progressDeadlineSeconds": 600,
            "drainSeconds": 300,
        }),
    )
}

/// The same with a webhook.
pub fn hooked_flow() -> Value {
    let mut flow = flow();
    flow["spec"]["trigger"] = json!({ "webhook": { "methods": ["GET", "POST"], "maxBodyBytes": 1_048_576 } });
    flow
}

pub fn cartridge() -> Value {
    named(
        "Cartridge",
        "tomcat",
        &json!({
            "image": "tomcat:10.1",
            "command": ["catalina.sh"],
            "args": ["run"],
            "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "tomcat", "key": "a" } } }],
            "ports": [
                { "name": "http", "port": 8080 },
                { "name": "dns", "port": 53, "protocol": "TCP" },
                { "name": "dns-udp", "port": 53, "protocol": "UDP" },
            ],
            "resources": { "limits": { "memory": "1Gi" } },
            "probes": {
                "startup": { "tcpSocket": { "port": 8080 }, "failureThreshold": 30 },
                "liveness": { "exec": { "command": ["true"] }, "periodSeconds": 5, "timeoutSeconds": 2 },
                "readiness": {
                    "httpGet": { "path": "/healthz", "port": 8080 }, "initialDelaySeconds": 1, "successThreshold": 1,
                },
            },
            "podTemplate": free(),
            "exports": [
                { "name": "ip", "address": "PodIP" },
                { "name": "port", "port": "http" },
                { "name": "user", "value": "shop" },
                { "name": "password", "secretKeyRef": { "name": "tomcat", "key": "password" } },
            ],
            "imports": [
                { "name": "mysql", "cartridge": "mysql", "variables": ["ip", "port"] },
                { "name": "mysql-replica", "cartridge": "mysql", "variables": ["ip"], "optional": true },
                { "name": "peers", "cartridge": "tomcat", "optional": true },
            ],
            "values": free(),
            "lifecycle": {
                "start": { "exec": { "command": ["true"] } },
                "update": { "httpGet": { "path": "/reload", "port": 8080 } },
                "stop": { "exec": { "command": ["true"] } },
            },
            "allowedNamespaces": ["shop", "crm"],
        }),
    )
}

/// A type of record, which has no image.
pub fn record_type() -> Value {
    let spec = json!({
        "values": { "type": "object" }, "exports": [{ "name": "realm", "value": "eu" }], "allowedNamespaces": ["*"],
    });
    named("Cartridge", "cpe", &spec)
}

pub fn cluster() -> Value {
    named(
        "Cluster",
        "tomcat",
        &json!({
            "cartridge": { "name": "tomcat", "namespace": "catalogue" },
            "values": free(),
            "replicas": 2,
            "instances": { "min": 2, "max": 6 },
            "placement": {
                "algorithm": "OneAfterAnother",
                "partitions": [
                    {
                        "name": "east", "max": 3, "zone": "eu-west-1a",
                        "nodeSelector": { "example.com/disk": "ssd", "bare": "" },
                        "tolerations": [
                            { "key": "dedicated", "operator": "Equal", "value": "shop", "effect": "NoSchedule" },
                            { "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60 },
                        ],
                    },
                    { "name": "west", "max": 0 },
                ],
            },
            "loadBalancer": { "serviceType": "NodePort", "sessionAffinity": "ClientIP", "drainSeconds": 10 },
            "imports": [{ "name": "mysql", "cluster": "orders-db" }],
            "update": { "maxUnavailable": "25%" },
            "nodeLossSeconds": 60,
        }),
    )
}

pub fn instance() -> Value {
    named(
        "Instance",
        "tomcat-0",
        &json!({
            "cartridge": { "name": "tomcat", "namespace": "catalogue" },
            "cluster": "tomcat",
            "partition": "east",
            "revision": "tomcat-5d4f8c7b9",
            "values": free(),
            "desired": "Maintenance",
        }),
    )
}

/// A name of exactly this length that ends in a number.
fn long(length: usize, number: usize) -> String {
    let number = number.to_string();
    format!("{}{number}", "a".repeat(length - number.len()))
}

fn list(length: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..length).map(item).collect()
}

/// A map with this many entries of its user's.
fn fill(entries: usize) -> Value {
    (0..entries).map(|number| (long(20, number), json!("value"))).collect::<serde_json::Map<_, _>>().into()
}

fn long_env(length: usize) -> Value {
    list(length, |number| json!({ "name": long(63, number) }))
}

/// The values of environment variables and what is kept as it is are short here: all at their longest
/// together would not fit into etcd's 1.5 MiB, and no rule reads them.
pub fn largest_flow() -> Value {
    let node = |number| {
        json!({
            "id": long(40, number), "image": long(512, number), "function": long(128, number), "fields": fill(2),
            "credentials": { "secretRef": { "name": long(253, number) } }, "replicas": { "min": 1000 },
            "retry": { "limit": 100, "backoff": "00001h0001m00001s00999ms" }, "timeout": "23h59m59s999ms",
            "port": 65535, "env": long_env(32),
            "imagePullSecrets": list(4, |number| json!({ "name": long(253, number) })),
            "serviceAccountName": long(253, number),
            "resources": { "limits": { "cpu": "1234567890123456789012345678901m" } },
        })
    };
    // A chain through all nodes, and as many shortcuts as fit.
    let edges = (0..99).map(|from| (from, from + 1)).chain((0..98).map(|from| (from, from + 2)));
    let edges = edges.chain((0..3).map(|from| (from, from + 3)));
    let edge = |(from, to)| {
        json!({
            "source": long(40, from), "target": long(40, to), "transform": { "jq": long(2048, 0) },
        })
    };
    let graph = json!({ "nodes": list(100, node), "edges": edges.map(edge).collect::<Value>() });
    let schedule = format!("{} * * * * *", vec!["59"; 82].join(","));
    let cron = json!({
        "schedule": schedule, "timeZone": format!("America/{}", "A".repeat(56)), "startingDeadlineSeconds": 604_800,
    });
    let spec = json!({
        "trigger": { "cron": cron }, "graph": graph, "progressDeadlineSeconds": 86_400, "drainSeconds": 86_400,
    });
    named("Flow", &long(52, 0), &spec)
}

pub fn largest_cartridge() -> Value {
    let hook = json!({ "exec": { "command": list(64, |number| json!(long(1024, number))) } });
    let spec = json!({
        "image": long(512, 0),
        "command": list(64, |number| json!(long(1024, number))),
        "args": list(64, |number| json!(long(1024, number))),
        "env": list(64, |number| json!({
            "name": long(63, number),
            "valueFrom": { "secretKeyRef": { "name": long(253, number), "key": long(253, number) } },
        })),
        "ports": list(16, |number| json!({ "name": long(15, number), "port": 65535 - number, "protocol": "SCTP" })),
        "exports": list(32, |number| json!({ "name": long(63, number), "port": long(15, number % 16) })),
        // One name begins with the other, and their variables too: the dearest case for the rule on
        // collisions.
        "imports": list(16, |import| json!({
            "name": format!("a{}", "-a".repeat(4 + import)), "cartridge": long(52, import), "optional": true,
            "variables": list(16, |number| json!(format!("b{}", long(62, number)))),
        })),
        "values": fill(100),
        "lifecycle": { "start": hook, "update": hook, "stop": hook },
        "allowedNamespaces": list(256, |number| json!(long(63, number))),
    });
    named("Cartridge", &long(52, 0), &spec)
}

pub fn largest_cluster() -> Value {
    let labels: serde_json::Map<_, _> = (0..16)
        .map(|number| (format!("{}/{}", "a".repeat(253), long(63, number)), json!(long(63, 0))))
        .collect();
    let partition = |number| {
        json!({
            "name": long(63, number), "max": 10_000, "nodeSelector": labels, "zone": long(63, number),
            "tolerations": list(16, |number| json!({ "key": format!("{}/{}", long(253, 0), long(63, number)), "value": long(63, number) })),
        })
    };
    let spec = json!({
        "cartridge": { "name": long(52, 0), "namespace": long(63, 0) },
        "values": fill(100),
        "replicas": i32::MAX,
        "instances": { "min": 10_000, "max": 10_000 },
        "placement": { "partitions": list(32, partition) },
        "imports": list(16, |number| json!({ "name": long(40, number), "cluster": long(40, number) })),
        "update": { "maxUnavailable": "100%" },
    });
    named("Cluster", &long(40, 0), &spec)
}

pub fn largest_instance() -> Value {
    let spec = json!({
        "cartridge": { "name": long(52, 0), "namespace": long(63, 0) },
        "cluster": long(40, 0),
        "partition": long(63, 0),
        "revision": long(253, 0),
        "values": fill(100),
        "desired": "NotDeployed",
    });
    named("Instance", &long(52, 0), &spec)
}

/// The status of an object that is as it should be, with every field.
pub fn status(kind: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    let condition = |name: &str| {
        json!({
            "type": name, "status": "True", "observedGeneration": 1, "lastTransitionTime": time,
            "reason": "Active", "message": "All is as it should be.",
        })
    };
    let mut status = json!({
        "observedGeneration": 1,
        "phase": "Active",
        "conditions": [condition("Ready"), condition("Accepted")],
        "transitions": {
            "counter": 12,
            "recent": list(8, |number| json!({ "counter": number + 5, "event": "FlowActive", "time": time })),
        },
    });
    let more = match kind {
        "Flow" => json!({ "armedTrigger": "a".repeat(64), "entry": "a".repeat(40) }),
        "Cartridge" => json!({
            "users": 21,
            "usedBy": list(20, |number| json!({
                "kind": "Cluster", "namespace": "shop", "name": format!("tomcat-{number}"),
            })),
        }),
        "Cluster" => json!({
            "replicas": 2, "selector": "millrace.dev/cluster=tomcat", "activeReplicas": 2, "updatedReplicas": 1,
            "currentRevision": "tomcat-5d4f8c7b9", "firstActiveTime": time, "subscriptionSecret": "tomcat-key",
        }),
        _ => json!({
            "phase": "NotDeployed",
            "imports": [{ "name": "mysql", "cluster": "orders-db", "members": 1 }, { "name": "peers" }],
            "exports": [
                { "name": "ip", "value": "10.244.0.7" },
                { "name": "password", "secretKeyRef": { "name": "tomcat", "key": "password" } },
            ],
            "pod": "tomcat-0-abcde", "node": "node-1", "addresses": ["10.244.0.7", "fd00::7"],
            "revision": "tomcat-5d4f8c7b9",
        }),
    };
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    status
}
