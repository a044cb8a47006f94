//! The controller of Cartridges: whether one can be used, and by whom it is.
//!
//! ```text
//!   validate   a spec that can be acted on        users   who uses which cartridge
//!   plan       what to say, pure
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::{Resource as _, ResourceExt as _};

use crate::api::cartridge::Cartridge;
use crate::api::name::CartridgeName;
use crate::api::transition::Event;
use crate::broker::event_log::Told;
use crate::clock;
use crate::runtime::{Failure, Next, Note, WriteError, Writer};

use super::flow;
use super::flow::observe::GLANCE;
use super::schemas::Schemas;

pub mod plan;
pub mod users;
pub mod validate;

pub use users::Users;

/// Fields that the controller of Cartridges writes are its own.
pub const MANAGER: &str = "millrace-cartridge";

/// How often the users of a cartridge are written at most: many may come at once.
const PACE: Duration = Duration::from_secs(2);

/// What the controller works with, beside what that of Flows does.
pub struct Context {
    /// What that of Flows works with.
    pub flows: Arc<flow::Context>,
    /// Who uses which cartridge.
    pub users: Arc<Users>,
    /// The JSON schemas of cartridges, ready for use.
    pub schemas: Arc<Schemas>,
    /// Writes to the Kubernetes API.
    pub writer: Writer,
    /// By uid, when the status was last written.
    pub written: Mutex<HashMap<String, Instant>>,
}

/// Looks at one Cartridge, and says what is to be said of it.
///
/// # Errors
/// Something could not be written: it is tried again.
pub async fn reconcile(cartridge: Arc<Cartridge>, context: Arc<Context>) -> Result<Next, Failure> {
    let (Some(namespace), Some(uid)) = (cartridge.namespace(), cartridge.uid()) else {
        return Ok(Next::Settled);
    };
    let name = cartridge.name_any();
    if cartridge.meta().deletion_timestamp.is_some() {
        return Ok(Next::Settled);
    }
    if context.writer.is_ahead_of::<Cartridge>(&namespace, &name, Some(cartridge.meta())) {
        return Ok(Next::After(GLANCE));
    }
    if let (Ok(namespace), Ok(_)) = (namespace.parse(), name.parse::<CartridgeName>()) {
        let transitions = cartridge.status.as_ref().and_then(|status| status.transitions.clone());
        context.flows.log.tell(Told::of(&*cartridge, &namespace, transitions));
    }
    let refused = validate::validate(&cartridge.spec, &context.schemas).err();
    let users = context.users.of(&namespace, &name);
    let (status, event) = plan::plan(&cartridge, refused.as_deref(), &users, clock::now());
    if cartridge.status.as_ref() == Some(&status) {
        return Ok(Next::Settled);
    }
    let written = context.lock().get(&uid).copied();
    let wait = written.and_then(|at| PACE.checked_sub(at.elapsed())).filter(|_| event.is_none());
    if let Some(wait) = wait.filter(|_| plan::is_about_users_only(&cartridge, &status)) {
        return Ok(Next::After(wait));
    }
    match context.writer.put_status(&*cartridge, cartridge.status.as_ref(), &status).await {
        Err(WriteError::Gone) => return Ok(Next::Settled),
        written => written.map_err(|error| Failure::of_write(error, "cannot write its status"))?,
    }
    context.lock().insert(uid, Instant::now());
    if let Some((event, text)) = event {
        tracing::info!(namespace, cartridge = name, %event, text, "A cartridge has moved");
        context.flows.announcer.announce(Note {
            about: cartridge.object_ref(&()),
            warning: event == Event::CartridgeFailed,
            reason: event.to_string(),
            action: "Deploy",
            text,
        });
    }
    Ok(Next::Settled)
}

impl Context {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a Cartridge that is gone.
pub fn forget(cartridge: &Cartridge, context: &Context) {
    let uid = cartridge.uid().unwrap_or_default();
    context.flows.log.forget(&uid);
    context.lock().remove(&uid);
}
