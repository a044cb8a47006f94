//! What the agent of an Instance is told.

use serde_json::json;

use crate::api::instance::phase::{Application, Wish};
use crate::broker::member::MemberWork;
use crate::broker::message::keyed_id;

use super::ending::{Ending, Stage};
use super::{Case, Step};

/// The step that tells the agent something new; none where it knows all, or cannot be told.
pub fn work(case: &Case<'_>) -> Option<Step> {
    let seen = case.seen;
    let pod = seen.pod.as_ref().filter(|pod| pod.metadata.deletion_timestamp.is_none())?;
    let wanted = wanted(case, pod.metadata.uid.as_deref()?)?;
    if seen.told.as_ref().is_some_and(|told| is_same(told, &wanted)) || !seen.broker_up() {
        return None;
    }
    Some(Step::PutWork(wanted, seen.secrets.clone()))
}

/// What is sealed differs each time; the revision names what is in it.
fn is_same(told: &MemberWork, wanted: &MemberWork) -> bool {
    (&told.pod, &told.revision, told.run) == (&wanted.pod, &wanted.revision, wanted.run)
}

/// What the agent should know; none where what it imports cannot be known now.
fn wanted(case: &Case<'_>, pod: &str) -> Option<MemberWork> {
    let seen = case.seen;
    let run = may_run(case);
    // Where the cartridge is not known, or the spec is refused, what runs goes on as it is.
    if seen.source.application().is_none() || seen.refused_spec.is_some() {
        return seen.told_now().cloned().map(|told| MemberWork { run, ..told });
    }
    let imports = seen.delivered();
    let content = json!([imports, seen.values, seen.secrets]).to_string();
    // With a key: what is secret cannot be guessed by its hash.
    let revision = keyed_id(&case.config.key, [b"work", content.as_bytes()]);
    Some(MemberWork {
        pod: pod.to_owned(),
        revision,
        run,
        imports,
        values: seen.values.clone(),
        secrets: None,
    })
}

/// Whether the application is to run: what ends goes on until nothing is in the way.
fn may_run(case: &Case<'_>) -> bool {
    let told = case.seen.told_now().is_some_and(|told| told.run);
    let runs = matches!(case.application, Some(Application::Started | Application::Serving));
    // Whatever else is the case, nothing begins without its imports.
    if case.blocked.is_some() && !runs {
        return false;
    }
    match &case.ending {
        Some(Ending::Stop | Ending::Imports) => case.stage != Stage::Clear && (told || runs),
        // The pod ends by itself.
        Some(
            Ending::Delete
            | Ending::Undeploy
            | Ending::Replace
            | Ending::Ended
            | Ending::Lost
            | Ending::Going,
        ) => told,
        None => matches!(case.wish, Wish::Start | Wish::Maintain) && case.blocked.is_none(),
    }
}
