//! The exporter's own process, as `process_*` metrics have it everywhere.

use std::time::Duration;

use nix::sys::resource::UsageWho;

use crate::source::clock::processor_time;

/// The exporter's own process; `None` for what this system does not give.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct ProcessUsage {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) open_fds: Option<f64>,
    pub(crate) max_fds: Option<f64>,
    pub(crate) resident_bytes: Option<f64>,
    pub(crate) virtual_bytes: Option<f64>,
    pub(crate) start_seconds: Option<f64>,
}

impl ProcessUsage {
    pub(crate) fn read() -> ProcessUsage {
        let mut process = ProcessUsage {
            cpu_seconds: cpu_time().map(|t| t.as_secs_f64()),
            max_fds: max_fds(),
            ..ProcessUsage::default()
        };
        system::read(&mut process);
        process
    }
}

/// User and system time by getrusage(2).
pub(super) fn cpu_time() -> Option<Duration> {
    processor_time(UsageWho::RUSAGE_SELF).ok()
}

fn max_fds() -> Option<f64> {
    use nix::sys::resource::{Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft as f64)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;

    use super::ProcessUsage;

    pub(super) fn read(process: &mut ProcessUsage) {
        process.open_fds = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as f64);
        let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
        // The command's name may hold anything, blanks and parentheses too: fields are counted after its last one.
        let Some((_, fields)) = stat.rsplit_once(')') else { return };
        let field = |number: usize| -> Option<f64> {
            fields.split_ascii_whitespace().nth(number - 3)?.parse().ok()
        };
        process.virtual_bytes = field(23);
        process.resident_bytes = page_size().and_then(|page| Some(field(24)? * page));
        process.start_seconds = field(22).and_then(since_1970);
    }

    fn page_size() -> Option<f64> {
        use nix::unistd::{SysconfVar, sysconf};
        sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map(|n| n as f64)
    }

    /// Clock ticks since boot as seconds since 1970.
    fn since_1970(ticks: f64) -> Option<f64> {
        use nix::unistd::{SysconfVar, sysconf};
        let hz = sysconf(SysconfVar::CLK_TCK).ok().flatten()? as f64;
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot + ticks / hz)
    }
}

#[cfg(target_os = "freebsd")]
mod system {
    use super::ProcessUsage;
    use crate::source::kinfo;

    pub(super) fn read(process: &mut ProcessUsage) {
        process.open_fds = kinfo::open_fds().ok().map(f64::from);
        let Ok(own) = kinfo::own() else { return };
        process.resident_bytes = Some(own.resident_bytes as f64);
        process.virtual_bytes = Some(own.virtual_bytes as f64);
        process.start_seconds = Some(own.started.as_secs_f64());
    }
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
mod system {
    pub(super) fn read(_: &mut super::ProcessUsage) {}
}

#[cfg(all(test, any(target_os = "linux", target_os = "freebsd")))]
mod tests {
    use super::*;

    #[test]
    fn the_system_gives_every_figure() {
        let process = ProcessUsage::read();
        assert!(process.open_fds.unwrap() >= 3.0);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        assert!(process.resident_bytes.unwrap() > 100_000.0);
        assert!(process.virtual_bytes.unwrap() >= process.resident_bytes.unwrap());
        assert!(process.cpu_seconds.is_some());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.start_seconds.unwrap();
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
    }
}
