//! The kernel that was watched, and the regime that its release should have.

use serde::Serialize;

use crate::model::Regime;

/// A kernel as it describes itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct KernelVersion {
    /// System, release and machine as uname(1) says them.
    pub uname: String,
    /// `kern.osreldate`, such as 1302001; 0 if that is not known.
    pub osreldate: u32,
}

/// How a FreeBSD kernel of this version should deliver NOTE_CHILD and NOTE_EXIT.
///
/// | osreldate | releases | regime | source |
/// |---|---|---|---|
/// | below 700000 | to 6.x | unknown | NOTE_EXIT has the status since r164451 (2006) |
/// | to 1003999 | 7.0 to 10.3 | merged-status | 9.3 and 10.1 `kern_event.c:369-372,436-437`; 10.2 and 10.3 inferred |
/// | to 1099999 | 10.4 | split | 10.4 `kern_event.c`, merged from head as r297977 |
/// | above | 11.0 and later | split | r295012; 12.3, 13.2 and 15.1 `kern_event.c`, measured on 13.2 and 15.1 |
///
/// A snapshot of 10-STABLE between r297977 and 10.4, or of 11-CURRENT before r295012, differs from its neighbours.
pub(crate) const fn regime_by_osreldate(osreldate: u32) -> Regime {
    match osreldate {
        0..700_000 => Regime::Unknown,
        700_000..1_004_000 => Regime::MergedStatus,
        1_004_000.. => Regime::Split,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_the_regime_that_was_read_or_measured() {
        for (osreldate, regime) in [
            (0, Regime::Unknown),
            (604_000, Regime::Unknown),
            (903_000, Regime::MergedStatus),
            (1_001_000, Regime::MergedStatus),
            (1_003_000, Regime::MergedStatus),
            (1_004_000, Regime::Split),
            (1_100_122, Regime::Split),
            (1_203_000, Regime::Split),
            (1_302_001, Regime::Split),
            (1_501_000, Regime::Split),
        ] {
            assert_eq!(regime_by_osreldate(osreldate), regime, "{osreldate}");
        }
    }
}
