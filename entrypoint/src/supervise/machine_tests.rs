//! Every stop ends, no transition is illegal, whatever comes in whatever order.

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
    assert_eq!(
        m.handle(&Event::StepEnded(OK), later),
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
        let last = m.handle(&Event::StepEnded(OK), now);
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

proptest! {
    #[test]
    fn every_stop_ends(
        events in prop::collection::vec(event(), 0..60),
        kind in prop_oneof![Just(SIMPLE), Just(Kind::Notify), Just(Kind::Oneshot), Just(Kind::Forking { pid_file: None })],
        when in prop_oneof![Just(RestartWhen::Never), Just(RestartWhen::Always), Just(RestartWhen::OnFailure)],
    ) {
        let mut now = Instant::now();
        let mut m = Machine::new(rules(kind, when), State::Waiting, now);
        for event in &events {
            now += Duration::from_millis(100);
            let before = m.state();
            m.handle(event, now);
            if before == State::Failed || before == State::Stopped {
                let asked = matches!(event, Event::Start | Event::Restart(_));
                prop_assert!(asked || m.state() == before, "{:?} by {:?}", m.state(), event);
            }
        }
        // Nothing answers any more: time and SIGKILL alone bring it to its end.
        m.handle(&Event::Stop(Duration::from_secs(3)), now);
        for _ in 0..20 {
            if let Some(deadline) = m.deadline() {
                now = now.max(deadline);
                m.handle(&Event::Deadline, now);
            }
            if m.state() == State::Clearing {
                m.handle(&Event::Cleared, now);
            }
        }
        prop_assert!(m.state().is_over(), "{:?}", m.state());
    }
}
