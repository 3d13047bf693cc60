//! The kernel's side of dtrace(1): loaded where it is missing.

use super::Error;

/// FreeBSD: /dev/dtrace/dtrace must be there and open to us. A dtrace that the user chose answers for itself.
#[cfg(target_os = "freebsd")]
pub(super) fn prepare(chosen: bool) -> Result<(), Error> {
    use std::path::Path;
    use std::process::Command;

    use nix::unistd::{AccessFlags, access};

    const DEVICE: &str = "/dev/dtrace/dtrace";
    if chosen {
        return Ok(());
    }
    if !Path::new(DEVICE).exists() {
        // -n: not an error where it is loaded already.
        let loaded = Command::new("/sbin/kldload").args(["-n", "dtraceall"]).output();
        let why = match &loaded {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if !Path::new(DEVICE).exists() {
            return Err(Error::Device(format!(
                "{DEVICE} is missing, and kldload -n dtraceall {}; run as root on the host itself (not in a jail, \
                 kern.securelevel below 1), with a kernel that has KDTRACE_HOOKS",
                why.map_or("did not bring it".to_owned(), |why| format!("says: {why}"))
            )));
        }
        tracing::info!("loaded the dtraceall modules");
    }
    access(DEVICE, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|errno| {
        Error::Device(format!("{DEVICE}: {}; run as root: only root may use dtrace", errno.desc()))
    })
}

/// Elsewhere a dtrace is whatever the user says it is.
#[cfg(not(target_os = "freebsd"))]
pub(super) fn prepare(_chosen: bool) -> Result<(), Error> {
    Ok(())
}
