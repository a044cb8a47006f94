//! What to say of a Cartridge: pure.

use k8s_openapi::jiff::Timestamp;

use crate::api::cartridge::{Cartridge, CartridgeStatus, phase};
use crate::api::condition::{self, ConditionType, Reason, Refusal, Status, Visit};
use crate::api::transition::Event;

use super::users::Usage;

/// The status, and what to announce of it. `refused` says why the spec cannot be acted on.
#[must_use]
pub fn plan(
    cartridge: &Cartridge,
    refused: Option<&str>,
    users: &Usage,
    now: Timestamp,
) -> (CartridgeStatus, Option<(Event, String)>) {
    let generation = cartridge.metadata.generation.unwrap_or_default();
    let visit = Visit { generation, now };
    let mut status = cartridge.status.clone().unwrap_or_default();
    status.observed_generation = Some(generation);
    let refusal = refused.map(|_| Refusal::InvalidSpec);
    let message = refused.unwrap_or(match &cartridge.spec.image {
        Some(_) => "Clusters and Instances can be made from it",
        None => "records can be made from it",
    });
    let (reason, holds) = match refusal {
        Some(refusal) => (refusal.into(), Status::False),
        None => (Reason::Accepted, Status::True),
    };
    condition::set(&mut status.conditions, visit, ConditionType::Accepted, holds, reason, message);
    let (phase, summary) = phase::assess(refusal);
    condition::summarise(&mut status.conditions, visit, summary, message);
    let moved = status.phase != Some(phase);
    status.phase = Some(phase);
    status.users = Some(i32::try_from(users.count).unwrap_or(i32::MAX));
    status.used_by.clone_from(&users.first);
    let event = moved.then(|| {
        let event = Event::from(phase);
        status.transitions.get_or_insert_default().record(event, now);
        (event, message.to_owned())
    });
    (status, event)
}

/// Whether a status says nothing new but of the users.
#[must_use]
pub fn is_about_users_only(cartridge: &Cartridge, status: &CartridgeStatus) -> bool {
    let without =
        |status: &CartridgeStatus| CartridgeStatus { users: None, used_by: vec![], ..status.clone() };
    cartridge.status.as_ref().is_some_and(|before| without(before) == without(status))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::cartridge::phase::CartridgePhase;

    fn cartridge(status: Option<CartridgeStatus>) -> Cartridge {
        let mut cartridge: Cartridge = serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Cartridge",
            "metadata": {"namespace": "shop", "name": "db", "generation": 3}, "spec": {"image": "db:1"},
        }))
        .unwrap();
        cartridge.status = status;
        cartridge
    }

    #[test]
    fn one_that_is_accepted_is_active_and_one_that_is_not_is_failed_until_it_is_put_right() {
        let now = Timestamp::from_second(100).unwrap();
        let (status, event) = plan(&cartridge(None), None, &Usage::default(), now);
        assert_eq!(
            (status.phase, status.observed_generation, status.users),
            (Some(CartridgePhase::Active), Some(3), Some(0))
        );
        assert_eq!(event.unwrap().0, Event::CartridgeDeployed);
        assert!(condition::is_true(&status.conditions, ConditionType::Ready));
        let (failed, event) =
            plan(&cartridge(Some(status.clone())), Some("correct it"), &Usage::default(), now);
        assert_eq!((failed.phase, event.unwrap().0), (Some(CartridgePhase::Failed), Event::CartridgeFailed));
        assert_eq!(
            condition::find(&failed.conditions, ConditionType::Stalled).unwrap().message,
            "correct it"
        );
        let (again, event) = plan(&cartridge(Some(failed)), None, &Usage::default(), now);
        assert_eq!(
            (again.transitions.unwrap().counter, event.unwrap().0),
            (Some(3), Event::CartridgeDeployed)
        );
        let (same, event) = plan(&cartridge(Some(status.clone())), None, &Usage::default(), now);
        assert_eq!((same, event), (status, None));
    }

    #[test]
    fn users_alone_are_no_news_of_the_cartridge() {
        let now = Timestamp::from_second(100).unwrap();
        let (status, _) = plan(&cartridge(None), None, &Usage::default(), now);
        let before = cartridge(Some(status));
        let (used, event) = plan(&before, None, &Usage { count: 2, first: vec![] }, now);
        assert_eq!((used.users, event), (Some(2), None));
        assert!(is_about_users_only(&before, &used));
        let (failed, _) = plan(&before, Some("x"), &Usage::default(), now);
        assert!(!is_about_users_only(&before, &failed));
    }
}
