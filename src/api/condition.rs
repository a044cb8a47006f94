//! Conditions: what is known of an object, in the form that kubectl, Helm, Flux and Argo CD read.
//!
//! Two rules come from kstatus, the library by which Helm and Flux decide: `Reconciling` and `Stalled` are there only
//! while they are True, and never both; and an object in the state that was asked for has `Ready` True, since `Ready`
//! False reads as "in progress" for ever.

use std::fmt;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// The most bytes of a condition's message, as of an Event's note.
pub const MESSAGE_MAX: usize = 1024;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::IntoStaticStr)]
pub enum ConditionType {
    /// The object is in the state that was asked for.
    Ready,
    /// Work goes on. Present only while True.
    Reconciling,
    /// Nothing goes on until a person acts. Present only while True.
    Stalled,
    /// The spec can be acted on as it is written.
    Accepted,
    /// Every node of a Flow has pods that were seen ready.
    NodesReady,
    /// The trigger of a Flow is heard: a due time is set, or every gateway knows the route.
    TriggerArmed,
    /// A Flow is at rest: trigger disarmed, queues empty or given up, pods gone.
    Drained,
    /// A Flow has messages that no node could handle. Present only while True; it says nothing of `Ready`.
    DeadLetters,
    /// Every import that an Instance requires has an export to go with it.
    ImportsResolved,
    /// The process of an Instance's application runs.
    Started,
    /// The application of an Instance answers on its ports.
    Serving,
}

impl ConditionType {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::Accepted,
        Self::NodesReady,
        Self::TriggerArmed,
        Self::Drained,
        Self::DeadLetters,
        Self::ImportsResolved,
        Self::Started,
        Self::Serving,
    ];

    /// The type that excludes this one.
    const fn opposite(self) -> Option<Self> {
        match self {
            Self::Reconciling => Some(Self::Stalled),
            Self::Stalled => Some(Self::Reconciling),
            Self::Ready
            | Self::Accepted
            | Self::NodesReady
            | Self::TriggerArmed
            | Self::Drained
            | Self::DeadLetters
            | Self::ImportsResolved
            | Self::Started
            | Self::Serving => None,
        }
    }
}

/// Whether what a condition is about holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It could not be found out.
    Unknown,
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Why a condition is as it is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It does what it is there for.
    Active,
    /// A Flow is suspended and at rest.
    Suspended,
    /// A Cluster without members, as was asked for.
    ScaledToZero,
    /// An Instance's application is stopped, as was asked for.
    Stopped,
    /// An Instance has no pod, as was asked for.
    NotDeployed,
    /// An Instance runs outside of the load balancer, as was asked for.
    Maintenance,
    /// It is being deleted.
    Deleting,
    /// It is on its way to rest.
    Stopping,
    /// Its pods are on their way.
    Starting,
    /// Its nodes are ready; the trigger is not heard yet.
    TriggerNotArmed,
    /// Its trigger is heard; the pods of a node are not ready, and what arrives is queued.
    NodeUnavailable,
    /// The application runs; its ports do not answer yet.
    NotServing,
    /// The application is to leave the load balancer, and is still in it.
    LeavingBalancer,
    /// Not every member that is wanted is Active.
    MembersNotActive,
    /// Members run on an older revision.
    Updating,
    /// There are more members than wanted.
    ScalingDown,
    /// Something that it needs and does not make is missing: a Secret, a Cartridge, a Cluster.
    DependencyNotReady,
    /// The spec says something that cannot be.
    InvalidSpec,
    /// The spec asks for something that this version cannot do.
    NotYetSupported,
    /// The pods were not ready in time.
    ProgressDeadlineExceeded,
    /// The spec can be acted on.
    Accepted,
    /// Every node of a Flow is ready.
    NodesReady,
    /// The trigger of a Flow is heard.
    TriggerArmed,
    /// Messages of a Flow could not be handled.
    DeadLetters,
    /// Every import that is required has an export to go with it.
    ImportsResolved,
    /// An import that is required has none.
    ImportsMissing,
    /// The process of the application runs.
    Running,
    /// The process of the application does not run.
    NotRunning,
    /// The application answers.
    Serving,
    /// The node that the pod runs on does not answer.
    NodeLost,
    /// An object that is to be made has a name that belongs to somebody else's.
    NameConflict,
    /// The API server does not take an object that is to be made: quota, Pod Security, a policy.
    Refused,
    /// No partition has room for more members.
    NoRoom,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a spec cannot be acted on as it is written: a person must change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It says something that cannot be.
    InvalidSpec,
    /// It asks for something that this version cannot do.
    NotYetSupported,
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidSpec => Self::InvalidSpec,
            Refusal::NotYetSupported => Self::NotYetSupported,
        }
    }
}

/// What an object's phase means to the tools that wait for it: `Ready`, `Reconciling` and `Stalled` together, so that they
/// cannot contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// In the state that was asked for. Ready=True alone; kstatus: Current.
    Settled(Reason),
    /// Ready=True while something is still to be changed; kstatus: `InProgress`.
    Changing(Reason),
    /// Ready=False while work goes on; kstatus: `InProgress`.
    Working(Reason),
    /// Ready=False until a person acts; kstatus: Failed.
    Stalled(Reason),
}

impl Summary {
    /// The reason of all its conditions.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Settled(reason)
            | Self::Changing(reason)
            | Self::Working(reason)
            | Self::Stalled(reason) => reason,
        }
    }

    /// Whether `Ready` is True.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        match self {
            Self::Settled(_) | Self::Changing(_) => true,
            Self::Working(_) | Self::Stalled(_) => false,
        }
    }

    /// The condition beside `Ready`, where there is one.
    const fn beside(self) -> Option<ConditionType> {
        match self {
            Self::Settled(_) => None,
            Self::Changing(_) | Self::Working(_) => Some(ConditionType::Reconciling),
            Self::Stalled(_) => Some(ConditionType::Stalled),
        }
    }
}

/// The look at an object that its conditions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The generation of the object that was seen.
    pub generation: i64,
    /// When.
    pub now: Timestamp,
}

/// Sets one condition: replaces the one of its type, if there is one, and keeps the list in order.
///
/// The time of the last transition moves only when the status does. `Reconciling` and `Stalled` are removed when they are
/// not True, and each removes the other when it is.
pub fn set(
    conditions: &mut Vec<Condition>,
    visit: Visit,
    of: ConditionType,
    status: Status,
    reason: Reason,
    message: &str,
) {
    if let Some(opposite) = of.opposite() {
        if status != Status::True {
            return remove(conditions, of);
        }
        remove(conditions, opposite);
    }
    let status = status.to_string();
    let since =
        find(conditions, of).filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    remove(conditions, of);
    conditions.push(Condition {
        last_transition_time: since.unwrap_or_else(|| seconds(visit.now)),
        message: bounded(message, MESSAGE_MAX),
        observed_generation: Some(visit.generation),
        reason: reason.to_string(),
        status,
        type_: of.to_string(),
    });
    sort(conditions);
}

/// Sets `Ready`, `Reconciling` and `Stalled`.
pub fn summarise(conditions: &mut Vec<Condition>, visit: Visit, summary: Summary, message: &str) {
    use ConditionType::{Ready, Reconciling, Stalled};
    for of in [Reconciling, Stalled] {
        if summary.beside() == Some(of) {
            set(conditions, visit, of, Status::True, summary.reason(), message);
        } else {
            remove(conditions, of);
        }
    }
    set(conditions, visit, Ready, summary.is_ready().into(), summary.reason(), message);
}

/// Removes the condition of a type.
pub fn remove(conditions: &mut Vec<Condition>, of: ConditionType) {
    conditions.retain(|condition| !is_of(condition, of));
}

/// The condition of a type.
#[must_use]
pub fn find(conditions: &[Condition], of: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| is_of(condition, of))
}

/// Whether there is a condition of a type, and it is True.
#[must_use]
pub fn is_true(conditions: &[Condition], of: ConditionType) -> bool {
    find(conditions, of).is_some_and(|condition| condition.status == <&str>::from(Status::True))
}

/// Whether two lists say the same; when something last changed does not matter.
#[must_use]
pub fn same(some: &[Condition], others: &[Condition]) -> bool {
    let timeless = |condition: &Condition| Condition {
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        ..condition.clone()
    };
    some.iter().map(timeless).eq(others.iter().map(timeless))
}

/// A time as it is stored: the API keeps whole seconds only, and an object in memory must equal the one that is read back.
#[must_use]
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn is_of(condition: &Condition, of: ConditionType) -> bool {
    condition.type_ == <&str>::from(of)
}

/// Ours in the order of their enum, then whatever else somebody has written, by name.
fn sort(conditions: &mut [Condition]) {
    let place = |condition: &Condition| ConditionType::ALL.iter().position(|of| is_of(condition, *of));
    conditions.sort_by_cached_key(|condition| {
        (place(condition).unwrap_or(ConditionType::ALL.len()), condition.type_.clone())
    });
}

/// A text of at most `max` bytes; a longer one ends in `…`.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    const CUT: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub(CUT.len());
    let kept = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= room).map(|(_, c)| c);
    kept.chain(CUT.chars()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn visit(generation: i64, second: i64) -> Visit {
        Visit { generation, now: Timestamp::new(second, 999_999_999).unwrap() }
    }

    fn condition(of: &str, status: &str, reason: &str, generation: i64, second: i64) -> Condition {
        Condition {
            last_transition_time: Time(Timestamp::from_second(second).unwrap()),
            message: format!("about {of}"),
            observed_generation: Some(generation),
            reason: reason.into(),
            status: status.into(),
            type_: of.into(),
        }
    }

    fn put(conditions: &mut Vec<Condition>, at: Visit, of: ConditionType, status: Status, reason: Reason) {
        set(conditions, at, of, status, reason, &format!("about {of}"));
    }

    #[test]
    fn a_condition_carries_generation_reason_message_and_a_time_in_seconds() {
        let mut conditions = vec![];
        put(&mut conditions, visit(3, 100), ConditionType::NodesReady, Status::Unknown, Reason::Starting);
        assert_eq!(conditions, [condition("NodesReady", "Unknown", "Starting", 3, 100)]);
    }

    #[test]
    fn the_time_moves_only_when_the_status_does() {
        let mut conditions = vec![];
        put(&mut conditions, visit(1, 100), ConditionType::Ready, Status::False, Reason::Starting);
        put(&mut conditions, visit(2, 200), ConditionType::Ready, Status::False, Reason::TriggerNotArmed);
        assert_eq!(conditions, [condition("Ready", "False", "TriggerNotArmed", 2, 100)]);
        put(&mut conditions, visit(2, 300), ConditionType::Ready, Status::True, Reason::Active);
        assert_eq!(conditions, [condition("Ready", "True", "Active", 2, 300)]);
    }

    #[test]
    fn ready_comes_first_and_what_others_wrote_last() {
        let mut conditions =
            vec![condition("Zebra", "True", "X", 1, 1), condition("Apple", "True", "X", 1, 1)];
        for of in ConditionType::ALL.into_iter().rev() {
            put(&mut conditions, visit(1, 1), of, Status::True, Reason::Active);
        }
        let types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(
            types,
            [
                "Ready",
                "Reconciling",
                "Accepted",
                "NodesReady",
                "TriggerArmed",
                "Drained",
                "DeadLetters",
                "ImportsResolved",
                "Started",
                "Serving",
                "Apple",
                "Zebra"
            ]
        );
    }

    #[test]
    fn the_listed_order_is_the_order_of_the_enum_and_holds_each_type_once() {
        assert!(ConditionType::ALL.is_sorted_by(|a, b| a < b));
        assert_eq!(ConditionType::ALL.last(), Some(&ConditionType::Serving));
        assert_eq!(ConditionType::ALL.len(), ConditionType::Serving as usize + 1);
    }

    #[test]
    fn reconciling_and_stalled_are_there_only_while_true_and_never_both() {
        use ConditionType::{Reconciling, Stalled};
        let mut conditions = vec![];
        put(&mut conditions, visit(1, 1), Reconciling, Status::True, Reason::Starting);
        put(&mut conditions, visit(1, 2), Stalled, Status::True, Reason::InvalidSpec);
        assert_eq!(conditions, [condition("Stalled", "True", "InvalidSpec", 1, 2)]);
        put(&mut conditions, visit(1, 3), Reconciling, Status::False, Reason::Active);
        assert_eq!(conditions, [condition("Stalled", "True", "InvalidSpec", 1, 2)]);
        put(&mut conditions, visit(1, 4), Stalled, Status::Unknown, Reason::Active);
        assert_eq!(conditions, []);
    }

    #[test]
    fn a_summary_sets_exactly_its_three_conditions() {
        let mut conditions = vec![condition("Accepted", "False", "InvalidSpec", 1, 1)];
        for (summary, expected) in [
            (Summary::Stalled(Reason::InvalidSpec), vec![("Ready", "False"), ("Stalled", "True")]),
            (Summary::Working(Reason::Starting), vec![("Ready", "False"), ("Reconciling", "True")]),
            (Summary::Changing(Reason::ScalingDown), vec![("Ready", "True"), ("Reconciling", "True")]),
            (Summary::Settled(Reason::Active), vec![("Ready", "True")]),
        ] {
            summarise(&mut conditions, visit(1, 1), summary, "why");
            let seen: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
            assert_eq!(seen, [expected, vec![("Accepted", "False")]].concat());
            let reason = summary.reason().to_string();
            assert!(conditions.iter().filter(|c| c.type_ != "Accepted").all(|c| c.reason == reason));
        }
    }

    #[test]
    fn finding_and_asking_go_by_type() {
        let conditions =
            [condition("Ready", "True", "Active", 1, 1), condition("Started", "False", "X", 1, 1)];
        assert_eq!(find(&conditions, ConditionType::Started), Some(&conditions[1]));
        assert_eq!(find(&conditions, ConditionType::Serving), None);
        assert!(is_true(&conditions, ConditionType::Ready));
        assert!(!is_true(&conditions, ConditionType::Started));
        assert!(!is_true(&conditions, ConditionType::Serving));
    }

    #[test]
    fn sameness_looks_at_all_but_the_time() {
        let one = [condition("Ready", "True", "Active", 1, 1)];
        assert!(same(&one, &[condition("Ready", "True", "Active", 1, 2)]));
        assert!(!same(&one, &[condition("Ready", "True", "Active", 2, 1)]));
        assert!(!same(&one, &[condition("Ready", "True", "Suspended", 1, 1)]));
        assert!(!same(&one, &[]));
        assert!(!same(&[], &one));
    }

    proptest! {
        #[test]
        fn a_message_is_bounded_and_cut_between_characters(text in any::<String>(), max in 3usize..40) {
            let cut = bounded(&text, max);
            prop_assert!(cut.len() <= max);
            match cut.strip_suffix('…') {
                Some(start) if text.len() > max => {
                    prop_assert!(text.starts_with(start));
                    prop_assert!(start.len() + 3 + 4 > max, "more was cut than had to be");
                }
                _ => prop_assert_eq!(cut, text),
            }
        }

        #[test]
        fn any_sequence_leaves_a_list_that_is_sorted_and_without_doubles(
            steps in prop::collection::vec((0usize..10, 0usize..3), 0..30),
        ) {
            let mut conditions = vec![];
            for (of, status) in steps {
                let status = [Status::True, Status::False, Status::Unknown][status];
                put(&mut conditions, visit(1, 1), ConditionType::ALL[of], status, Reason::Active);
            }
            let places: Vec<_> = ConditionType::ALL.iter().filter(|of| find(&conditions, **of).is_some()).collect();
            prop_assert!(conditions.iter().map(|c| c.type_.clone()).eq(places.iter().map(ToString::to_string)));
            let is = |of| is_true(&conditions, of);
            let there = |of| find(&conditions, of).is_some();
            for of in [ConditionType::Reconciling, ConditionType::Stalled] {
                prop_assert_eq!(is(of), there(of));
            }
            prop_assert!(!(is(ConditionType::Reconciling) && is(ConditionType::Stalled)));
        }
    }
}
