//! Between a source and the HTTP service: feeds the pipeline and publishes what has been counted.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::check::Config;
use crate::check::stats::Stats;
use crate::http::{Incidents, State};
use crate::input::Input;
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
    published: Option<Instant>,
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
            ended: false,
        }
    }

    /// Takes the next input.
    pub(crate) fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
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
        self.pipeline.push(input);
        if self.ended || self.published.is_none_or(|at| at.elapsed() >= PUBLISH) {
            self.publish();
        }
        ControlFlow::Continue(())
    }

    fn set_source(&self, source: Source, up: bool) {
        self.state.set_source(self.part, source, up);
    }

    fn publish(&mut self) {
        self.published = Some(Instant::now());
        let mut stats = self.pipeline.stats().clone();
        stats.add_past(&self.past);
        self.state.publish(self.part, stats);
    }

    /// The source has ended; another one begins, and the counters go on.
    pub(crate) fn begin_again(&mut self) {
        self.ended = false;
        self.publish();
        let fresh = Pipeline::new(self.config, self.state.incidents_of_part(self.part));
        let ended = std::mem::replace(&mut self.pipeline, fresh);
        let mut past = ended.stats().clone();
        past.add_past(&self.past);
        self.past = past;
    }
}
