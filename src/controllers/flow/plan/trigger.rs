//! Whether the gateways serve the route of a Flow, or have all given it up.

use crate::api::condition::ConditionType;
use crate::api::flow::route::RouteState;
use crate::controllers::flow::snapshot::{NoGateway, Snapshot};

use super::was;

/// How the trigger of a Flow is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// All that take requests know the route; the hash is that of the trigger they know.
    Armed(String),
    /// Not all do; with who does not.
    NotArmed(String),
}

/// How the trigger of a Flow that should run is. Once armed it stays so, until the trigger itself changes.
pub fn armed(seen: &Snapshot, nodes_ready: bool) -> Trigger {
    let route = RouteState::of(&seen.flow);
    let present = route.trigger.to_string();
    let status = seen.flow.status.as_ref();
    if was(seen, ConditionType::TriggerArmed)
        && status.and_then(|status| status.armed_trigger.as_ref()) == Some(&present)
    {
        return Trigger::Armed(present);
    }
    // Gateways read that the nodes are ready from the status that comes of this look.
    if !route.wanted {
        let why = if nodes_ready {
            "waiting for the gateways to take up the route"
        } else {
            "the nodes are not ready yet"
        };
        return Trigger::NotArmed(why.into());
    }
    match seen.gateways.behind_arming(seen.route_since) {
        Ok(behind) if behind.is_empty() => Trigger::Armed(present),
        Ok(behind) => Trigger::NotArmed(format!("waiting for {} to take up the route", gateways(&behind))),
        Err(NoGateway) => {
            Trigger::NotArmed("no gateway is ready: look at the pods of Millrace's gateway".into())
        }
    }
}

/// Who may still take requests for a Flow that should stop; none where nobody ever did.
pub fn still_heard(seen: &Snapshot) -> Option<String> {
    // Gateways serve the route of a Flow whose nodes are ready before its trigger counts as armed.
    let ever = was(seen, ConditionType::TriggerArmed) || was(seen, ConditionType::NodesReady);
    let behind = seen.gateways.behind_disarming(seen.route_since);
    (ever && !behind.is_empty()).then(|| format!("waiting for {} to give up the route", gateways(&behind)))
}

fn gateways(names: &[&str]) -> String {
    match names {
        [name] => format!("gateway '{name}'"),
        names => {
            format!("gateways {}", names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", "))
        }
    }
}
