//! What an Instance runs or holds: the revision that its Cluster names, or its cartridge as it is now.

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;

use crate::api::instance::Instance;
use crate::api::name::Parent;
use crate::api::revision::Revision;
use crate::controllers::subscription;

use super::Context;
use super::build::Identity;
use super::snapshot::Source;

/// What an Instance runs or holds.
#[must_use]
pub fn source(instance: &Instance, identity: &Identity, context: &Context) -> Source {
    if let Some(name) = &instance.spec.revision {
        return stored(identity, name, context).unwrap_or_else(|| {
            Source::Missing(format!(
                "the ControllerRevision '{name}' that it should run is missing or unreadable"
            ))
        });
    }
    match subscription::live(
        &instance.spec.cartridge,
        identity.namespace.as_str(),
        &context.caches.cartridges,
    ) {
        Ok(cartridge) if cartridge.spec.image.is_none() => Source::Record(Arc::new(cartridge.spec.clone())),
        Ok(cartridge) => {
            let revision = Revision { cartridge: cartridge.spec.clone(), ..Revision::default() };
            let name = revision.name(&identity.namespace, Parent::Instance(&identity.name));
            let new = stored(identity, &name, context).is_none();
            Source::Application { name, revision: Arc::new(revision), new }
        }
        // What runs goes on without its cartridge.
        Err(why) => {
            let known = instance.status.as_ref().and_then(|status| status.revision.as_ref());
            known.and_then(|name| stored(identity, name, context)).unwrap_or(Source::Missing(why))
        }
    }
}

fn stored(identity: &Identity, name: &str, context: &Context) -> Option<Source> {
    let stored = context.caches.revisions.get(&ObjectRef::new(name).within(identity.namespace.as_str()))?;
    let revision = Arc::new(Revision::read(&stored)?);
    Some(Source::Application { name: name.to_owned(), revision, new: false })
}
