//! The clauses of consumer.d, written out for several consumers.

use std::fmt::Write;

use crate::model::Pid;

/// For kernels with p_xexit in struct proc and td_sa in struct thread: 12 and later.
pub(crate) const CONSUMER: &str = include_str!("../../../d-scripts/consumer.d");
/// For kernels without td_sa: 9 to 11. These clauses do not read a process's status.
pub(crate) const CONSUMER_11: &str = include_str!("../../../d-scripts/consumer-11.d");

/// What comes before the clauses that are of consumers alone.
const CLAUSES: &str = "/* Consumers. */\n";

/// The predicate of each of them, for one.
const PREDICATE: &str = "/pid == $1/";

/// The clauses of `program` ([`CONSUMER`] or an older one) that are of consumers alone, for these `pids`: one clause
/// a probe, however many they are. Nothing without a pid.
pub(crate) fn clauses(program: &str, pids: &[Pid]) -> String {
    let mut predicate = String::new();
    for pid in pids {
        let or = if predicate.is_empty() { "" } else { " || " };
        let _ = write!(predicate, "{or}pid == {pid}");
    }
    match program.split_once(CLAUSES) {
        Some((_, clauses)) if !pids.is_empty() => {
            clauses.replace(PREDICATE, &format!("/{predicate}/"))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::programs::printfs;
    use super::*;
    use crate::wire::record::Kind;
    use crate::wire::schema::SCHEMA;

    /// What is run by hand on 9 and 10, where the exporter puts the clauses of the one for 11 behind proc-xstat.d.
    const CONSUMER_XSTAT: &str = include_str!("../../../d-scripts/consumer-xstat.d");
    const PROGRAMS: [&str; 3] = [CONSUMER, CONSUMER_11, CONSUMER_XSTAT];

    #[test]
    fn every_printf_is_as_the_wire_defines_it() {
        for program in PROGRAMS {
            let printfs = printfs(program);
            let letters: String = printfs.iter().map(|(format, _)| &format[..1]).collect();
            assert_eq!(letters, "BCXTAaNM");
            for (format, arguments) in printfs {
                let layouts = SCHEMA.layouts(format.as_bytes()[0]);
                let layout = layouts.iter().find(|layout| layout.kind != Kind::Mark).unwrap();
                let conversion = |field: &crate::wire::schema::Field| match field {
                    field if field.hex && field.is_long() => " %p",
                    field if field.hex => " %x",
                    _ => " %d",
                };
                let conversions: String = layout.fields.iter().map(conversion).collect();
                assert_eq!(format, format!("{}{conversions}\\n", &format[..1]));
                assert_eq!(arguments, layout.fields.len(), "{format}");
            }
        }
    }

    #[test]
    fn several_consumers_share_one_clause_a_probe() {
        let pids = [812, 46].map(|pid| Pid::new(pid).unwrap());
        for program in PROGRAMS {
            let (one, two) = (clauses(program, &pids[..1]), clauses(program, &pids));
            assert_eq!(one.matches("\n/pid == 812/\n").count(), program.matches(PREDICATE).count());
            assert_eq!(two, one.replace("/pid == 812/", "/pid == 812 || pid == 46/"));
            assert!(!two.contains('$') && !two.contains("proc:::"));
            let mut probes: Vec<_> = two.lines().filter(|line| line.contains("::")).collect();
            let all = probes.len();
            probes.sort_unstable();
            probes.dedup();
            assert_eq!(probes.len(), all, "one clause a probe");
            assert_eq!(clauses(program, &[]), "");
        }
    }

    #[test]
    fn older_programs_differ_in_where_arguments_and_status_are() {
        let code = |text: &str| {
            let code = text.split_once("BEGIN").expect("a first clause").1;
            code.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let of_11 = code(CONSUMER)
            .replace("(int)curthread->td_sa.args[0]", "self->fd")
            .replace("(int)curthread->td_sa.args[4]", "self->nevents");
        let entry = "syscall::*kevent:entry /pid == $1/ { self->fd = (int)arg0; self->nevents = (int)arg4; } ";
        assert_eq!(code(CONSUMER_11).replace(entry, ""), of_11);
        let of_9 = code(CONSUMER_11).replace("this->p = curthread->td_proc; ", "").replace(
            "((this->p->p_xexit & 0xff) << 8) | this->p->p_xsig",
            "curthread->td_proc->p_xstat",
        );
        assert_eq!(code(CONSUMER_XSTAT), of_9);
    }
}
