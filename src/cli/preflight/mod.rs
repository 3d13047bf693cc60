//! What `check` looks at: [`facts`] gathers the facts of the host, and pure functions in [`judge`] say what they mean for
//! `serve`.

pub(crate) mod facts;
pub(crate) mod judge;
#[cfg(test)]
mod tests;

use crate::model::named_enum;

named_enum! {
    /// How a prerequisite stands.
    pub(crate) enum CheckStatus {
        /// As it should be.
        Ok = "ok",
        /// serve works, but not as well as it could.
        Warn = "warn",
        /// serve does not work.
        Fail = "fail",
        /// Not known, because something before it failed, or was not asked for.
        Skip = "skip",
    }
}

/// One prerequisite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prerequisite {
    /// Its name, in one word.
    pub(crate) what: &'static str,
    /// How it stands.
    pub(crate) status: CheckStatus,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty if there is nothing to do.
    pub(crate) remedy: String,
    /// The exit status (sysexits(3)) if this is the first line that fails.
    pub(crate) exit: u8,
}

/// The exit status for these lines: that of the first that fails, 0 if none does.
pub(crate) fn exit_status(lines: &[Prerequisite]) -> u8 {
    lines.iter().find(|line| line.status == CheckStatus::Fail).map_or(0, |line| line.exit)
}
