//! Inputs that can be kept, moved and played again.

use kqproc_exporter::input::{Attach, Batch, Input};
use kqproc_exporter::model::{Kevent, MonoTime};

/// An input that owns what it says.
#[derive(Clone)]
pub enum Owned {
    Batch { head: Batch<'static>, attached: Vec<Attach>, events: Vec<Kevent> },
    Stdout(MonoTime, Vec<u8>),
    Stderr(MonoTime, Vec<u8>),
    Other(Input<'static>),
}

impl Owned {
    pub fn of(input: Input<'_>) -> Owned {
        match input {
            Input::Batch(batch) => Owned::Batch {
                head: Batch { attached: &[], events: &[], ..batch },
                attached: batch.attached.to_vec(),
                events: batch.events.to_vec(),
            },
            Input::Stdout { at, bytes } => Owned::Stdout(at, bytes.to_vec()),
            Input::Stderr { at, bytes } => Owned::Stderr(at, bytes.to_vec()),
            Input::Tree { id, .. } => Owned::Other(Input::Tree { id, name: "tree" }),
            Input::DtraceUp { at } => Owned::Other(Input::DtraceUp { at }),
            Input::DtraceDown { at } => Owned::Other(Input::DtraceDown { at }),
            Input::Forks { at, total } => Owned::Other(Input::Forks { at, total }),
            Input::TreeGone { id } => Owned::Other(Input::TreeGone { id }),
            Input::BatchesLost { first, count, from, to } => {
                Owned::Other(Input::BatchesLost { first, count, from, to })
            }
            Input::Config(config) => Owned::Other(Input::Config(config)),
            Input::Consumer { id, pid } => Owned::Other(Input::Consumer { id, pid }),
            Input::End => Owned::Other(Input::End),
        }
    }

    pub fn with(&self, each: &mut impl FnMut(Input<'_>)) {
        match self {
            Owned::Batch { head, attached, events } => {
                each(Input::Batch(Batch { attached, events, ..*head }));
            }
            Owned::Stdout(at, bytes) => each(Input::Stdout { at: *at, bytes }),
            Owned::Stderr(at, bytes) => each(Input::Stderr { at: *at, bytes }),
            Owned::Other(input) => each(*input),
        }
    }

    pub fn at(&self) -> Option<MonoTime> {
        match self {
            Owned::Batch { head, .. } => Some(head.after),
            Owned::Stdout(at, _) | Owned::Stderr(at, _) => Some(*at),
            Owned::Other(Input::DtraceUp { at } | Input::DtraceDown { at }) => Some(*at),
            Owned::Other(Input::Forks { at, .. }) => Some(*at),
            Owned::Other(_) => None,
        }
    }

    /// As if the reader's clock had been `ns` ahead.
    pub fn delay(&mut self, ns: u64) {
        match self {
            Owned::Batch { head: Batch { before, after, .. }, .. } => {
                (before.0, after.0) = (before.0 + ns, after.0 + ns);
            }
            Owned::Stdout(at, _) | Owned::Stderr(at, _) => at.0 += ns,
            Owned::Other(
                Input::DtraceUp { at } | Input::DtraceDown { at } | Input::Forks { at, .. },
            ) => at.0 += ns,
            Owned::Other(_) => {}
        }
    }

    pub fn is_batch(&self) -> bool {
        matches!(self, Owned::Batch { .. })
    }
}
