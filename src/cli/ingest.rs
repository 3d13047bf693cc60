//! The sink of a source that is served: it feeds the pipeline, and publishes what was counted to the HTTP service.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::check::Config;
use crate::check::stats::Stats;
use crate::http::{Incidents, State};
use crate::input::{Input, Sink};
use crate::metrics::Source;
use crate::pipeline::Pipeline;

/// How old a published snapshot may be.
const PUBLISH: Duration = Duration::from_millis(100);

/// One pipeline after the other; their counters add up.
pub(crate) struct Ingest {
    pipeline: Pipeline<Incidents>,
    config: Config,
    /// The counters of the pipelines before.
    past: Stats,
    state: State,
    /// Which of the service's parts this is.
    part: usize,
    /// When something was published the last time.
    published: Option<Instant>,
    /// Nothing has been counted since.
    is_published: bool,
    /// What comes next belongs to another pipeline.
    ended: bool,
}

impl Ingest {
    /// Publishes to `state` what a cross-checker finds that is configured so.
    pub(crate) fn new(state: State, config: Config) -> Ingest {
        Ingest::part(state, config, 0)
    }

    /// The same for one of several kernels, number `part` from 0.
    pub(crate) fn part(state: State, config: Config, part: usize) -> Ingest {
        Ingest {
            pipeline: Pipeline::new(config, state.incidents_of_part(part)),
            config,
            past: Stats::default(),
            state,
            part,
            published: None,
            is_published: true,
            ended: false,
        }
    }

    fn set_source(&self, source: Source, up: bool) {
        self.state.set_source(self.part, source, up);
    }

    fn publish(&mut self) {
        self.published = Some(Instant::now());
        self.is_published = true;
        let mut stats = self.pipeline.stats().clone();
        stats.add_past(&self.past);
        self.state.publish(self.part, stats);
    }

    /// The source has ended; another one begins, and the counters go on.
    pub(crate) fn begin_again(&mut self) {
        self.ended = false;
        self.publish();
        let incidents = self.state.incidents_of_part(self.part);
        incidents.run_ended(self.pipeline.stats());
        let ended = std::mem::replace(&mut self.pipeline, Pipeline::new(self.config, incidents));
        let mut past = ended.stats().clone();
        past.add_past(&self.past);
        self.past = past;
    }
}

impl Sink for Ingest {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        if self.ended {
            self.begin_again();
        }
        match &input {
            Input::Batch(_) => self.set_source(Source::Kqueue, true),
            Input::Stdout { .. } => self.set_source(Source::Dtrace, true),
            Input::Forks { .. } => self.set_source(Source::Sysctl, true),
            Input::DtraceDown { .. } => self.set_source(Source::Dtrace, false),
            _ => {}
        }
        self.ended = input == Input::End;
        // The batch of an idle call is no news by itself: its marks come right behind it.
        let is_news = !matches!(input, Input::Batch(batch) if batch.events.is_empty());
        self.is_published &= !is_news;
        self.pipeline.push(input);
        match self.ended {
            true => self.publish(),
            false => drop(self.idle()),
        }
        ControlFlow::Continue(())
    }

    /// Publishes what is not published yet, unless that was done a moment ago. How long that is to be waited for.
    fn idle(&mut self) -> Option<Duration> {
        if self.is_published {
            return None;
        }
        let age = self.published.map(|at| at.elapsed());
        let left = age.and_then(|age| PUBLISH.checked_sub(age));
        if left.is_none() {
            self.publish();
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::About;
    use crate::metrics::Origin;
    use crate::model::MonoTime;
    use crate::source::replay::Replay;

    fn state() -> State {
        State::new(About {
            origin: Origin::Live,
            detail: String::new(),
            osrelease: String::new(),
            osreldate: 0,
            sources: vec![Source::Dtrace],
        })
    }

    /// The next run may be of a host that was booted, whose DTrace counts from 0 again.
    #[test]
    fn an_incident_keeps_the_time_of_its_run_when_another_one_begins() {
        let state = state();
        let mut ingest = Ingest::new(state.clone(), Config::default());
        let recording = Replay::bundled().expect("it is part of the program");
        recording.play(&mut |input: Input<'_>| ingest.push(input)).expect("it is whole");
        let wall_ns = || state.incidents().get(1).expect("an incident").wall_ns;
        assert_eq!(wall_ns(), None, "by the clock of the present run");
        ingest.begin_again();
        let of_its_run = wall_ns().expect("a time");
        let _ = ingest.push(Input::Stdout { at: MonoTime(1), bytes: b"B 5 1999999999000000000\n" });
        ingest.begin_again();
        assert_eq!(wall_ns(), Some(of_its_run));
    }

    #[test]
    fn what_came_right_behind_a_snapshot_is_published_though_nothing_else_comes() {
        let state = state();
        let mut ingest = Ingest::new(state.clone(), Config::default());
        let published = || state.stats().records.iter().sum::<u64>();
        for (tick, counted) in [("T 1 1\n", 1), ("T 2 2\n", 1)] {
            let _ = ingest.push(Input::Stdout { at: MonoTime(1), bytes: tick.as_bytes() });
            assert_eq!(published(), counted);
        }
        let wait = ingest.idle().expect("it is not published");
        assert!(wait <= PUBLISH);
        while let Some(wait) = ingest.idle() {
            std::thread::sleep(wait);
        }
        assert_eq!(published(), 2);
        assert_eq!(ingest.idle(), None, "it sleeps until something comes");
    }
}
