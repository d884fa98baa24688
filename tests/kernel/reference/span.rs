//! Intervals of time.

/// `[from, to)`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    pub fn length(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    pub fn and(self, other: Span) -> Span {
        Span { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

/// What these leave of a span; they are in order and apart from each other.
pub fn without(span: Span, taken: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    let mut from = span.from;
    let first = taken.partition_point(|taken| taken.to <= span.from);
    for taken in taken[first..].iter().take_while(|taken| taken.from < span.to) {
        if from < taken.from {
            left.push(Span { from, to: taken.from });
        }
        from = from.max(taken.to);
    }
    if from < span.to {
        left.push(Span { from, to: span.to });
    }
    left
}

/// The same time, in order and each part once.
pub fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort();
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => joined.push(span),
        }
    }
    joined
}

/// For how long both are; each is a union.
pub fn common(a: &[Span], b: &[Span]) -> u64 {
    let mut shared = 0;
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        shared += x.and(*y).length();
        if x.to <= y.to { i += 1 } else { j += 1 }
    }
    shared
}
