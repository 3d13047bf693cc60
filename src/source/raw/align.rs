//! Which kevent(2) return that DTrace saw is which call that the reader wrote down.
//!
//! The two tell the time on two clocks that run at the same rate: one constant, the offset, lies between them. It is
//! where most returns come just before the `after` of some call. Each return then belongs to the call that it lies in.
//! Nothing depends on counting, so a missing or repeated line on either side changes nothing else.

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

/// How far a guess of the offset may be wrong: walltimestamp is coarse (10 ms in a VM).
const GUESS: i64 = 50_000_000;
/// The reader looks at its clock within this time of the return, mostly.
const LAG: i64 = 50_000;
/// A pair whose event counts agree weighs so much more. Only a hint: small counts agree by chance.
const HINT: u32 = 4;
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
    let offset = refine(returns, &sorted, peak(&mut votes)?)?;
    let mut of_span = vec![None; spans.len()];
    for (sorted_index, best) in assign(returns, &sorted, offset).into_iter().enumerate() {
        of_span[order[sorted_index]] = best;
    }
    Some(Alignment { offset, returns: of_span })
}

/// The offsets that come into question, without overlap.
fn ranges(guesses: &[i64]) -> Vec<(i64, i64)> {
    let mut guesses = guesses.to_vec();
    guesses.sort_unstable();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for guess in guesses {
        let (low, high) = (guess.saturating_sub(GUESS), guess.saturating_add(GUESS));
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

/// Where [`LAG`] nanoseconds hold the most weight.
fn peak(votes: &mut [(i64, u32)]) -> Option<i64> {
    votes.sort_unstable();
    let (mut first, mut sum, mut best) = (0, 0u64, None);
    for &(offset, weight) in votes.iter() {
        sum += u64::from(weight);
        while votes[first].0 < offset - LAG {
            sum -= u64::from(votes[first].1);
            first += 1;
        }
        if best.is_none_or(|(most, _)| sum > most) {
            best = Some((sum, offset));
        }
    }
    best.map(|(_, offset)| offset)
}

/// The offset near `peak` at which the most returns lie inside of a call: the middle of where that is so.
fn refine(returns: &[Return], sorted: &[Span], peak: i64) -> Option<i64> {
    let (low, high) = (peak - LAG, peak + LAG);
    let mut edges = Vec::new();
    for a in returns {
        let first = sorted.partition_point(|s| s.after < a.at - high);
        let near = sorted[first..].iter().take_while(|s| s.before <= a.at - low);
        for span in near.filter(|s| s.before <= s.after) {
            edges.push(((a.at - span.after).max(low), false, weight(a, span)));
            edges.push(((a.at - span.before).min(high), true, weight(a, span)));
        }
    }
    edges.sort_unstable();
    let (mut sum, mut best) = (0u64, None);
    for (i, &(from, leaves, weight)) in edges.iter().enumerate() {
        if leaves {
            sum -= u64::from(weight);
            continue;
        }
        sum += u64::from(weight);
        if best.is_none_or(|(most, _)| sum > most) {
            let to = edges.get(i + 1).map_or(from, |edge| edge.0);
            best = Some((sum, from + (to - from) / 2));
        }
    }
    best.map(|(_, offset)| offset)
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
        let (returns, spans) = run(60);
        let whole: Vec<_> = (0..60).map(Some).collect();
        for i in 0..60 {
            let mut fewer = returns.clone();
            fewer.remove(i);
            let found = align(&fewer, &spans, &guess()).expect("an alignment").returns;
            let expected = (0..60).map(|j| (j != i).then(|| if j < i { j } else { j - 1 }));
            assert!(found.iter().copied().eq(expected), "return {i} is missing: {found:?}");

            let mut fewer = spans.clone();
            fewer.remove(i);
            let found = align(&returns, &fewer, &guess()).expect("an alignment").returns;
            assert!(found.iter().copied().eq((0..60).filter(|j| *j != i).map(Some)), "call {i}");

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
    fn nothing_aligns_with_nothing() {
        let (returns, spans) = run(3);
        assert_eq!(align(&[], &spans, &guess()), None);
        assert_eq!(align(&returns, &[], &guess()), None);
    }
}
