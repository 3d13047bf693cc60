//! What `serve` shows where there is no FreeBSD: the recordings that are part of the program, all at once and over and
//! over, a tree for each kernel.

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use super::feed::paced;
use super::ingest::Ingest;
use crate::check::Config;
use crate::http::{About, State};
use crate::input::{Input, Sink};
use crate::metrics::{Origin, Source};
use crate::recording::BUNDLED;
use crate::source::replay::{Replay, ReplayError};
use crate::source::stop::Stop;

/// Between the end of a recording and its next beginning, at normal speed.
const PAUSE: Duration = Duration::from_secs(5);

/// What the tree of each recording is called, and the recording.
const RECORDINGS: [(&str, &[u8]); 3] = [
    ("13.2-merged", BUNDLED),
    ("13.2", include_bytes!("../../recordings/split-13.2-chain-stall.kqr")),
    // A consumer that a current kernel did not give a NOTE_EXIT.
    ("15.1", include_bytes!("../../recordings/consumer-15.1-one-lost-exit.kqr")),
];

/// The kernels and the origin that the service shows.
///
/// # Errors
/// None, as long as the build is sound.
pub(super) fn about() -> Result<About, ReplayError> {
    let mut releases = Vec::new();
    for (name, bytes) in RECORDINGS {
        let release = Replay::embedded(name, bytes)?.meta().osrelease().to_owned();
        if !releases.contains(&release) {
            releases.push(release);
        }
    }
    Ok(About {
        origin: Origin::Replay,
        detail: format!("{} bundled recordings, over and over", RECORDINGS.len()),
        osrelease: releases.join(" "),
        osreldate: 0,
        sources: vec![Source::Kqueue, Source::Dtrace],
    })
}

/// Plays all of them, so many times faster than they were recorded, until `stop`.
pub(super) fn run(state: &State, check: Config, speed: f64, stop: &Stop) {
    thread::scope(|scope| {
        for (part, (name, bytes)) in RECORDINGS.into_iter().enumerate() {
            let ingest = Ingest::part(state.clone(), check, part);
            scope.spawn(move || repeat(name, bytes, ingest, speed, stop));
        }
    });
}

fn repeat(name: &str, bytes: &'static [u8], mut ingest: Ingest, speed: f64, stop: &Stop) {
    while !stop.is_requested() {
        let played = Replay::embedded(name, bytes)
            .and_then(|replay| replay.play(&mut paced(renamed(name, &mut ingest), speed, stop)));
        if let Err(error) = played {
            tracing::error!(%error, "a bundled recording cannot be played");
            return;
        }
        ingest.begin_again();
        if speed > 0.0 {
            stop.wait(0, PAUSE.div_f64(speed));
        }
    }
}

/// Calls the tree as its kernel. That dtrace ends with its recording is no outage.
fn renamed(name: &str, ingest: &mut Ingest) -> impl FnMut(Input<'_>) -> ControlFlow<()> {
    move |input| match input {
        Input::Tree { id, .. } => ingest.push(Input::Tree { id, name }),
        Input::DtraceDown { .. } => ControlFlow::Continue(()),
        input => ingest.push(input),
    }
}
