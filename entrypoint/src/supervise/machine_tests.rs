//! Every stop ends in time, no transition is illegal, whatever comes in whatever order.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use services::{Kind, Origin, Restart, RestartWhen};

use super::machine::{Action, Event, Machine, Phase, Rules, State};
use crate::sys::Ended;

fn rules(kind: Kind, when: RestartWhen) -> Rules {
    Rules {
        kind,
        origin: Origin::Unit,
        pre: 1,
        start: 1,
        post: 1,
        stop: 1,
        stop_post: 1,
        check: None,
        start_timeout: Some(Duration::from_secs(90)),
        stop_timeout: Some(Duration::from_secs(5)),
        restart: Restart {
            when,
            success_codes: Vec::new(),
            success_signals: vec![15],
            prevent_codes: vec![42],
            force_codes: Vec::new(),
            delay: None,
            limit: Some(3),
        },
    }
}

const SIMPLE: Kind = Kind::Simple {
    settle: Duration::ZERO,
};
const OK: Ended = Ended::Exit(0);

fn ready(machine: &mut Machine, now: Instant) {
    machine.handle(&Event::Start, now);
    machine.handle(&Event::StepEnded(OK), now);
    machine.handle(&Event::Spawned, now);
    assert_eq!(machine.handle(&Event::StepEnded(OK), now), [Action::Ready]);
}

#[test]
fn post_commands_come_before_ready() {
    let now = Instant::now();
    let mut m = Machine::new(rules(SIMPLE, RestartWhen::Never), State::Waiting, now);
    assert_eq!(m.handle(&Event::Start, now), [Action::Run(Phase::Pre, 0)]);
    assert_eq!(
        m.handle(&Event::StepEnded(OK), now),
        [Action::Run(Phase::Start, 0)]
    );
    assert_eq!(
        m.handle(&Event::Spawned, now),
        [Action::Run(Phase::Post, 0)]
    );
    assert_eq!(m.handle(&Event::StepEnded(OK), now), [Action::Ready]);
    assert_eq!(m.deadline(), None);
}

/// The time to settle was that of these commands too: each was ended at once.
#[test]
fn what_has_settled_has_its_start_timeout_for_its_post_commands() {
    let now = Instant::now();
    let settle = Duration::from_secs(1);
    let kind = Kind::Simple { settle };
    let mut m = Machine::new(rules(kind, RestartWhen::Never), State::Waiting, now);
    m.handle(&Event::Start, now);
    m.handle(&Event::StepEnded(OK), now);
    assert_eq!(m.handle(&Event::Spawned, now), []);
    let settled = m.deadline().unwrap();
    assert_eq!(settled, now + settle);
    assert_eq!(
        m.handle(&Event::Deadline, settled),
        [Action::Run(Phase::Post, 0)]
    );
    assert_eq!(m.deadline(), Some(settled + Duration::from_secs(90)));
    let later = settled + Duration::from_secs(30);
    assert_eq!(m.handle(&Event::StepEnded(OK), later), [Action::Ready]);
    assert_eq!(m.deadline(), None);
}

#[test]
fn after_a_stable_run_the_first_restart_is_at_once() {
    let now = Instant::now();
    let mut m = Machine::new(rules(SIMPLE, RestartWhen::Always), State::Waiting, now);
    ready(&mut m, now);
    let later = now + Duration::from_secs(60);
    m.handle(&Event::MainEnded(Ended::Signal(9)), later);
    assert_eq!(
        m.handle(&Event::Cleared, later),
        [Action::Run(Phase::StopPost, 0)]
    );
    // What that command left is cleared as well.
    let clear = Action::Clear { gentle: false };
    assert_eq!(m.handle(&Event::StepEnded(OK), later), [clear]);
    assert_eq!(
        m.handle(&Event::Cleared, later),
        [Action::Run(Phase::Pre, 0)]
    );
}

#[test]
fn quick_deaths_back_off_and_end() {
    let now = Instant::now();
    let mut m = Machine::new(rules(SIMPLE, RestartWhen::Always), State::Waiting, now);
    for attempt in 1..=3 {
        if attempt == 1 {
            m.handle(&Event::Start, now);
        }
        m.handle(&Event::StepEnded(OK), now);
        m.handle(&Event::Spawned, now);
        m.handle(&Event::MainEnded(Ended::Exit(1)), now);
        m.handle(&Event::Cleared, now);
        m.handle(&Event::StepEnded(OK), now);
        let last = m.handle(&Event::Cleared, now);
        if attempt < 3 {
            assert_eq!(m.state(), State::Backoff);
            m.handle(&Event::Deadline, now);
        } else {
            assert!(matches!(&last[..], [Action::GaveUp(_)]), "{last:?}");
        }
    }
    assert_eq!(m.state(), State::Failed);
}

#[test]
fn what_may_not_be_restarted_is_not() {
    let now = Instant::now();
    for (when, ended, state) in [
        (RestartWhen::Never, OK, State::Finished),
        (RestartWhen::Never, Ended::Exit(1), State::Failed),
        (RestartWhen::Always, Ended::Exit(42), State::Failed),
        (RestartWhen::OnFailure, Ended::Signal(15), State::Finished),
        (RestartWhen::OnFailure, Ended::Exit(1), State::Backoff),
        (RestartWhen::OnAbnormal, Ended::Exit(1), State::Failed),
        (RestartWhen::OnSuccess, OK, State::Backoff),
    ] {
        let mut m = Machine::new(rules(SIMPLE, when), State::Waiting, now);
        ready(&mut m, now);
        m.handle(&Event::MainEnded(ended), now);
        m.handle(&Event::Cleared, now);
        m.handle(&Event::StepEnded(OK), now);
        m.handle(&Event::Cleared, now);
        assert_eq!(m.state(), state, "{when:?} {ended:?}");
    }
}

fn event() -> impl Strategy<Value = Event> {
    let ended = prop_oneof![
        Just(OK),
        Just(Ended::Exit(1)),
        Just(Ended::Exit(42)),
        Just(Ended::Signal(9)),
        Just(Ended::Signal(15))
    ];
    prop_oneof![
        Just(Event::Start),
        Just(Event::Spawned),
        Just(Event::SpawnFailed("x".to_owned())),
        ended.clone().prop_map(Event::StepEnded),
        ended.prop_map(Event::MainEnded),
        Just(Event::MainFound),
        Just(Event::MainMissing("x".to_owned())),
        Just(Event::Notified),
        Just(Event::Deadline),
        Just(Event::Stop(Duration::from_secs(3))),
        Just(Event::Restart(Duration::from_secs(3))),
        Just(Event::Hurry),
        Just(Event::Cleared),
    ]
}

/// Units of all kinds, with all and without any commands and a readiness check, and programs.
fn any_rules() -> impl Strategy<Value = Rules> {
    let kind = prop_oneof![
        Just(SIMPLE),
        Just(Kind::Notify),
        Just(Kind::Oneshot),
        Just(Kind::Forking { pid_file: None }),
    ];
    let settle = prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(1))];
    let when = prop_oneof![
        Just(RestartWhen::Never),
        Just(RestartWhen::Always),
        Just(RestartWhen::OnFailure),
        Just(RestartWhen::OnSuccess),
        Just(RestartWhen::OnAbnormal),
    ];
    let check = any::<bool>();
    let counts = (0..3_usize, 0..3_usize, 0..2_usize, 0..3_usize, 0..3_usize);
    let limit = prop_oneof![Just(None), Just(Some(3))];
    let timeout = prop_oneof![Just(None), (1..100_u64).prop_map(Some)];
    (
        kind,
        settle,
        when,
        check,
        counts,
        limit,
        timeout,
        any::<bool>(),
    )
        .prop_map(
            |(kind, settle, when, check, counts, limit, timeout, is_program)| {
                let mut rules = rules(kind, when);
                (
                    rules.pre,
                    rules.start,
                    rules.post,
                    rules.stop,
                    rules.stop_post,
                ) = counts;
                // Only a one-shot may do without.
                if rules.kind != Kind::Oneshot {
                    rules.start = 1;
                }
                rules.check = check.then(|| (Duration::from_secs(5), "x".to_owned()));
                rules.restart.limit = limit;
                rules.stop_timeout = timeout.map(Duration::from_secs);
                if is_program {
                    rules.origin = Origin::Program;
                    rules.kind = Kind::Simple { settle };
                    (rules.pre, rules.start, rules.post) = (0, 1, 0);
                    (rules.stop, rules.stop_post) = (0, 0);
                    rules.restart.success_codes = vec![0];
                }
                rules
            },
        )
}

/// All transitions that there are, but for those from a state to itself.
fn is_legal(from: State, to: State, rules: &Rules) -> bool {
    use State as S;
    // What a start begins with: the first thing that there is to do.
    let is_first = match to {
        S::Preparing(0) => rules.pre > 0,
        S::Starting(0) => rules.pre == 0 && rules.start > 0,
        S::Posting(0) => rules.pre == 0 && rules.start == 0 && rules.post > 0,
        S::Clearing => rules.kind == Kind::Oneshot && rules.pre + rules.start + rules.post == 0,
        _ => false,
    };
    let is_after_start = match to {
        S::Posting(0) => rules.post > 0,
        S::Checking => rules.post == 0 && rules.check.is_some(),
        S::Ready => rules.post == 0 && rules.check.is_none(),
        _ => false,
    };
    let is_stop = match to {
        S::StopCommand(0) => rules.stop > 0,
        S::Stopping => rules.stop == 0,
        S::Clearing => true,
        _ => false,
    };
    match (from, to) {
        (S::Waiting | S::Backoff, S::Stopped) => true,
        (S::Waiting | S::Backoff | S::Stopped | S::Finished | S::Failed, _) => is_first,
        (S::Preparing(n), S::Preparing(next)) => next == n + 1 && next < rules.pre,
        (S::Preparing(n), S::Starting(0)) => n + 1 == rules.pre && rules.start > 0,
        (S::Preparing(n), S::Posting(0)) => {
            n + 1 == rules.pre && rules.start == 0 && rules.post > 0
        }
        (S::Preparing(_), _) => to == S::Clearing,
        (S::Starting(n), S::Starting(next)) => {
            rules.kind == Kind::Oneshot && next == n + 1 && next < rules.start
        }
        // It has no stop command before it has started.
        (S::Starting(_), S::Stopping | S::Clearing) => true,
        (S::Starting(_), _) => is_after_start,
        (S::Posting(n), S::Posting(next)) => next == n + 1 && next < rules.post,
        (S::Posting(n), S::Checking) => n + 1 == rules.post && rules.check.is_some(),
        (S::Posting(n), S::Ready) => n + 1 == rules.post && rules.check.is_none(),
        (S::Checking, S::Ready) => true,
        (S::Posting(_) | S::Checking | S::Ready, _) => is_stop,
        (S::StopCommand(n), S::StopCommand(next)) => next == n + 1 && next < rules.stop,
        (S::StopCommand(_), _) => matches!(to, S::Stopping | S::Clearing),
        (S::Stopping, _) => to == S::Clearing,
        (S::Clearing, S::Cleaning(0)) => rules.stop_post > 0,
        (S::Clearing, S::Stopped | S::Finished | S::Failed | S::Backoff) => true,
        // It starts again at once.
        (S::Clearing, _) => is_first,
        (S::Cleaning(n), S::Cleaning(next)) => next == n + 1 && next < rules.stop_post,
        (S::Cleaning(_), _) => to == S::Clearing,
        (S::Skipped, _) => false,
    }
}

/// What a user relies on, whatever happens in whatever order.
#[derive(Default)]
struct Watched {
    /// Something of it may be there: it is not cleared since the last command.
    alive: bool,
}

impl Watched {
    fn handle(&mut self, m: &mut Machine, rules: &Rules, event: &Event, now: Instant) {
        let before = m.state();
        let actions = m.handle(event, now);
        let after = m.state();
        let told = || format!("{before:?} to {after:?} by {event:?}: {actions:?}, {rules:?}");
        assert!(
            before == after || is_legal(before, after, rules),
            "{}",
            told()
        );
        if before.is_over() && after != before {
            assert!(
                matches!(event, Event::Start | Event::Restart(_)),
                "{}",
                told()
            );
        }
        if before == State::Clearing && *event == Event::Cleared {
            self.alive = false;
        }
        for action in &actions {
            match action {
                // Nothing starts beside what is left of the time before.
                Action::Run(Phase::Pre | Phase::Start, 0)
                    if !matches!(before, State::Preparing(_)) =>
                {
                    assert!(!self.alive, "{}", told());
                }
                Action::Ready => assert_eq!(after, State::Ready, "{}", told()),
                Action::Finished => assert_eq!(after, State::Finished, "{}", told()),
                Action::GaveUp(_) => assert_eq!(after, State::Failed, "{}", told()),
                Action::Clear { .. } => assert_eq!(after, State::Clearing, "{}", told()),
                _ => {}
            }
            self.alive |= matches!(action, Action::Run(..));
        }
        assert!(!(after.is_over() && self.alive), "{}", told());
        // Who waits for something without an end would wait for ever.
        let waits = matches!(
            after,
            State::StopCommand(_) | State::Stopping | State::Cleaning(_) | State::Backoff
        );
        assert!(!waits || m.deadline().is_some(), "{}", told());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_transition_is_illegal_and_every_stop_ends(
        events in prop::collection::vec(event(), 0..60),
        rules in any_rules(),
        hurried: bool,
    ) {
        let mut now = Instant::now();
        let mut m = Machine::new(rules.clone(), State::Waiting, now);
        let mut watched = Watched::default();
        for event in &events {
            now += Duration::from_millis(100);
            watched.handle(&mut m, &rules, event, now);
        }
        // Nothing answers any more: time and SIGKILL alone bring it to its end.
        let asked = now;
        let limit = Duration::from_secs(3);
        watched.handle(&mut m, &rules, &Event::Stop(limit), now);
        if hurried {
            watched.handle(&mut m, &rules, &Event::Hurry, now);
        }
        for _ in 0..20 {
            if let Some(deadline) = m.deadline() {
                now = now.max(deadline);
                watched.handle(&mut m, &rules, &Event::Deadline, now);
            }
            if m.state() == State::Clearing {
                watched.handle(&mut m, &rules, &Event::Cleared, now);
            }
        }
        prop_assert!(m.state().is_over(), "{:?}", m.state());
        let took = now.duration_since(asked);
        prop_assert!(took <= if hurried { Duration::ZERO } else { limit }, "{took:?} {rules:?}");
    }
}

#[test]
fn delays_double_and_differ_by_a_fifth() {
    for (deaths, wanted) in [
        (1, 0.1),
        (2, 0.2),
        (3, 0.4),
        (7, 6.4),
        (8, 10.0),
        (30, 10.0),
    ] {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let now = Instant::now();
            let mut rules = rules(SIMPLE, RestartWhen::Always);
            (rules.pre, rules.post, rules.stop_post) = (0, 0, 0);
            rules.restart.limit = None;
            let mut m = Machine::new(rules, State::Waiting, now);
            m.handle(&Event::Start, now);
            let mut delay = Duration::ZERO;
            for _ in 0..deaths {
                m.handle(&Event::Spawned, now);
                m.handle(&Event::MainEnded(Ended::Exit(1)), now);
                m.handle(&Event::Cleared, now);
                assert_eq!(m.state(), State::Backoff);
                delay = m.deadline().unwrap() - now;
                m.handle(&Event::Deadline, now);
            }
            // In whole nanoseconds: 5.12 s of 6.4 s are 0.7999… as a fraction.
            let bounds = [0.8, 1.2].map(|part| Duration::from_secs_f64(wanted).mul_f64(part));
            let within = bounds[0] <= delay && delay <= bounds[1];
            assert!(within, "{delay:?} for {wanted} s");
            seen.insert(delay);
        }
        assert!(seen.len() > 10, "{seen:?}");
    }
}
