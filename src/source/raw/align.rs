//! Which kevent(2) return that DTrace saw is which call that the reader wrote down.
//!
//! The two tell the time on two clocks that run at nearly the same rate: the offset that lies between them is where most
//! returns come just before the `after` of some call. Each return then belongs to the call that it lies in. In a long run
//! the clocks drift apart, and the offset is followed from call to call.
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
    /// For each span DTrace's clock minus CLOCK_MONOTONIC.
    pub(super) offsets: Vec<i64>,
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
/// Pairs that are compared at most.
const MAX_VOTES: usize = 1_000_000;
/// So many calls are enough to find the offset, and the clocks hardly drift apart within them; more, where most returns
/// are missing.
const PIECES: [usize; 2] = [200, 1_000];
/// Pieces in which the offset is looked for at most.
const MOST_PIECES: usize = 16;
/// How fast the clocks may drift apart: 1/2048, about 488 ppm. ntpd(8) slews CLOCK_MONOTONIC by 500 ppm at most.
const DRIFT_SHIFT: u32 = 11;

/// The offset at each span, and its return.
type Found = (Vec<i64>, Vec<Option<usize>>);

/// Finds the offset near one of `guesses` (else where both begin or end together, else anywhere) and the return of each
/// span. `None` where what is found does not hold for most of them: a wrong place is worse than none.
pub(super) fn align(returns: &[Return], spans: &[Span], guesses: &[i64]) -> Option<Alignment> {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|i| spans[*i].after);
    let sorted: Vec<Span> = order.iter().map(|i| spans[*i]).collect();
    let ends = [
        returns.first()?.at.saturating_sub(sorted.first()?.after),
        returns.last()?.at.saturating_sub(sorted.last()?.after),
    ];
    let anywhere = [(i64::MIN / 4, i64::MAX / 4)];
    let found = [&ranges(guesses)[..], &ranges(&ends), &anywhere]
        .into_iter()
        .find_map(|ranges| near(returns, &sorted, ranges))
        .or_else(|| {
            let offset = in_order(returns, &sorted)?;
            Some((vec![offset; sorted.len()], assign(returns, &sorted, offset)))
        })?;
    let mut of_span = vec![(0, None); spans.len()];
    let pairs = found.0.into_iter().zip(found.1);
    order.into_iter().zip(pairs).for_each(|(span, pair)| of_span[span] = pair);
    let (offsets, returns) = of_span.into_iter().unzip();
    Some(Alignment { offsets, returns })
}

/// The offset at each span and its return, with an offset in one of `ranges`: the same throughout a short run, else found
/// where it shows first and followed from there in both directions.
fn near(returns: &[Return], sorted: &[Span], ranges: &[(i64, i64)]) -> Option<Found> {
    let whole = || {
        let offsets = offsets(returns, sorted, ranges, 0).filter(|_| sorted.len() <= PIECES[1])?;
        let first = *offsets.first()?;
        let mut agreed = assign(returns, sorted, first);
        for offset in &offsets[1..] {
            for (found, other) in agreed.iter_mut().zip(assign(returns, sorted, *offset)) {
                *found = found.filter(|_| *found == other);
            }
        }
        Some((vec![first; sorted.len()], agreed))
    };
    let pieces = |size: usize| {
        let mut tried = sorted.chunks(size).enumerate().take(MOST_PIECES);
        let (start, offsets) = tried.find_map(|(piece, spans)| {
            let start = piece * size;
            Some((start, offsets(returns, spans, ranges, start)?))
        })?;
        Some(follow(returns, sorted, start, *offsets.first()?))
    };
    let holding = |found: &Found| holds(returns, sorted, found);
    let in_pieces = || PIECES.into_iter().filter_map(pieces).find(holding);
    whole().filter(holding).or_else(in_pieces)
}

/// The offsets at which most of these spans have a return, where some stand out. The spans begin with number `start`.
fn offsets(
    returns: &[Return],
    spans: &[Span],
    ranges: &[(i64, i64)],
    start: usize,
) -> Option<Vec<i64>> {
    let votes = votes(returns, spans, ranges, start);
    let (peak, lag) = LAGS.into_iter().find_map(|lag| Some((peak(&votes, lag)?, lag)))?;
    Some(refine(returns, spans, (peak - lag, peak + lag))).filter(|offsets| !offsets.is_empty())
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

/// The offset that each pair would have if the reader had looked at its clock at once, and the pair's weight, sorted. Where any
/// offset comes into question, only returns about number `around` do.
fn votes(
    returns: &[Return],
    sorted: &[Span],
    ranges: &[(i64, i64)],
    around: usize,
) -> Vec<(i64, u32)> {
    let mut votes = Vec::new();
    let anywhere = ranges.iter().any(|(low, high)| high.saturating_sub(*low) > i64::MAX / 4);
    let skipped = if anywhere { around.saturating_sub(sorted.len() / 4) } else { 0 };
    for a in &returns[skipped.min(returns.len())..] {
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
    votes.sort_unstable();
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

/// As [`assign`], with an offset that changes: from the one at span number `start` on, first forwards, then backwards.
fn follow(returns: &[Return], sorted: &[Span], start: usize, offset: i64) -> Found {
    let mut found = (vec![offset; sorted.len()], vec![None; sorted.len()]);
    let begin = sorted[start].before.saturating_add(offset);
    let (earlier, later): (Vec<usize>, Vec<usize>) =
        (0..returns.len()).partition(|i| returns[*i].at < begin);
    follow_on(returns, sorted, offset, later.into_iter(), &mut found);
    follow_on(returns, sorted, offset, earlier.into_iter().rev(), &mut found);
    // Spans without a return have the offset of the last one before them that has one.
    let mut last = None;
    for (offset, pair) in found.0.iter_mut().zip(&found.1) {
        match pair {
            Some(_) => last = Some(*offset),
            None => *offset = last.unwrap_or(*offset),
        }
    }
    found
}

/// The offset is known to be at least what the last pairs say, less what the clocks may have drifted since.
fn follow_on(
    returns: &[Return],
    sorted: &[Span],
    mut offset: i64,
    which: impl Iterator<Item = usize>,
    (offsets, pairs): &mut Found,
) {
    let mut last = None;
    for index in which {
        let a = &returns[index];
        let drift = (a.at - last.unwrap_or(a.at)).abs() >> DRIFT_SHIFT;
        let slack = LAGS[0] + drift;
        let at = a.at - offset;
        let first = sorted.partition_point(|s| s.after < at - slack);
        let near = (first..sorted.len()).take_while(|i| sorted[*i].before <= at + slack);
        let inside = |i: &usize| sorted[*i].before - slack <= at && pairs[*i].is_none();
        let rank = |i: &usize| (a.returned != sorted[*i].returned, (sorted[*i].after - at).abs());
        let Some(span) = near.take(16).filter(inside).min_by_key(rank) else { continue };
        if a.returned == sorted[span].returned {
            offset = (offset - drift).max(a.at - sorted[span].after);
            last = Some(a.at);
        }
        (offsets[span], pairs[span]) = (offset, Some(index));
    }
}

/// Whether the counts of nearly all pairs agree, and most returns that lie between the calls have found theirs, or most
/// calls.
fn holds(returns: &[Return], sorted: &[Span], (offsets, pairs): &Found) -> bool {
    let paired = || pairs.iter().zip(sorted).filter_map(|(pair, span)| Some(((*pair)?, span)));
    let agree = paired().filter(|(i, span)| returns[*i].returned == span.returned).count();
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return false };
    let begin = first.before.saturating_add(offsets[0]);
    let end = last.after.saturating_add(offsets[offsets.len() - 1]);
    let among = returns.iter().filter(|a| (begin..=end).contains(&a.at)).count();
    let count = paired().count();
    agree * 4 >= count * 3 && count * 2 >= among.min(sorted.len())
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
            assert!(found.offsets.iter().all(|offset| (offset - OFFSET).abs() < 30_000));
            assert!(found.returns.iter().copied().eq((0..500).map(Some)));
        }
    }

    /// All pairs of a long run are too many, and a few of them tell nothing.
    #[test]
    fn a_long_run_is_aligned_without_a_guess() {
        let (returns, spans) = run(30_000);
        for missing in [0, 300] {
            let found = align(&returns[missing..], &spans, &[]).expect("an alignment");
            let expected = (0..30_000).map(|call: usize| call.checked_sub(missing));
            assert!(found.returns.iter().copied().eq(expected), "{missing}");
        }
    }

    /// ntpd slews the reader's clock; DTrace's is left alone.
    #[test]
    fn clocks_that_drift_apart_are_followed() {
        for ppm in [-100, 30, 100] {
            let (mut returns, spans) = run(20_000);
            let begin = returns[0].at;
            returns.iter_mut().for_each(|a| a.at += (a.at - begin) / 1000 * ppm / 1000);
            let found = align(&returns, &spans, &guess()).expect("an alignment").returns;
            let wrong = found.iter().enumerate().filter(|(i, found)| **found != Some(*i)).count();
            assert_eq!(wrong, 0, "{ppm} ppm");
        }
    }

    #[test]
    fn an_offset_that_explains_few_returns_is_none() {
        let (mut returns, spans) = run(300);
        let mut state = 1i64;
        for a in &mut returns[10..] {
            state = (state * 69069 + 1) % 1_000_003;
            a.at += 5_000_000 + state * 20;
            a.returned += state % 3;
        }
        assert_eq!(align(&returns, &spans, &guess()), None);
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
