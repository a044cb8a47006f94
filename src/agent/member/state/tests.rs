use proptest::prelude::*;
use serde_json::json;

use super::*;

fn setup(hooks: bool, wrapped: bool) -> Setup {
    let hook = json!({"httpGet": {"path": "/", "port": 80}});
    let lifecycle = if hooks { json!({"start": hook, "update": hook, "stop": hook}) } else { json!({}) };
    serde_json::from_value(json!({
        "wrapped": wrapped, "ports": {"http": 80}, "lifecycle": lifecycle, "drainSeconds": 3,
    }))
    .unwrap()
}

fn work(revision: &str, run: bool) -> Input {
    Input::Work(MemberWork { pod: "p".into(), revision: revision.into(), run, ..MemberWork::default() })
}

fn hello(pid: u32) -> Input {
    Input::News(News::Hello { pid, starts: u32::from(pid > 0), terminating: false })
}

/// An agent in a small world, in which all that is to be done is done at once, or later by hand.
struct World {
    state: State,
    now: Instant,
    deeds: Vec<String>,
    process: bool,
    starts: u32,
}

impl World {
    fn new(hooks: bool, wrapped: bool) -> Self {
        let state = State::new(setup(hooks, wrapped), "p".into());
        Self { state, now: Instant::now(), deeds: vec![], process: false, starts: 0 }
    }

    fn hear(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for deed in self.state.hear(input, self.now) {
                match deed {
                    Deed::Write(work) => {
                        self.deeds.push(format!("write {}", work.revision));
                        inputs.push(Input::Written(work.revision));
                    }
                    Deed::Start => {
                        assert!(!self.process, "it runs");
                        self.deeds.push("start".into());
                    }
                    Deed::Stop(_) => self.deeds.push("stop".into()),
                    Deed::Fail(why) => self.deeds.push(format!("fail {why}")),
                    Deed::Hook(turn) => self.deeds.push(format!("{turn:?}").to_lowercase()),
                    Deed::Check(_) => {}
                }
            }
        }
        assert!(self.state.next().is_none_or(|at| at > self.now), "it would look again and again");
    }

    fn started(&mut self) {
        (self.process, self.starts) = (true, self.starts + 1);
        self.hear(Input::News(News::Started { pid: 7, starts: self.starts }));
    }

    fn ended(&mut self, code: i32) {
        self.process = false;
        self.hear(Input::News(News::Ended { code, why: String::new() }));
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.hear(Input::Time);
    }

    fn hook(&mut self, turn: Turn, result: Result<(), &str>) {
        self.hear(Input::Hook(turn, result.map_err(str::to_owned)));
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.deeds)
    }

    fn stage(&self) -> Stage {
        self.state.report().stage
    }

    /// One that serves, without hooks.
    fn serving() -> Self {
        let mut world = Self::new(false, true);
        world.hear(hello(0));
        world.hear(work("r1", true));
        world.started();
        world.hear(Input::Checked(Ok(())));
        assert_eq!((world.stage(), world.take()), (Stage::Serving, vec!["write r1".into(), "start".into()]));
        world
    }
}

#[test]
fn nothing_starts_before_it_may_and_before_its_files_are_there() {
    let mut world = World::new(false, true);
    world.hear(hello(0));
    world.hear(work("r1", false));
    assert_eq!((world.stage(), world.take()), (Stage::Down, vec!["write r1".into()]));
    world.hear(Input::Work(MemberWork {
        pod: "other".into(),
        revision: "x".into(),
        run: true,
        ..MemberWork::default()
    }));
    assert_eq!(world.take(), [""; 0], "that is another pod's");
    world.hear(work("r2", true));
    assert_eq!(world.take(), ["write r2", "start"]);
    world.started();
    assert_eq!((world.stage(), world.state.report().applied), (Stage::Running, Some("r2".into())));
    world.hear(Input::Checked(Err("port".into())));
    assert_eq!(world.state.report().problem.as_deref(), Some("port"));
    world.hear(Input::Checked(Ok(())));
    assert_eq!(world.stage(), Stage::Serving);
}

#[test]
fn a_launcher_that_comes_later_gets_its_order_then() {
    let mut world = World::new(false, true);
    world.hear(work("r1", true));
    assert_eq!(world.take(), ["write r1"]);
    world.hear(hello(0));
    assert_eq!(world.take(), ["start"]);
    world.hear(Input::LauncherLost);
    world.hear(hello(0));
    assert_eq!(world.take(), ["start"], "the order may have been lost with it");
}

#[test]
fn files_that_cannot_be_written_keep_it_and_are_said() {
    let mut state = State::new(setup(false, true), "p".into());
    let now = Instant::now();
    state.hear(hello(0), now);
    assert!(matches!(state.hear(work("r1", true), now)[..], [Deed::Write(_)]));
    assert_eq!(state.hear(Input::NotWritten("disk full".into()), now), []);
    assert_eq!(state.report().problem.as_deref(), Some("its files cannot be written: disk full"));
    state.retry_files();
    assert!(matches!(state.hear(Input::Time, now)[..], [Deed::Write(_)]));
}

#[test]
fn hooks_run_after_the_start_and_after_each_change_and_again_where_they_fail() {
    let mut world = World::new(true, true);
    world.hear(hello(0));
    world.hear(work("r1", true));
    world.started();
    assert_eq!(world.take(), ["write r1", "start", "start"]);
    world.hear(Input::Checked(Ok(())));
    assert_eq!(world.stage(), Stage::Running, "its start hook runs");
    world.hook(Turn::Start, Err("refused"));
    assert_eq!(world.state.report().problem.as_deref(), Some("the hook `start` failed: refused"));
    world.later(1);
    assert_eq!(world.take(), ["start"]);
    world.hook(Turn::Start, Ok(()));
    assert_eq!(world.stage(), Stage::Serving);
    // Two changes while the hook of the first still runs: one more run, for the newest.
    for revision in ["r2", "r3", "r4"] {
        world.hear(work(revision, true));
    }
    assert_eq!(world.take(), ["write r2", "update(\"r2\")", "write r3", "write r4"]);
    world.hook(Turn::Update("r2".into()), Ok(()));
    assert_eq!(
        (world.take(), world.state.report().applied),
        (vec!["update(\"r4\")".into()], Some("r2".into()))
    );
    world.hook(Turn::Update("r4".into()), Err("code 1"));
    assert_eq!((world.stage(), world.state.report().applied), (Stage::Serving, Some("r2".into())));
    assert_eq!(world.state.report().problem.as_deref(), Some("the hook `update` failed: code 1"));
    world.later(1);
    world.hook(Turn::Update("r4".into()), Ok(()));
    assert_eq!(
        (world.take(), world.state.report().applied),
        (vec!["update(\"r4\")".into()], Some("r4".into()))
    );
    assert_eq!(world.state.report().problem, None);
    // A change that failed, and was taken back: who knows what is done of it.
    world.hear(work("r5", true));
    world.hook(Turn::Update("r5".into()), Err("code 1"));
    world.hear(work("r4", true));
    world.take();
    world.later(1);
    assert_eq!(world.take(), ["update(\"r4\")"]);
    world.hook(Turn::Update("r4".into()), Ok(()));
    assert_eq!(world.state.report().problem, None);
}

#[test]
fn a_hook_that_failed_wakes_nobody_while_it_cannot_be_tried() {
    for wrapped in [true, false] {
        let mut world = World::new(true, wrapped);
        world.hear(hello(0));
        world.hear(work("r1", true));
        if wrapped {
            world.started();
        }
        world.hear(Input::Checked(Ok(())));
        world.hook(Turn::Start, Ok(()));
        world.hear(work("r2", true));
        world.hook(Turn::Update("r2".into()), Err("refused"));
        assert!(world.state.next().is_some());
        // `hear` asserts that it does not look again at once.
        if wrapped {
            world.hear(work("r2", false));
        } else {
            world.hear(Input::Checked(Err("no port".into())));
        }
        world.later(1);
    }
}

#[test]
fn a_stop_drains_runs_its_hook_and_then_ends_the_process_and_it_can_be_started_again() {
    let mut world = World::new(true, true);
    world.hear(hello(0));
    world.hear(work("r1", true));
    world.started();
    world.hook(Turn::Start, Ok(()));
    world.hear(Input::Checked(Ok(())));
    world.take();
    world.hear(work("r1", false));
    assert_eq!((world.stage(), world.take()), (Stage::Stopping, vec![]));
    world.later(2);
    assert_eq!(world.take(), [""; 0]);
    world.later(2);
    assert_eq!(world.take(), ["stop"], "the hook");
    world.hook(Turn::Stop, Err("it hangs"));
    assert_eq!(world.take(), ["stop"], "the process");
    world.ended(0);
    assert_eq!((world.stage(), world.state.report().problem), (Stage::Down, None));
    world.hear(work("r1", true));
    assert_eq!(world.take(), ["start"]);
    world.started();
    assert_eq!(world.state.report().starts, 2);
}

#[test]
fn one_that_never_served_is_not_drained() {
    let mut world = World::new(false, true);
    world.hear(hello(0));
    world.hear(work("r1", true));
    world.started();
    world.take();
    world.hear(Input::News(News::Terminating));
    assert_eq!(world.take(), ["stop"]);
}

#[test]
fn sigterm_drains_whatever_the_operator_wants_and_nothing_starts_after_it() {
    let mut world = World::serving();
    world.hear(Input::News(News::Terminating));
    world.later(4);
    assert_eq!((world.stage(), world.take()), (Stage::Stopping, vec!["stop".into()]));
    world.ended(0);
    world.hear(work("r2", true));
    assert_eq!(world.take(), ["write r2"]);
}

#[test]
fn an_agent_that_begins_anew_finds_the_application_running_and_lets_it() {
    let mut world = World::new(true, true);
    (world.process, world.starts) = (true, 1);
    world.hear(hello(7));
    assert_eq!((world.stage(), world.take()), (Stage::Running, vec![]));
    world.hear(Input::Checked(Ok(())));
    assert_eq!(world.stage(), Stage::Serving);
    world.hear(work("r2", true));
    assert_eq!(world.take(), ["write r2", "update(\"r2\")"], "it may have missed a change");
}

#[test]
fn an_end_of_its_own_is_said_and_a_check_that_fails_for_good_ends_it() {
    let mut world = World::serving();
    world.ended(3);
    assert_eq!(world.state.report().problem.as_deref(), Some("the application ended with code 3"));
    let mut world = World::serving();
    world.hear(Input::Unwell("the check `liveness` fails".into()));
    assert_eq!(world.take(), ["fail the check `liveness` fails"]);
    world.ended(143);
    assert_eq!(world.state.report().problem.as_deref(), Some("the check `liveness` fails"));
}

#[test]
fn without_a_launcher_the_gate_opens_and_stays_open() {
    let mut world = World::new(true, false);
    world.hear(work("r1", false));
    assert!(!world.state.gate_is_open());
    world.hear(work("r2", true));
    assert!(world.state.gate_is_open());
    assert_eq!((world.stage(), world.take()), (Stage::Down, vec!["write r1".into(), "write r2".into()]));
    world.hear(Input::Checked(Ok(())));
    assert_eq!(world.take(), ["start"], "the hook, once a port answers");
    world.hook(Turn::Start, Ok(()));
    assert_eq!(world.stage(), Stage::Serving);
    world.hear(Input::Ending);
    world.later(4);
    assert_eq!((world.take(), world.state.has_said_farewell()), (vec!["stop".into()], false));
    world.hook(Turn::Stop, Ok(()));
    assert!(world.state.has_said_farewell());
}

#[derive(Clone, Debug)]
enum Happening {
    Work(u8, bool),
    Started,
    Ended,
    Lost,
    Hello,
    Checked(bool),
    Hook(bool),
    Later(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..4_u8, any::<bool>()).prop_map(|(revision, run)| Happening::Work(revision, run)),
        Just(Happening::Started),
        Just(Happening::Ended),
        Just(Happening::Lost),
        Just(Happening::Hello),
        any::<bool>().prop_map(Happening::Checked),
        any::<bool>().prop_map(Happening::Hook),
        (0..10_u8).prop_map(Happening::Later),
    ]
}

proptest! {
    /// `hear` asserts that nothing is started that runs.
    #[test]
    fn whatever_happens_nothing_runs_that_may_not_and_it_ends_as_is_wanted(
        happenings in prop::collection::vec(happening(), 0..60),
        run in any::<bool>(),
    ) {
        let mut world = World::new(true, true);
        let (mut ordered, mut running_hook) = (false, None);
        let settle = |world: &mut World, ordered: &mut bool, hook: &mut Option<Turn>| {
            for deed in world.take() {
                match deed.as_str() {
                    "start" if !world.process && world.state.starting => *ordered = true,
                    "start" => *hook = Some(Turn::Start),
                    "stop" if world.state.ending == Some(Ending::Hook) => *hook = Some(Turn::Stop),
                    update if update.starts_with("update") => {
                        *hook = Some(Turn::Update(world.state.written.clone().unwrap()));
                    }
                    _ => {}
                }
            }
        };
        let finish = [Happening::Hello, Happening::Work(9, run)];
        let calm = (0..40).flat_map(|_| {
            [Happening::Started, Happening::Hook(true), Happening::Checked(true), Happening::Later(5), Happening::Ended]
        });
        for happening in happenings.into_iter().chain(finish).chain(calm) {
            match happening {
                Happening::Work(revision, run) => world.hear(work(&format!("r{revision}"), run)),
                Happening::Started if ordered && !world.process => {
                    ordered = false;
                    world.started();
                }
                // A process ends by itself only where it was told to, once all is calm.
                Happening::Ended if world.process && world.state.ending == Some(Ending::Process) => world.ended(0),
                Happening::Lost => {
                    ordered = false;
                    world.hear(Input::LauncherLost);
                }
                Happening::Hello => world.hear(hello(if world.process { 7 } else { 0 })),
                Happening::Checked(ok) => world.hear(Input::Checked(if ok { Ok(()) } else { Err("no".into()) })),
                Happening::Hook(ok) => {
                    if let Some(turn) = running_hook.take() {
                        world.hook(turn, if ok { Ok(()) } else { Err("no") });
                    }
                }
                Happening::Later(seconds) => world.later(u64::from(seconds)),
                Happening::Started | Happening::Ended => {}
            }
            settle(&mut world, &mut ordered, &mut running_hook);
            prop_assert!(world.stage() != Stage::Serving || world.process);
        }
        prop_assert_eq!(world.stage(), if run { Stage::Serving } else { Stage::Down });
        prop_assert_eq!(world.process, run);
    }
}
