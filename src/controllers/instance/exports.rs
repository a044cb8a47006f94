//! What an Instance exports: pure.

use std::collections::BTreeMap;

use crate::api::cartridge::CartridgeSpec;
use crate::api::cartridge::exchange::{Address, Export, Exported};
use crate::api::container::KeyRef;

/// What an Instance exports when it does, and what it cannot, in words.
///
/// `keys` says of each secret export whether the key is there; none is missing from it.
#[must_use]
pub fn exports(
    cartridge: &CartridgeSpec,
    address: Option<&str>,
    keys: &BTreeMap<(String, String), bool>,
) -> (Vec<Exported>, Vec<String>) {
    let (mut exports, mut lacks) = (vec![], vec![]);
    for export in &cartridge.exports {
        match value(export, cartridge, address, keys) {
            Ok(exported) => exports.push(exported),
            Err(Some(why)) => lacks.push(why),
            Err(None) => {}
        }
    }
    (exports, lacks)
}

/// One export; none, without a word, where it will come by itself.
fn value(
    export: &Export,
    cartridge: &CartridgeSpec,
    address: Option<&str>,
    keys: &BTreeMap<(String, String), bool>,
) -> Result<Exported, Option<String>> {
    let exported = |value: Option<String>, secret_key_ref: Option<KeyRef>| Exported {
        name: export.name.clone(),
        value,
        secret_key_ref,
    };
    if let Some(value) = &export.value {
        return Ok(exported(Some(value.clone()), None));
    }
    if export.address == Some(Address::PodIp) {
        return address.map(|ip| exported(Some(ip.to_owned()), None)).ok_or(None);
    }
    if let Some(name) = &export.port {
        let port = cartridge.ports.iter().find(|port| port.name == *name);
        return port.map(|port| exported(Some(port.port.to_string()), None)).ok_or(None);
    }
    let Some(key) = &export.secret_key_ref else { return Err(None) };
    if keys.get(&(key.name.clone(), key.key.clone())).copied().unwrap_or_default() {
        return Ok(exported(None, Some(key.clone())));
    }
    let (name, secret, key) = (&export.name, &key.name, &key.key);
    Err(Some(format!("export '{name}' is missing: the Secret '{secret}' has no key '{key}'; create it")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_export_is_its_value_and_a_secret_one_is_its_place() {
        let cartridge: CartridgeSpec = serde_json::from_value(json!({
            "image": "mysql:8", "ports": [{"name": "db", "port": 3306}],
            "exports": [
                {"name": "ip", "address": "PodIP"}, {"name": "port", "port": "db"}, {"name": "user", "value": "shop"},
                {"name": "password", "secretKeyRef": {"name": "mysql", "key": "password"}},
                {"name": "root", "secretKeyRef": {"name": "mysql", "key": "root"}},
            ],
        }))
        .unwrap();
        let keys =
            [(("mysql".into(), "password".into()), true), (("mysql".into(), "root".into()), false)].into();
        let plain = |name: &str, value: &str| Exported {
            name: name.into(),
            value: Some(value.into()),
            secret_key_ref: None,
        };
        let key = KeyRef { name: "mysql".into(), key: "password".into() };
        let secret = Exported { name: "password".into(), value: None, secret_key_ref: Some(key) };
        let (found, lacks) = exports(&cartridge, Some("10.1.0.7"), &keys);
        assert_eq!(
            found,
            [plain("ip", "10.1.0.7"), plain("port", "3306"), plain("user", "shop"), secret.clone()]
        );
        assert_eq!(lacks, ["export 'root' is missing: the Secret 'mysql' has no key 'root'; create it"]);
        let (found, lacks) = exports(&cartridge, None, &keys);
        assert_eq!(found, [plain("port", "3306"), plain("user", "shop"), secret]);
        assert_eq!(lacks.len(), 1, "an address comes by itself");
    }
}
