//! A bounded queue that keeps the latest entries.

use std::collections::VecDeque;

/// Adds the latest, at the cost of the oldest if there would be more than `most`.
#[inline]
pub(super) fn keep_latest<T>(kept: &mut VecDeque<T>, most: usize, latest: T) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(latest);
}
