//! The supervisor's policy: when to start dtrace, when to take it for hung, when to try again. Decisions alone, no process and
//! no clock.

use std::time::Duration;

/// How patient the supervisor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestartLimits {
    /// How long dtrace may compile and enable its probes before its first output.
    pub startup: Duration,
    /// How long it may be silent after that; its heartbeat comes every five seconds.
    pub silence: Duration,
    /// How long it may take to end after SIGTERM, before SIGKILL.
    pub grace: Duration,
    /// The first wait before it is started again; it doubles with every failure.
    pub retry_first: Duration,
    /// The longest wait.
    pub retry_most: Duration,
    /// How long it must have run to be called healthy: the next wait is the first again.
    pub healthy: Duration,
}

impl Default for RestartLimits {
    /// An emulated kernel takes many seconds to compile and enable a D program; a sound one half a second. The kernel
    /// itself ends a dtrace that has hung for 40 s (13.2 `dtrace.c:205`).
    fn default() -> RestartLimits {
        RestartLimits {
            startup: Duration::from_secs(180),
            silence: Duration::from_secs(15),
            grace: Duration::from_secs(10),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(60),
            healthy: Duration::from_secs(60),
        }
    }
}

/// What the supervisor sees. Times are since any origin, always the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) now: Duration,
    pub(crate) exited: bool,
    /// When it last printed something, if it ever did.
    pub(crate) last_output: Option<Duration>,
    /// Its program is not the one that is to run any more.
    pub(crate) outdated: bool,
    pub(crate) stops: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Start,
    /// Send SIGTERM. It was asked for, another program is to run, or dtrace has been silent for so long.
    Terminate(Option<Duration>),
    Kill,
    /// Forget the process, which has ended.
    Forget,
    /// Look again after this time, or as soon as something has changed.
    Wait(Duration),
    /// Nothing is left to do.
    Over,
}

/// The state of one supervised process.
#[derive(Debug)]
pub(crate) struct RestartPolicy {
    limits: RestartLimits,
    retry: Duration,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle { until: Duration },
    Running { since: Duration },
    Ending { since: Duration, began: Duration, killed: bool },
}

impl RestartPolicy {
    /// Starts at once.
    pub(crate) fn new(limits: RestartLimits) -> RestartPolicy {
        let until = Duration::ZERO;
        RestartPolicy { limits, retry: limits.retry_first, phase: Phase::Idle { until } }
    }

    /// The next action; the caller carries it out before it asks again.
    pub(crate) fn next(&mut self, view: &View) -> Action {
        let View { now, exited, last_output, outdated, stops } = *view;
        match self.phase {
            Phase::Idle { .. } if stops > 0 => Action::Over,
            Phase::Idle { until } if now < until => Action::Wait(until - now),
            Phase::Idle { .. } => {
                self.phase = Phase::Running { since: now };
                Action::Start
            }
            Phase::Running { since } | Phase::Ending { began: since, .. } if exited => {
                match outdated {
                    true => self.phase = Phase::Idle { until: now },
                    false => self.rest(now, since),
                }
                Action::Forget
            }
            Phase::Running { since } => {
                let (from, patience) = match last_output {
                    Some(last_output) => (last_output, self.limits.silence),
                    None => (since, self.limits.startup),
                };
                let silent = now.saturating_sub(from);
                let wanted = stops == 0 && !outdated;
                if wanted && silent <= patience {
                    return Action::Wait(patience - silent);
                }
                self.phase = Phase::Ending { since: now, began: since, killed: false };
                Action::Terminate(wanted.then_some(silent))
            }
            Phase::Ending { since, began, killed: false }
                if stops > 1 || now.saturating_sub(since) >= self.limits.grace =>
            {
                self.phase = Phase::Ending { since, began, killed: true };
                Action::Kill
            }
            Phase::Ending { since, killed: false, .. } => {
                Action::Wait((since + self.limits.grace).saturating_sub(now))
            }
            // Nothing is left to do but to wait for its end.
            Phase::Ending { .. } => Action::Wait(Duration::MAX),
        }
    }

    pub(crate) fn failed(&mut self, now: Duration) {
        self.rest(now, now);
    }

    /// When it will be started again, if it will.
    pub(crate) fn retry_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Idle { until } => Some(until),
            _ => None,
        }
    }

    fn rest(&mut self, now: Duration, since: Duration) {
        if now.saturating_sub(since) >= self.limits.healthy {
            self.retry = self.limits.retry_first;
        }
        self.phase = Phase::Idle { until: now + self.retry };
        self.retry = (self.retry * 2).min(self.limits.retry_most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RestartLimits = RestartLimits {
        startup: Duration::from_secs(60),
        silence: Duration::from_secs(5),
        grace: Duration::from_secs(3),
        retry_first: Duration::from_secs(1),
        retry_most: Duration::from_secs(60),
        healthy: Duration::from_secs(60),
    };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(now: u64) -> View {
        View { now: s(now), exited: false, last_output: None, outdated: false, stops: 0 }
    }

    fn wait(seconds: u64) -> Action {
        Action::Wait(s(seconds))
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again_after_a_healthy_run() {
        let mut policy = RestartPolicy::new(LIMITS);
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(policy.next(&at(now)), Action::Start);
            assert_eq!(policy.next(&View { exited: true, ..at(now) }), Action::Forget);
            assert_eq!(policy.next(&at(now)), Action::Wait(s(wait)));
            now += wait;
        }
        assert_eq!(policy.next(&at(now)), Action::Start);
        now += 60;
        assert_eq!(policy.next(&View { exited: true, ..at(now) }), Action::Forget);
        assert_eq!(policy.next(&at(now)), Action::Wait(s(1)));
    }

    #[test]
    fn what_cannot_be_started_is_tried_again_later() {
        let mut policy = RestartPolicy::new(LIMITS);
        assert_eq!(policy.next(&at(7)), Action::Start);
        policy.failed(s(7));
        assert_eq!(policy.retry_at(), Some(s(8)));
        assert_eq!(policy.next(&at(7)), Action::Wait(s(1)));
        assert_eq!(policy.next(&at(8)), Action::Start);
    }

    #[test]
    fn silence_is_a_hang_but_compiling_is_not() {
        let mut policy = RestartPolicy::new(LIMITS);
        assert_eq!(policy.next(&at(0)), Action::Start);
        assert_eq!(policy.next(&at(59)), wait(1));
        assert_eq!(policy.next(&View { last_output: Some(s(59)), ..at(62) }), wait(2));
        let hung = View { last_output: Some(s(59)), ..at(65) };
        assert_eq!(policy.next(&hung), Action::Terminate(Some(s(6))));
        assert_eq!(policy.next(&View { now: s(67), ..hung }), wait(1));
        assert_eq!(policy.next(&View { now: s(68), ..hung }), Action::Kill);
        assert_eq!(policy.next(&View { now: s(69), ..hung }), Action::Wait(Duration::MAX));
        assert_eq!(policy.next(&View { now: s(69), exited: true, ..hung }), Action::Forget);
        assert_eq!(policy.next(&at(70)), Action::Start);
    }

    #[test]
    fn it_hangs_too_when_it_never_says_anything() {
        let mut policy = RestartPolicy::new(LIMITS);
        assert_eq!(policy.next(&at(0)), Action::Start);
        assert_eq!(policy.next(&at(61)), Action::Terminate(Some(s(61))));
    }

    #[test]
    fn another_program_is_started_at_once() {
        let mut policy = RestartPolicy::new(LIMITS);
        assert_eq!(policy.next(&at(0)), Action::Start);
        let outdated = |now| View { outdated: true, ..at(now) };
        assert_eq!(policy.next(&outdated(1)), Action::Terminate(None));
        assert_eq!(policy.next(&outdated(2)), wait(2));
        assert_eq!(policy.next(&View { exited: true, ..outdated(2) }), Action::Forget);
        assert_eq!(policy.next(&at(2)), Action::Start);
    }

    #[test]
    fn a_stop_ends_it_and_a_second_one_kills_it() {
        let mut policy = RestartPolicy::new(LIMITS);
        assert_eq!(policy.next(&at(0)), Action::Start);
        assert_eq!(policy.next(&View { stops: 1, ..at(1) }), Action::Terminate(None));
        assert_eq!(policy.next(&View { stops: 1, ..at(1) }), wait(3));
        assert_eq!(policy.next(&View { stops: 2, ..at(1) }), Action::Kill);
        assert_eq!(policy.next(&View { stops: 2, exited: true, ..at(1) }), Action::Forget);
        assert_eq!(policy.next(&View { stops: 2, ..at(1) }), Action::Over);
    }

    #[test]
    fn a_stop_while_it_rests_is_the_end() {
        let mut policy = RestartPolicy::new(LIMITS);
        assert_eq!(policy.next(&View { stops: 1, ..at(0) }), Action::Over);
    }
}
