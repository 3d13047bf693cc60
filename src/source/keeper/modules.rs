//! The kernel's side of dtrace(1): loaded if it is missing.

/// FreeBSD: /dev/dtrace/dtrace must be there and open to us; what was done to that end. A dtrace that the user chose
/// answers for itself.
///
/// # Errors
/// What is missing, and what to do about it.
#[cfg(target_os = "freebsd")]
pub(super) fn prepare(chosen: bool) -> Result<String, String> {
    use std::path::Path;
    use std::process::Command;

    use nix::unistd::{AccessFlags, access};

    const DEVICE: &str = "/dev/dtrace/dtrace";
    if chosen {
        return Ok(String::new());
    }
    let mut done = "";
    let was_there = Path::new(DEVICE).exists();
    // With dtrace.ko alone the device is there, and the providers are not. -n: not an error if it is loaded already.
    let loaded = Command::new("/sbin/kldload").args(["-n", "dtraceall"]).output();
    if !was_there {
        let why = match &loaded {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if !Path::new(DEVICE).exists() {
            return Err(format!(
                "{DEVICE} is missing, and kldload -n dtraceall {}; run as root on the host itself (not in a jail, \
                 kern.securelevel below 1), with a kernel that has KDTRACE_HOOKS",
                why.map_or("did not bring it".to_owned(), |why| format!("says: {why}"))
            ));
        }
        done = "loaded the dtraceall modules";
    }
    match access(DEVICE, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => Ok(done.to_owned()),
        Err(errno) => {
            Err(format!("{DEVICE}: {}; run as root: only root may use dtrace", errno.desc()))
        }
    }
}

/// Elsewhere dtrace is a program that the user names.
#[cfg(not(target_os = "freebsd"))]
pub(super) fn prepare(_chosen: bool) -> Result<String, String> {
    Ok(String::new())
}
