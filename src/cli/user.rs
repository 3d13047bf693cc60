//! `--user`: the unprivileged user that the exporter changes to before it serves, nobody by default. The keeper, which runs
//! dtrace as root, starts before.

use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, setgid, setgroups, setuid};

use super::exit::{NOPERM, OrExit};

/// The default if root starts the exporter.
const NOBODY: &str = "nobody";

/// The user to serve as.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Privileges")]
pub struct UserArgs {
    /// User to change to before the first request is served, by name or number; "root" stays root [default: nobody, if root starts it]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// Why the exporter cannot become another user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is no such user.
    #[error("there is no user {0:?} here: name another one with --user")]
    Unknown(String),
    /// Only root may.
    #[error("only root can become user {0:?}: start this as root, or leave out --user")]
    NotRoot(String),
    /// The system would not have it.
    #[error("cannot become user {name:?}: {}", errno.desc())]
    Refused {
        /// The user.
        name: String,
        /// The system's error.
        errno: Errno,
    },
    /// Its first group is root's.
    #[error("user {0:?} has group 0, which is root's: name another one with --user")]
    RootsGroup(String),
    /// It is not root, and can be.
    #[error(
        "as user {0:?} this can still become root or join its group: refusing to serve so; start it as root, or with no \
         user, group or capability but that user's own"
    )]
    StillRoot(String),
}

/// The user that this process runs as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user's name, or number if it has none.
    pub name: String,
    /// May do everything.
    pub is_root: bool,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.name)
    }
}

impl UserArgs {
    /// Becomes the user, for good: every thread does, setuid(2) is about the whole process.
    ///
    /// # Errors
    /// [`UserError`]; the exporter must not serve then.
    pub fn apply(&self) -> Result<Identity, UserError> {
        let now = geteuid();
        let wanted = match &self.user {
            Some(name) => Some(find(name).ok_or_else(|| UserError::Unknown(name.clone()))?),
            None if now.is_root() => {
                Some(find(NOBODY).ok_or_else(|| UserError::Unknown(NOBODY.to_owned()))?)
            }
            None => None,
        };
        let name = match wanted {
            Some(user) if user.uid == now => user.name,
            Some(user) if !now.is_root() => return Err(UserError::NotRoot(user.name)),
            Some(user) => become_user(user)?,
            None => name_of(now),
        };
        let is_root = geteuid().is_root();
        match is_root || root_is_gone() {
            true => Ok(Identity { name, is_root }),
            false => Err(UserError::StillRoot(name)),
        }
    }

    /// The same for a command that serves: it logs which user it has become, and fails with the exit status. That user must be
    /// able to read every file that is read from here on.
    pub(super) fn change(&self) -> anyhow::Result<Identity> {
        let identity = self.apply().or_exit(NOPERM)?;
        if identity.is_root {
            tracing::warn!(
                "serving as root, as --user says: a fault in this server is a fault of root's"
            );
        } else {
            tracing::info!("serving as {identity}");
        }
        Ok(identity)
    }
}

/// Adds the user's name to an error about missing permissions, after the change from root.
pub(super) fn name_the_denied(error: anyhow::Error) -> anyhow::Error {
    let user = geteuid();
    if user.is_root() || !format!("{error:#}").contains(Errno::EACCES.desc()) {
        return error;
    }
    error.context(format!("as {}, the user to serve as (see --user)", name_of(user)))
}

fn name_of(user: Uid) -> String {
    User::from_uid(user).ok().flatten().map_or(user.to_string(), |user| user.name)
}

/// By name, or by number.
fn find(text: &str) -> Option<User> {
    let by_number = || User::from_uid(Uid::from_raw(text.parse().ok()?)).ok().flatten();
    User::from_name(text).ok().flatten().or_else(by_number)
}

fn become_user(user: User) -> Result<String, UserError> {
    let name = user.name.clone();
    if user.gid.as_raw() == 0 {
        return Err(UserError::RootsGroup(name));
    }
    change(&user).map_err(|errno| UserError::Refused { name: name.clone(), errno })?;
    Ok(name)
}

/// As root, these set the real, effective and saved user and group at once. Of the user's groups all are taken but
/// root's.
fn change(user: &User) -> nix::Result<()> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    let mut groups = getgrouplist(&name, user.gid)?;
    groups.retain(|group| group.as_raw() != 0);
    setgroups(&groups)?;
    setgid(user.gid)?;
    setuid(user.uid)
}

/// Whether the process can no longer become root. It is tried, for there are many ways back: a real or saved user id, a
/// capability, a change that was done by halves. A process that was started with root's group keeps it.
fn root_is_gone() -> bool {
    // EINVAL: a namespace of Linux's that knows no root.
    let refused = |tried| matches!(tried, Err(Errno::EPERM | Errno::EINVAL));
    let has_its_group = getegid().as_raw() == 0;
    (has_its_group || refused(setgid(Gid::from_raw(0)))) && refused(setuid(Uid::from_raw(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(user: &str) -> Result<Identity, UserError> {
        UserArgs { user: Some(user.to_owned()) }.apply()
    }

    #[test]
    fn the_present_user_is_kept() {
        let own = User::from_uid(geteuid()).expect("users are known").expect("this one too");
        let is_root = own.uid.is_root();
        let identity = Identity { name: own.name.clone(), is_root };
        assert_eq!(apply(&own.name).expect("nothing to do"), identity);
        assert_eq!(apply(&own.uid.to_string()).expect("nothing to do"), identity);
    }

    #[test]
    fn an_unknown_user_is_refused() {
        for name in ["", "no-such-user-here", "-1", "4294967290"] {
            assert!(matches!(apply(name), Err(UserError::Unknown(_))), "{name}");
        }
    }
}
