//! Which kevent(2) return that DTrace saw is which call that the reader wrote down.
//!
//! The two tell the time on two clocks that run at the same rate: one constant, the offset, lies between them. It is
//! where most returns come just before the `after` of some call. Each return then belongs to the call that it lies in.
//! Counting decides nothing, as long as there are more than a few calls: a missing or repeated line on either side
//! changes nothing else.

/// A kevent(2) return as DTrace saw it, in nanoseconds of its clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Return {
    pub(super) at: i64,
    pub(super) returned: i64,
}

/// A call as the reader saw it, in nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) before: i64,
    pub(super) after: i64,
    pub(super) returned: i64,
}

/// The result.
#[derive(Debug, PartialEq)]
pub(super) struct Alignment {
    /// DTrace's clock minus CLOCK_MONOTONIC.
    pub(super) offset: i64,
    /// For each span which return is its own.
    pub(super) returns: Vec<Option<usize>>,
}

/// How far below a guess the offset may be: walltimestamp is up to a tick behind, 10 ms in a VM (HZ_VM).
const GUESS_BELOW: i64 = 15_000_000;
/// How far above a guess the offset may be: nothing but the time between two looks at a clock.
const GUESS_ABOVE: i64 = 5_000_000;
/// The reader looks at its clock so soon after the return, mostly: in an emulator, in a VM, on bare metal. The longest
/// one that is not too coarse for the rate of calls is used.
const LAGS: [i64; 3] = [50_000, 10_000, 2_000];
/// A pair whose event counts agree weighs so much more. Only a hint: small counts agree by chance.
const HINT: u32 = 4;
/// Ranges of equally good offsets that are compared at most.
const MAX_OFFSETS: usize = 64;
/// Pairs that are compared at most; 2,000 returns with 2,000 calls where there is no guess.
const MAX_VOTES: usize = 4_000_000;

/// Finds the offset near one of `guesses` (anywhere, if there is none) and the return of each span.
pub(super) fn align(returns: &[Return], spans: &[Span], guesses: &[i64]) -> Option<Alignment> {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|i| spans[*i].after);
    let sorted: Vec<Span> = order.iter().map(|i| spans[*i]).collect();
    let mut votes = votes(returns, &sorted, &ranges(guesses));
    if votes.is_empty() {
        votes = self::votes(returns, &sorted, &[(i64::MIN / 4, i64::MAX / 4)]);
    }
    votes.sort_unstable();
    let offsets = match LAGS.into_iter().find_map(|lag| Some((peak(&votes, lag)?, lag))) {
        Some((peak, lag)) => refine(returns, &sorted, (peak - lag, peak + lag)),
        None => in_order(returns, &sorted).into_iter().collect(),
    };
    let mut agreed = assign(returns, &sorted, *offsets.first()?);
    for offset in &offsets[1..] {
        for (found, other) in agreed.iter_mut().zip(assign(returns, &sorted, *offset)) {
            *found = found.filter(|_| *found == other);
        }
    }
    let mut of_span = vec![None; spans.len()];
    order.into_iter().zip(agreed).for_each(|(span, found)| of_span[span] = found);
    Some(Alignment { offset: offsets[0], returns: of_span })
}

/// The offsets that come into question, without overlap.
fn ranges(guesses: &[i64]) -> Vec<(i64, i64)> {
    let mut guesses = guesses.to_vec();
    guesses.sort_unstable();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for guess in guesses {
        let low = guess.saturating_sub(GUESS_BELOW);
        let high = guess.saturating_add(GUESS_ABOVE);
        match ranges.last_mut() {
            Some(last) if low <= last.1 => last.1 = high,
            _ => ranges.push((low, high)),
        }
    }
    ranges
}

fn weight(a: &Return, span: &Span) -> u32 {
    if a.returned == span.returned { HINT } else { 1 }
}

/// The offset that each pair would have if the reader had looked at its clock at once, and the pair's weight.
fn votes(returns: &[Return], sorted: &[Span], ranges: &[(i64, i64)]) -> Vec<(i64, u32)> {
    let mut votes = Vec::new();
    for a in returns {
        for &(low, high) in ranges {
            let first = sorted.partition_point(|s| s.after < a.at.saturating_sub(high));
            let last = a.at.saturating_sub(low);
            for span in sorted[first..].iter().take_while(|s| s.after <= last) {
                votes.push((a.at - span.after, weight(a, span)));
            }
        }
        if votes.len() > MAX_VOTES {
            break;
        }
    }
    votes
}

/// Where `lag` nanoseconds hold the most weight: of more than one pair, and twice as much as anywhere else.
/// Otherwise nobody knows, and a wrong offset would be worse than none.
fn peak(votes: &[(i64, u32)], lag: i64) -> Option<i64> {
    let (mut first, mut sum) = (0, 0u64);
    let mut windows = Vec::with_capacity(votes.len());
    for &(offset, weight) in votes.iter() {
        sum += u64::from(weight);
        while votes[first].0 < offset - lag {
            sum -= u64::from(votes[first].1);
            first += 1;
        }
        windows.push((sum, offset));
    }
    let &(most, peak) = windows.iter().rev().max_by_key(|(sum, _)| *sum)?;
    let elsewhere = windows.iter().filter(|(_, offset)| (offset - peak).abs() > 2 * lag);
    let second = elsewhere.map(|(sum, _)| *sum).max().unwrap_or(0);
    (most > u64::from(HINT) && most >= 2 * second).then_some(peak)
}

/// The offsets between `low` and `high` at which the most calls have a return inside: the middle of each range where
/// that is so. There is one if most returns are there, and there may be more if few are.
fn refine(returns: &[Return], sorted: &[Span], (low, high): (i64, i64)) -> Vec<i64> {
    let mut edges = Vec::new();
    for a in returns {
        let first = sorted.partition_point(|s| s.after < a.at - high);
        let near = sorted[first..].iter().take_while(|s| s.before <= a.at - low);
        for (index, span) in near.enumerate().filter(|(_, s)| s.before <= s.after) {
            let edge = |at, leaves| (at, leaves, first + index, a.returned == span.returned);
            edges.push(edge((a.at - span.after).max(low), false));
            edges.push(edge((a.at - span.before).min(high), true));
        }
    }
    edges.sort_unstable();
    // How many returns each call has inside, those whose count fits apart from the others.
    let mut inside = vec![[0u32; 2]; sorted.len()];
    let worth =
        |[others, fitting]: [u32; 2]| u64::from(if fitting > 0 { HINT } else { others.min(1) });
    let (mut sum, mut most, mut offsets) = (0u64, 0, Vec::new());
    for (i, &(from, leaves, span, fits)) in edges.iter().enumerate() {
        sum -= worth(inside[span]);
        let count = &mut inside[span][usize::from(fits)];
        *count = if leaves { *count - 1 } else { *count + 1 };
        sum += worth(inside[span]);
        if sum > most {
            most = sum;
            offsets.clear();
        }
        if sum == most && offsets.len() < MAX_OFFSETS {
            let to = edges.get(i + 1).map_or(from, |edge| edge.0);
            offsets.push(from + (to - from) / 2);
        }
    }
    offsets
}

/// For the few calls of a short run: the offset, if every call has its return with the same count, in the same order, and
/// one offset puts each inside. One more return at the end is the last call, which the reader does not write down.
fn in_order(returns: &[Return], sorted: &[Span]) -> Option<i64> {
    let pairs = || returns.iter().zip(sorted);
    let complete = returns.len() == sorted.len() || returns.len() == sorted.len() + 1;
    let same = pairs().all(|(a, span)| a.returned == span.returned);
    let low = pairs().map(|(a, span)| a.at - span.after).max()?;
    let high = pairs().map(|(a, span)| a.at - span.before).min()?;
    (complete && same && low <= high).then_some(low)
}

/// For each span the return inside of it, the fitting and last one if there are more.
fn assign(returns: &[Return], sorted: &[Span], offset: i64) -> Vec<Option<usize>> {
    let mut best: Vec<Option<usize>> = vec![None; sorted.len()];
    for (index, a) in returns.iter().enumerate() {
        let at = a.at - offset;
        let i = sorted.partition_point(|s| s.after < at);
        let Some(span) = sorted.get(i).filter(|s| s.before <= at) else { continue };
        let rank = |r: &Return| (r.returned == span.returned, r.at);
        if best[i].is_none_or(|other| rank(a) > rank(&returns[other])) {
            best[i] = Some(index);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET: i64 = 4_553_000_000;

    /// Calls of mixed length and what DTrace saw of them. The reader's clock lags 3 to 30 us.
    fn run(calls: usize) -> (Vec<Return>, Vec<Span>) {
        let (mut returns, mut spans, mut now, mut state) = (vec![], vec![], 9_000_000_000, 7u64);
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % below) as i64
        };
        for _ in 0..calls {
            let before = now + 20_000 + random(30_000);
            let left = before + 10_000 + random(3_000_000);
            now = left + 3_000 + random(27_000);
            let returned = 1 + random(3);
            spans.push(Span { before, after: now, returned });
            returns.push(Return { at: left + OFFSET, returned });
        }
        (returns, spans)
    }

    fn guess() -> [i64; 1] {
        [OFFSET + 9_000_000]
    }

    #[test]
    fn every_call_finds_its_return() {
        let (returns, spans) = run(500);
        for guesses in [&guess()[..], &[]] {
            let found = align(&returns, &spans, guesses).expect("an alignment");
            assert!((found.offset - OFFSET).abs() < 30_000, "{}", found.offset);
            assert!(found.returns.iter().copied().eq((0..500).map(Some)));
        }
    }

    #[test]
    fn a_garbled_guess_beside_a_good_one_does_no_harm() {
        let (returns, spans) = run(200);
        let found = align(&returns, &spans, &[guess()[0], 17, i64::MAX]).expect("an alignment");
        assert!(found.returns.iter().copied().eq((0..200).map(Some)));
    }

    #[test]
    fn one_line_more_or_less_on_either_side_moves_nothing_else() {
        let (returns, spans) = run(30);
        let whole: Vec<_> = (0..30).map(Some).collect();
        for i in 0..30 {
            let mut fewer = returns.clone();
            fewer.remove(i);
            let found = align(&fewer, &spans, &guess()).expect("an alignment").returns;
            let expected = (0..30).map(|j| (j != i).then(|| if j < i { j } else { j - 1 }));
            assert!(found.iter().copied().eq(expected), "return {i} is missing: {found:?}");

            let mut fewer = spans.clone();
            fewer.remove(i);
            let found = align(&returns, &fewer, &guess()).expect("an alignment").returns;
            assert!(found.iter().copied().eq((0..30).filter(|j| *j != i).map(Some)), "call {i}");

            let mut miscounted = spans.clone();
            miscounted[i].returned += 1;
            assert_eq!(align(&returns, &miscounted, &guess()).expect("one").returns, whole);

            let mut garbled = spans.clone();
            garbled[i].after += 7_000_000_000;
            let mut found = align(&returns, &garbled, &guess()).expect("one").returns;
            found[i] = Some(i);
            assert_eq!(found, whole, "the clock of call {i} is garbled");
        }
    }

    #[test]
    fn most_returns_may_be_missing() {
        let (returns, spans) = run(500);
        let kept: Vec<usize> = (0..500).filter(|i| i % 7 == 3 && !(100..300).contains(i)).collect();
        let few: Vec<Return> = kept.iter().map(|i| returns[*i]).collect();
        let found = align(&few, &spans, &guess()).expect("an alignment").returns;
        for (call, found) in found.into_iter().enumerate() {
            assert_eq!(found, kept.iter().position(|i| *i == call), "call {call}");
        }
    }

    #[test]
    fn a_fast_kernel_is_aligned_too() {
        let (mut returns, mut spans) = run(800);
        for (a, span) in returns.iter_mut().zip(&mut spans) {
            a.at = OFFSET + (a.at - OFFSET) / 100;
            (span.before, span.after) = (span.before / 100, span.after / 100);
        }
        let found = align(&returns, &spans, &guess()).expect("an alignment");
        assert!(found.returns.iter().copied().eq((0..800).map(Some)));
    }

    #[test]
    fn what_fits_twice_is_not_aligned() {
        let span = |before| Span { before, after: before + 100_000, returned: 1 };
        let spans: Vec<Span> = (0..4).map(|i| span(i * 1_000_000)).collect();
        let returns: Vec<Return> =
            [2, 3].map(|i| Return { at: i * 1_000_000 + 99_000, returned: 1 }).to_vec();
        assert_eq!(align(&returns, &spans, &[0]), None);
        assert_eq!(align(&returns[..1], &spans[..2], &[0]), None, "one pair proves nothing");
    }

    #[test]
    fn a_few_calls_that_are_all_there_are_aligned() {
        let (returns, spans) = run(2);
        let found = align(&returns, &spans[..1], &[]).expect("an alignment");
        assert_eq!(found.returns, [Some(0)]);
        let found = align(&returns, &spans, &[]).expect("an alignment");
        assert_eq!(found.returns, [Some(0), Some(1)]);
    }

    #[test]
    fn nothing_aligns_with_nothing() {
        let (returns, spans) = run(3);
        assert_eq!(align(&[], &spans, &guess()), None);
        assert_eq!(align(&returns, &[], &guess()), None);
    }
}
