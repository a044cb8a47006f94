//! Who may do what at the broker: an account of our own, and in it one user for each node of a Flow, each runner, the gateways
//! and the operator. The server needs to know the account only; a user is whoever holds a token that the account has signed.

use std::collections::BTreeSet;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use hmac::{Hmac, Mac};
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::subject;
use crate::api::name::{FlowName, InstanceName, NamespaceName, NodeId};

/// What an install needs once; all of it is secret but the text for the server.
#[derive(Clone)]
pub struct Foundation {
    /// The part of the server's configuration that names the accounts.
    pub server: String,
    /// The account's seed: whoever has it can make users.
    pub account: String,
    /// The operator's credentials.
    pub operator: String,
    /// The gateways' credentials.
    pub gateway: String,
}

/// A key cannot be read or cannot sign.
#[derive(Debug, Error)]
#[error("the key of the broker's account cannot be used: {0}")]
pub struct KeyError(#[from] nkeys::error::Error);

/// Makes credentials.
pub struct Issuer {
    /// None where the broker asks for none.
    account: Option<KeyPair>,
}

/// What a user may publish to and subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rights {
    publish: BTreeSet<String>,
    subscribe: BTreeSet<String>,
}

impl Foundation {
    /// New keys and accounts. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// A key cannot sign.
    pub fn new(now: i64) -> Result<Self, KeyError> {
        let (operator, account, system) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1});
        let mut storing = unlimited.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            storing[limit] = json!(-1);
        }
        let root = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
        let root = token(&operator, &operator.public_key(), "millrace", &root, now)?;
        let of = |account: &KeyPair, name: &str, limits: &Value| {
            let claims = json!({"type": "account", "version": 2, "limits": limits});
            token(&operator, &account.public_key(), name, &claims, now)
        };
        let (millrace, sys) = (of(&account, "MILLRACE", &storing)?, of(&system, "SYS", &unlimited)?);
        let server = format!(
            "operator: {root}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {millrace}\n  {}: \
             {sys}\n}}\n",
            system.public_key(),
            account.public_key(),
            system.public_key(),
        );
        let everything = Rights { publish: [">".into()].into(), subscribe: [">".into()].into() };
        Ok(Self {
            server,
            account: account.seed()?,
            operator: user(&account, &KeyPair::new_user(), "operator", &everything, now)?,
            gateway: user(&account, &KeyPair::new_user(), "gateway", &of_gateway(), now)?,
        })
    }
}

impl Issuer {
    /// One that makes nothing: the broker asks for no credentials, or for those of somebody else.
    #[must_use]
    pub const fn none() -> Self {
        Self { account: None }
    }

    /// In the name of the account whose seed this is.
    ///
    /// # Errors
    /// It is no seed.
    pub fn new(seed: &str) -> Result<Self, KeyError> {
        Ok(Self { account: Some(KeyPair::from_seed(seed.trim())?) })
    }

    /// The credentials of the pods of one node of a Flow, good for its queue; empty where the broker asks for none. `made` is
    /// when the Flow was, in seconds since 1970: what is given twice is the same.
    ///
    /// Each node has its own: a client says its rights in one line of at most 4 KiB, which a dozen nodes' would not fit into.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn node(
        &self,
        namespace: &NamespaceName,
        flow: &FlowName,
        uid: &str,
        node: &NodeId,
        made: i64,
    ) -> Result<String, KeyError> {
        let Some(account) = &self.account else { return Ok(String::new()) };
        let name = format!("flow.{namespace}.{flow}.{node}");
        let key = key_of(account, &format!("{name}/{uid}"))?;
        user(account, &key, &name, &of_node(namespace, flow, node), made)
    }

    /// The credentials of the agent of an Instance; empty where the broker asks for none. `made` is when the Instance was, in
    /// seconds since 1970.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn instance(
        &self,
        namespace: &NamespaceName,
        instance: &InstanceName,
        uid: &str,
        made: i64,
    ) -> Result<String, KeyError> {
        let Some(account) = &self.account else { return Ok(String::new()) };
        let name = format!("instance.{namespace}.{instance}");
        let key = key_of(account, &format!("{name}/{uid}"))?;
        user(account, &key, &name, &of_instance(namespace, instance), made)
    }

    /// The credentials of the runner of a namespace; empty where the broker asks for none. `made` is when the namespace was.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn runner(&self, namespace: &NamespaceName, made: i64) -> Result<String, KeyError> {
        let Some(account) = &self.account else { return Ok(String::new()) };
        let name = format!("runner.{namespace}");
        let key = key_of(account, &format!("{name}/{made}"))?;
        user(account, &key, &name, &of_runner(namespace), made)
    }
}

fn of_gateway() -> Rights {
    Rights {
        publish: ["millrace.flow.>".into(), subject::ALL_GATEWAYS.into()].into(),
        subscribe: ["_IB.gateway.>".into()].into(),
    }
}

fn of_node(namespace: &NamespaceName, flow: &FlowName, node: &NodeId) -> Rights {
    let (stream, durable) = (subject::stream(namespace), subject::durable(flow, node));
    let publish = [
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
        format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"),
        format!("$JS.ACK.{stream}.{durable}.>"),
        format!("{}*", subject::node_prefix(namespace, flow)),
        subject::dead_letter(namespace, flow, node),
    ];
    Rights { publish: publish.into(), subscribe: [format!("_IB.{namespace}.{flow}.>")].into() }
}

/// It reads its own key of the one bucket, and writes its own of the other.
fn of_instance(namespace: &NamespaceName, instance: &InstanceName) -> Rights {
    let key = subject::instance_key(namespace, instance);
    Rights {
        publish: [
            format!("$JS.API.DIRECT.GET.KV_desired.{}", subject::written(subject::DESIRED, &key)),
            subject::written(subject::OBSERVED, &key),
        ]
        .into(),
        subscribe: [
            format!("{}.>", subject::instance_inbox(namespace, instance)),
            subject::stored(subject::DESIRED, &key),
        ]
        .into(),
    }
}

fn of_runner(namespace: &NamespaceName) -> Rights {
    let stream = subject::stream(namespace);
    let keys = subject::all_flow_keys(namespace);
    Rights {
        publish: [
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
            format!("$JS.API.CONSUMER.INFO.{stream}.*"),
            format!("$JS.ACK.{stream}.>"),
            subject::all_nodes(namespace),
            format!("millrace.dead.{namespace}.>"),
            "$JS.API.DIRECT.GET.KV_desired".into(),
            format!("$JS.API.DIRECT.GET.KV_desired.{}", subject::written(subject::DESIRED, &keys)),
            subject::written(subject::OBSERVED, &keys),
        ]
        .into(),
        subscribe: [format!("_IB.{namespace}.millrace-runner.>"), subject::stored(subject::DESIRED, &keys)]
            .into(),
    }
}

/// The key of a user, from the account's: whoever makes it again makes the same, so that nothing is written twice.
fn key_of(account: &KeyPair, user: &str) -> Result<KeyPair, KeyError> {
    // A key may have any length.
    let mac = Hmac::<Sha256>::new_from_slice(account.seed()?.as_bytes());
    let mac = mac.map(|mac| mac.chain_update(user).finalize().into_bytes());
    Ok(KeyPair::new_from_raw(KeyPairType::User, mac.map(Into::into).unwrap_or_default())?)
}

/// A user: its token and its key, as a credentials file holds them.
fn user(account: &KeyPair, key: &KeyPair, name: &str, rights: &Rights, now: i64) -> Result<String, KeyError> {
    // Without these limits it could connect, and do nothing.
    let claims = json!({
        "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
        "pub": {"allow": rights.publish}, "sub": {"allow": rights.subscribe},
    });
    let token = token(account, &key.public_key(), name, &claims, now)?;
    Ok(format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n\
         ------END USER NKEY SEED------\n",
        key.seed()?
    ))
}

/// A token about `subject`, in the form that the server reads: JSON in two parts, and a signature over both.
fn token(
    issuer: &KeyPair,
    subject: &str,
    name: &str,
    claims: &Value,
    now: i64,
) -> Result<String, nkeys::error::Error> {
    let mut body =
        json!({"iss": issuer.public_key(), "sub": subject, "name": name, "iat": now, "nats": claims});
    // Over all of it: the server takes two tokens with one id for the same.
    let id = BASE32_NOPAD.encode(&Sha256::digest(body.to_string()));
    body["jti"] = json!(id);
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&header), part(&body));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(credentials: &str) -> Value {
        let token = credentials.lines().nth(1).unwrap();
        let parts: Vec<_> = token.split('.').collect();
        serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_node_may_use_its_own_queue_and_give_to_those_of_its_flow() {
        let foundation = Foundation::new(1).unwrap();
        let issuer = Issuer::new(&foundation.account).unwrap();
        let (shop, orders, fetch) =
            ("shop".parse().unwrap(), "orders".parse().unwrap(), "fetch".parse().unwrap());
        let made = issuer.node(&shop, &orders, "u", &fetch, 7).unwrap();
        let again = issuer.node(&shop, &orders, "u", &fetch, 7).unwrap();
        assert_eq!(made, again);
        let claims = claims(&made);
        let account = KeyPair::from_seed(&foundation.account).unwrap().public_key();
        assert_eq!((&claims["iss"], &claims["iat"]), (&json!(account), &json!(7)));
        assert_eq!(
            claims["nats"]["pub"]["allow"],
            json!([
                "$JS.ACK.MR_shop.orders_fetch.>",
                "$JS.API.CONSUMER.INFO.MR_shop.orders_fetch",
                "$JS.API.CONSUMER.MSG.NEXT.MR_shop.orders_fetch",
                "millrace.dead.shop.orders.fetch",
                "millrace.flow.shop.orders.*",
            ])
        );
        assert_eq!(claims["nats"]["sub"]["allow"], json!(["_IB.shop.orders.>"]));
    }

    #[test]
    fn the_longest_names_fit_into_the_line_in_which_a_client_says_its_rights() {
        let issuer = Issuer::new(&Foundation::new(1).unwrap().account).unwrap();
        let (namespace, flow, node) = (
            "n".repeat(63).parse().unwrap(),
            "f".repeat(FlowName::MAX).parse().unwrap(),
            "d".repeat(NodeId::MAX).parse().unwrap(),
        );
        let credentials = issuer.node(&namespace, &flow, &"u".repeat(36), &node, 7).unwrap();
        let token = credentials.lines().nth(1).unwrap();
        // The server's `max_control_line`; the rest of the line is the client's name, signature and options.
        assert!(token.len() < 4096 - 1024, "{}", token.len());
    }

    #[test]
    fn where_the_broker_asks_for_no_credentials_there_are_none() {
        let (shop, orders, fetch) =
            ("shop".parse().unwrap(), "orders".parse().unwrap(), "fetch".parse().unwrap());
        assert_eq!(Issuer::none().node(&shop, &orders, "u", &fetch, 1).unwrap(), "");
        assert_eq!(Issuer::none().runner(&shop, 1).unwrap(), "");
    }
}
