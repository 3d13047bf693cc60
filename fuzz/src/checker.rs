//! Bytes as a history of two witnesses that may contradict each other and themselves.

use kqproc_exporter::input::{Attach, Batch, Input};
use kqproc_exporter::model::{Kevent, MonoTime, Pid, TreeId, note};

use super::play::Play;

/// Few, so that they are used again and again.
const PIDS: u8 = 12;

/// Bytes that are read as choices. After the last one comes 0 for ever.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Mostly one of a few numbers, so that things meet; at times any number.
    fn few(&mut self, n: u8) -> u64 {
        match self.byte() {
            255 => self.number(),
            byte => u64::from(byte % n),
        }
    }

    fn pid(&mut self) -> Pid {
        Pid::new(self.few(PIDS) % u64::from(PIDS)).expect("a pid")
    }

    fn kevent(&mut self) -> Kevent {
        let bits = [note::CHILD, note::EXIT, note::FORK, note::EXEC, note::TRACKERR];
        let choice = self.byte();
        let bit = |i: usize| if choice >> i & 1 == 1 { bits[i] } else { 0 };
        Kevent {
            ident: self.few(PIDS),
            flags: if choice & 0x20 != 0 { note::EV_ONESHOT } else { note::EV_CLEAR },
            fflags: (0..5).fold(0, |flags, i| flags | bit(i)),
            data: self.few(PIDS) as i64,
            udata: if choice & 0x40 != 0 { TreeId(1).cookie() } else { TreeId(0).cookie() },
        }
    }
}

/// The two clocks, and the number of the last call.
#[derive(Default)]
struct World {
    now: u64,
    seq: u64,
}

impl World {
    /// Mostly a little later, at times much later, earlier, or anywhere.
    fn step(&mut self, choices: &mut Choices<'_>) -> u64 {
        let now = match choices.byte() {
            byte @ ..=239 => self.now.saturating_add(u64::from(byte) * 4_000_000),
            byte @ ..=247 => self.now.saturating_add(u64::from(byte) << 27),
            byte @ ..=253 => return self.now.saturating_sub(u64::from(byte - 247) * 50_000_000),
            _ => return choices.number(),
        };
        self.now = now;
        now
    }

    fn line(&mut self, choices: &mut Choices<'_>) -> String {
        let at = self.step(choices);
        let status = u32::from(choices.byte() % 3) << 8;
        let choice = choices.byte();
        if choice >= 192 {
            return consumer(at, choices);
        }
        match choice % 12 {
            0 => format!("B {at} {at}\n"),
            1 => format!("T {at} {at}\n"),
            2..=5 => {
                let (child, forker) = (choices.pid(), choices.pid());
                format!("C {at} 0 {child} {forker} {forker} 0\n")
            }
            6..=8 => format!("X {at} 0 {} 1 1 {status}\n", choices.pid()),
            9 => format!("R {at} 0 {} 12\n", choices.pid()),
            10 => self.mark(at, self.seq.saturating_sub(choices.few(3))),
            _ => format!("C {at} 0 {} nonsense\n", choices.byte()),
        }
    }

    fn mark(&self, at: u64, seq: u64) -> String {
        let entered = at.saturating_sub(1_000_000);
        format!("M {at} 0 {entered} {} 0 0\n", Batch::capacity_of(seq))
    }

    /// A call, with its mark on DTrace's stdout or without.
    fn batch(&mut self, choices: &mut Choices<'_>, play: &mut Play) {
        let shape = choices.byte();
        let attached: Vec<Attach> = (0..shape & 1)
            .map(|_| Attach {
                tree: TreeId(choices.few(3).min(9) as u16),
                pid: choices.pid(),
                root: true,
                errno: i32::from(choices.byte() & 1) * 3,
                notes: Attach::USUAL_NOTES,
            })
            .collect();
        let events: Vec<Kevent> = (0..shape >> 1 & 7).map(|_| choices.kevent()).collect();
        let seq = if shape & 0x80 != 0 { choices.few(4) } else { self.seq };
        let at = self.step(choices);
        let (before, after) = (MonoTime(at.saturating_sub(1_000_000)), MonoTime(at));
        let capacity = Batch::capacity_of(seq);
        play.push(Input::Batch(Batch {
            seq,
            capacity,
            before,
            after,
            attached: &attached,
            events: &events,
        }));
        self.seq = self.seq.max(seq.saturating_add(1));
        if shape & 0x40 == 0 {
            let mark = self.mark(at, seq);
            play.push(Input::Stdout { at: MonoTime(at), bytes: mark.as_bytes() });
        }
    }
}

/// A line about a consumer.
fn consumer(at: u64, choices: &mut Choices<'_>) -> String {
    let (consumer, tid) = (choices.few(2) % 2 + 1, choices.byte() % 2);
    let event = |choices: &mut Choices<'_>| {
        let Kevent { ident, flags, fflags, data, .. } = choices.kevent();
        (ident % 100_000, flags, fflags, data)
    };
    match choices.byte() % 4 {
        0 => {
            let (ident, flags, fflags, _) = event(choices);
            let own = choices.byte() & 1;
            format!("A {at} 0 {tid} {own} 3 ff {ident} -5 {flags:x} {fflags:x} 0 {consumer}\n")
        }
        1 => format!("a {at} 0 {tid} {} {consumer}\n", choices.byte() % 4),
        2 => {
            let events: String = (0..8)
                .map(|_| {
                    let (ident, flags, fflags, data) = event(choices);
                    format!(" {ident} -5 {flags:x} {fflags:x} {data}")
                })
                .collect();
            format!("N {at} 0 {tid} 3 {}{events} {consumer}\n", choices.byte() % 10)
        }
        _ => format!("M {at} 0 {tid} 3 8 {} 0 {consumer}\n", i32::from(choices.byte() % 9) - 1),
    }
}

/// A history of both witnesses, each of which may be wrong.
pub fn checker(data: &[u8]) {
    let (mut choices, mut world, mut play) =
        (Choices(data), World::default(), Play::new(PIDS.into()));
    while !choices.0.is_empty() {
        let choice = choices.byte();
        let at = MonoTime(world.now);
        match choice % 32 {
            0..=15 => {
                let line = world.line(&mut choices);
                play.push(Input::Stdout { at, bytes: line.as_bytes() });
            }
            16..=25 => world.batch(&mut choices, &mut play),
            26 => play.push(Input::Stderr { at, bytes: b"dtrace: 5 drops on CPU 0\n" }),
            27 => play.push(Input::DtraceUp { at }),
            28 => play.push(Input::DtraceDown { at }),
            29 => {
                let (first, count) = (world.seq, choices.few(3));
                let to = MonoTime(world.step(&mut choices));
                play.push(Input::BatchesLost { first, count, from: at, to });
            }
            30 => play.push(Input::Forks { at, total: choices.few(200) }),
            _ => {
                let id = TreeId(choices.few(3).min(9) as u16);
                match choice {
                    31 => play.push(Input::TreeGone { id }),
                    63 | 95 => {
                        let pid = Pid::new(choices.few(3)).filter(|pid| pid.get() > 0);
                        play.push(Input::Consumer { id, pid });
                    }
                    _ => play.push(Input::Tree { id, name: "another" }),
                }
            }
        }
    }
    play.end();
}
