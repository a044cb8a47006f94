//! The cartridge that a Cluster or an Instance is of, where it may be used.

use std::sync::Arc;

use kube::Resource as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::cartridge::Cartridge;
use crate::api::cluster::CartridgeRef;
use crate::api::condition::{ConditionType, find};

/// The cartridge as it is, for a user in the namespace `own`; or what to do, in words. One that is not allowed reads the same as
/// one that does not exist: what is in other namespaces is nobody's business.
///
/// # Errors
/// It cannot be used.
pub fn live(of: &CartridgeRef, own: &str, cartridges: &Store<Cartridge>) -> Result<Arc<Cartridge>, String> {
    let namespace = of.namespace.as_deref().unwrap_or(own);
    let name = &of.name;
    let found = cartridges.get(&ObjectRef::new(name).within(namespace));
    let allowed = |cartridge: &Cartridge| {
        let listed = &cartridge.spec.allowed_namespaces;
        namespace == own || listed.iter().any(|allowed| allowed == own || allowed == "*")
    };
    let Some(cartridge) = found.filter(|cartridge| allowed(cartridge)) else {
        return Err(if namespace == own {
            format!("there is no Cartridge '{name}': create it")
        } else {
            format!(
                "there is no Cartridge '{name}' in namespace '{namespace}' that may be used here: create it, or list '{own}' in \
                 its `allowedNamespaces`"
            )
        });
    };
    let conditions = cartridge.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let accepted = find(conditions, ConditionType::Accepted)
        .filter(|accepted| accepted.observed_generation == cartridge.meta().generation);
    match accepted {
        Some(accepted) if accepted.status == "True" => Ok(cartridge),
        Some(refused) => Err(format!("the Cartridge '{name}' is not accepted: {}", refused.message)),
        None => Err(format!("the Cartridge '{name}' was not looked at yet")),
    }
}
