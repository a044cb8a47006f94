//! Whether the trigger of a Flow is heard, or not any more: a webhook by the gateways, a schedule by the scheduler.

use crate::api::condition::{self, ConditionType};
use crate::api::flow::route::RouteState;
use crate::api::name::NodeId;
use crate::controllers::flow::snapshot::{NoGateway, Snapshot};

use super::was;

/// How the trigger of a Flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// It is heard.
    Armed {
        /// The hash of the trigger that is.
        trigger: String,
        /// What to say of it.
        message: String,
    },
    /// Not yet, or not by all; with who does not.
    NotArmed(String),
}

/// How the trigger of a Flow that should run is. Once armed it stays so, until the trigger itself changes.
pub fn armed(seen: &Snapshot, nodes_ready: bool) -> Trigger {
    let route = RouteState::of(&seen.flow);
    let present = route.trigger.to_string();
    if let Some(with) = armed_with(seen) {
        if with == present {
            // What was said when it was armed stays: due times pass without a word.
            return Trigger::Armed { trigger: present, message: said(seen) };
        }
        if is_cron(seen) {
            // The time at which it is armed anew is the one from which on its due times count.
            return Trigger::NotArmed("the schedule has changed".into());
        }
    }
    // Gateways and scheduler read that the nodes are ready from the status that comes of this look.
    if !route.wanted {
        let who = if is_cron(seen) {
            "the scheduler to take up the schedule"
        } else {
            "the gateways to take up the route"
        };
        let why =
            if nodes_ready { format!("waiting for {who}") } else { "the nodes are not ready yet".into() };
        return Trigger::NotArmed(why);
    }
    let heard = if is_cron(seen) { by_scheduler(seen, &present) } else { by_gateways(seen) };
    heard.map_or_else(Trigger::NotArmed, |message| Trigger::Armed { trigger: present, message })
}

/// What to say of a webhook that is heard, or why it is not.
fn by_gateways(seen: &Snapshot) -> Result<String, String> {
    match seen.gateways.behind_arming(seen.route_since) {
        Ok(behind) if behind.is_empty() => Ok("every gateway serves the route".into()),
        Ok(behind) => Err(format!("waiting for {} to take up the route", gateways(&behind))),
        Err(NoGateway) => Err("no gateway is ready: look at the pods of Millrace's gateway".into()),
    }
}

/// What to say of a schedule that was taken up, or why it was not.
fn by_scheduler(seen: &Snapshot, present: &str) -> Result<String, String> {
    match seen.scheduled.as_ref().filter(|taken| taken.trigger.as_str() == present) {
        Some(taken) => Ok(match taken.first {
            Some(first) => format!("the schedule is followed: the first run is due at {first}"),
            None => "the schedule is followed, and no run is due any more".into(),
        }),
        None => Err("waiting for the scheduler to take up the schedule".into()),
    }
}

/// Who may still send messages of a Flow that should stop; none where nobody ever did.
pub fn still_heard(seen: &Snapshot) -> Option<String> {
    if is_cron(seen) || seen.scheduled.is_some() {
        return seen.scheduled.as_ref().map(|_| "waiting for the scheduler to give up the schedule".into());
    }
    // Gateways serve the route of a Flow whose nodes are ready before its trigger counts as armed.
    let ever = was(seen, ConditionType::TriggerArmed) || was(seen, ConditionType::NodesReady);
    let behind = seen.gateways.behind_disarming(seen.route_since);
    (ever && !behind.is_empty()).then(|| format!("waiting for {} to give up the route", gateways(&behind)))
}

/// Whether nobody sends messages to another entry node than the present one.
pub fn knows_entry(seen: &Snapshot, entry: &NodeId) -> bool {
    let scheduler = seen.scheduled.as_ref().is_none_or(|taken| taken.entry.as_ref() == Some(entry));
    scheduler && (is_cron(seen) || seen.gateways.behind_disarming(seen.entry_since).is_empty())
}

fn is_cron(seen: &Snapshot) -> bool {
    seen.flow.spec.trigger.cron.is_some()
}

/// The hash of the trigger that is armed.
fn armed_with(seen: &Snapshot) -> Option<String> {
    let status = seen.flow.status.as_ref()?;
    status.armed_trigger.clone().filter(|_| was(seen, ConditionType::TriggerArmed))
}

fn said(seen: &Snapshot) -> String {
    let status = seen.flow.status.as_ref();
    let armed = status.and_then(|status| condition::find(&status.conditions, ConditionType::TriggerArmed));
    armed.map(|armed| armed.message.clone()).unwrap_or_default()
}

fn gateways(names: &[&str]) -> String {
    match names {
        [name] => format!("gateway '{name}'"),
        names => {
            format!("gateways {}", names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", "))
        }
    }
}
