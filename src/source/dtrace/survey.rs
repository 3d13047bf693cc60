//! The survey behind `consumers`: runs consumers.d for some seconds and lists the processes that use EVFILT_PROC.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use super::command::CommandRunner;
use super::programs::CONSUMERS;
use super::{DtraceError, DtraceOptions, KeeperScope, Runner};
use crate::source::beginning::Beginning;
use crate::source::keeper::{Gone, Keeper, Started};

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Survey {
    /// How long dtrace(1) watched, in seconds.
    pub seconds: f64,
    /// Who used EVFILT_PROC, by pid.
    pub users: Vec<User>,
}

/// A process that uses EVFILT_PROC.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct User {
    /// Its pid.
    pub pid: u64,
    /// The name of its program, as the kernel has it.
    pub name: String,
    /// The fflags (`NOTE_*`) of its registrations, all together; 0 if it registered nothing.
    pub notes: u32,
    /// How many registrations (EV_ADD) it made.
    pub registrations: u64,
    /// How many events it got.
    pub events: u64,
}

/// Watches for `duration`. `program` is ourselves: without a command it runs dtrace(1) as for `serve`.
///
/// # Errors
/// [`DtraceError`]: dtrace(1) cannot be run, or does not trace.
pub(crate) fn survey(
    program: &Path,
    options: &DtraceOptions,
    duration: Duration,
) -> Result<Survey, DtraceError> {
    if let Some(words) = &options.command {
        let command = CommandRunner::new(words, options, "");
        Runner::Command(command.clone()).compile(&CONSUMERS, &[], &|| true)?;
        return read(command.start_survey(duration.as_secs())?, |_| Ok(()));
    }
    let keeper = Keeper::start(program, &options.job(KeeperScope::default()))
        .map_err(DtraceError::Keeper)?;
    Runner::Keeper(keeper.clone()).compile(&CONSUMERS, &[], &|| true)?;
    read(keeper.start_dtrace(&CONSUMERS, &[])?, |began| {
        if began {
            std::thread::sleep(duration);
            keeper.terminate()?;
        }
        Ok(())
    })
}

/// Reads what consumers.d prints to its end, which `end` brings about, with whether the program began.
fn read(
    dtrace: Started,
    end: impl FnOnce(bool) -> Result<(), Gone>,
) -> Result<Survey, DtraceError> {
    let Started { stdout, stderr, .. } = dtrace;
    let messages = Beginning::of(stderr);
    let mut out = BufReader::new(stdout);
    let mut text = Vec::new();
    // Its first line says that it traces.
    end(out.read_until(b'\n', &mut text).is_ok_and(|read| read > 0))?;
    let whole = out.read_to_end(&mut text);
    match whole.ok().and_then(|_| Survey::read(&String::from_utf8_lossy(&text))) {
        Some(survey) => Ok(survey),
        None => {
            let why = format!("dtrace ended before its time: {}", messages.text().trim());
            Err(DtraceError::Unusable(why))
        }
    }
}

impl Survey {
    /// Reads what consumers.d prints; `None` if its end is missing. A line that is none of its own counts for nothing.
    fn read(text: &str) -> Option<Survey> {
        let time = |letter: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(letter));
            lines.find_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        };
        let seconds = time("T ")?.saturating_sub(time("B ")?) as f64 / 1e9;
        let mut users: BTreeMap<(u64, &str), User> = BTreeMap::new();
        for (pid, name, notes, registrations, events) in text.lines().filter_map(sum) {
            let new = || User { pid, name: name.to_owned(), ..User::default() };
            let user = users.entry((pid, name)).or_insert_with(new);
            user.notes |= notes;
            user.registrations = user.registrations.saturating_add(registrations);
            user.events = user.events.saturating_add(events);
        }
        Some(Survey { seconds, users: users.into_values().collect() })
    }
}

/// The pid, name, fflags, registrations and events of a line with one of the sums; `None` for any other.
fn sum(line: &str) -> Option<(u64, &str, u32, u64, u64)> {
    // The name comes last, for it may have blanks in it.
    let (letter, rest) = line.split_once(' ')?;
    if letter == "U" {
        let [pid, notes, count, name] = fields(rest)?;
        let notes = u32::from_str_radix(notes, 16).ok()?;
        return Some((pid.parse().ok()?, name, notes, count.parse().ok()?, 0));
    }
    let [pid, count, name] = fields(rest).filter(|_| letter == "G")?;
    let events = count.parse().ok().filter(|events| *events > 0)?;
    Some((pid.parse().ok()?, name, 0, 0, events))
}

fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.splitn(N, ' ').collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use dtrace_parser::{BitWidth, DataType, File, Integer};

    use super::*;
    use crate::wire::schema::WIRE_D;

    #[test]
    fn the_sums_of_a_process_come_together() {
        let text = "B 1000000000 7\nT 3500000000 9\nU 812 80000001 3 my shell\nU 812 40000000 1 my shell\n\
                    G 812 40 my shell\nG 46 0 sleeps\nG 9 2 old\nU 5 x 1 y\nnonsense\n";
        let user = |pid, name: &str, notes, registrations, events| User {
            pid,
            name: name.to_owned(),
            notes,
            registrations,
            events,
        };
        let users = vec![user(9, "old", 0, 0, 2), user(812, "my shell", 0xc000_0001, 4, 40)];
        assert_eq!(Survey::read(text), Some(Survey { seconds: 2.5, users }));
        assert_eq!(Survey::read("B 1 1\nU 812 80000001 3 sh\n"), None, "it was cut off");
    }

    /// The letter of a sum, as the comment of wire.d has it, and its format.
    fn sum_of(probe: &dtrace_parser::Probe) -> String {
        let row = WIRE_D.lines().find(|line| line.contains(&format!(" {} ", probe.name)));
        let letter = row.and_then(|row| row.split_whitespace().nth(1)).expect("a row");
        let conversion = |field: &DataType| match field {
            DataType::Integer(Integer { width: BitWidth::Bit64, .. }) => " %@d",
            DataType::Integer(_) => " %d",
            DataType::Pointer(_) => " %x",
            DataType::String => " %s",
        };
        letter.to_owned() + &probe.types.iter().map(conversion).collect::<String>()
    }

    #[test]
    fn the_program_prints_what_the_wire_defines() {
        let text = CONSUMERS.text();
        let wire = File::try_from(WIRE_D).expect("wire.d");
        let survey = wire.providers().iter().find(|provider| provider.name == "kqproc_survey");
        let sums = survey.expect("its sums").probes.iter().map(sum_of);
        let formats: Vec<String> =
            ["B %d %d", "T %d %d"].map(str::to_owned).into_iter().chain(sums).collect();
        assert_eq!(formats[2..], ["U %d %x %@d %s", "G %d %@d %s"], "what is read");
        for format in formats {
            assert_eq!(text.matches(&format!("(\"{format}\\n\", ")).count(), 1, "{format}");
        }
        assert_eq!(text.matches("print").count() - text.matches("prints").count(), 4);
    }
}
