//! The terms of docs/signals.md by brute force: every wait laid over every run and every stall of the CPU it was on.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;

/// One thing that the scheduler did on a CPU; times are ns of its run queue's clock.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub at: u64,
    pub cpu: u16,
    pub what: What,
}

/// A task. The idle one has pid 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The kernel's: a pid changes when another thread than the leader executes a program, and is used again.
    pub address: u64,
    pub pid: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Switch {
        prev: Task,
        /// When it was switched in, as the kernel says: there are switches that no tracer is told of.
        arrived: u64,
        /// It still wants the CPU.
        runnable: bool,
        /// It, or its group, may not run for now: its real-time or deadline budget is used up.
        spent: bool,
        next: Task,
        cgroup: u64,
        /// Since when it has been runnable; 0: the kernel does not say.
        queued: u64,
        /// Its policy is FIFO, RR or DEADLINE.
        realtime: bool,
    },
    Wake {
        task: Task,
        cgroup: u64,
        queued: u64,
        spent: bool,
        realtime: bool,
    },
    /// A task that waits is taken to another CPU.
    Move {
        task: Task,
        cgroup: u64,
        to: u16,
    },
    /// The throttle clock of a cgroup's queue.
    Look {
        cgroup: u64,
        /// How long it was throttled, up to the last unthrottle.
        clock: u64,
        /// When the stall in progress began; 0: there is none.
        since: u64,
        /// It is another queue than at the last look, with a clock of its own.
        fresh: bool,
    },
    Throttle {
        cgroup: u64,
    },
    Unthrottle {
        cgroup: u64,
    },
}

/// How the beginnings and ends of stalls are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactly {
    /// By the kernel's own clocks (6.6).
    Clocks,
    /// By the moments themselves (kprobes).
    Moments,
    /// Not.
    Never,
}

/// What the scheduler did to the tasks of one cgroup, ns, summed over CPUs unless said otherwise.
/// `wait` = `throttle + neighbour + own + unattributed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub run: u64,
    pub wait: u64,
    pub throttle: u64,
    pub neighbour: u64,
    pub own: u64,
    pub unattributed: u64,
    /// The part of `unattributed` in which a real-time or deadline budget was used up.
    pub spent: u64,
    /// Time in which at least one task waited for a neighbour, summed over CPUs.
    pub waited: u64,
    pub stall_sum: u64,
    pub stall_wall: u64,
    pub stall_full: u64,
    /// Waits that ended.
    pub waits: u64,
    pub stalls: u64,
    /// The part of `neighbour` that each other cgroup ran.
    pub shares: BTreeMap<u64, u64>,
    pub slack: Slack,
}

/// By how much somebody who sees switches alone may be wrong, ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slack {
    /// Time on a CPU around switches that the kernel did not tell of.
    pub run: u64,
    /// Waits that such a switch ended.
    pub wait: u64,
    /// The part of all other waits in which it is not known who ran; and of waits of real-time tasks that in which others
    /// ran, though neither their budget was seen to be used up.
    pub split: u64,
    /// Stalls whose beginning was not seen.
    pub stall: u64,
}

/// All of a trace.
#[derive(Debug, Default)]
pub struct Figures {
    pub of: HashMap<u64, Terms>,
    /// Switches that were not told of.
    pub gaps: u64,
    /// Waits whose beginning the kernel tells otherwise than the trace, by more than a microsecond.
    pub odd: u64,
    pub runs: Vec<(u16, Run)>,
    pub waits: Vec<Wait>,
    pub stalls: BTreeMap<(u64, u16), Vec<Span>>,
}

impl Figures {
    /// Of one cgroup; nothing if it is not in the trace.
    pub fn of(&self, cgroup: u64) -> Terms {
        self.of.get(&cgroup).cloned().unwrap_or_default()
    }
}

/// `[from, to)`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    fn length(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    fn and(self, other: Span) -> Span {
        Span { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub span: Span,
    pub cgroup: u64,
    pub pid: u32,
    pub realtime: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub span: Span,
    pub cpu: u16,
    pub cgroup: u64,
    pub pid: u32,
    pub realtime: bool,
    /// A budget was used up when it began.
    pub spent: bool,
    /// Ended by a switch that was not told of.
    pub untold: bool,
}

/// Who is on a CPU since when.
#[derive(Clone, Copy)]
struct Current {
    task: Task,
    cgroup: u64,
    realtime: bool,
    since: u64,
}

/// A task that waits.
#[derive(Clone, Copy)]
struct Open {
    since: u64,
    cpu: u16,
    cgroup: u64,
    realtime: bool,
    spent: bool,
    moved: bool,
}

/// A queue's throttling.
#[derive(Clone, Copy, Default)]
struct Queue {
    seen: bool,
    clock: u64,
    since: u64,
    throttled: bool,
    begun: Option<u64>,
}

/// Reads a trace from its beginning.
#[derive(Default)]
struct Walk {
    exact_clocks: bool,
    currents: HashMap<u16, Current>,
    opens: HashMap<u64, Open>,
    /// The cgroup each task was last seen in, and whether it is a real-time task.
    known: HashMap<u64, (u64, bool)>,
    queues: HashMap<(u64, u16), Queue>,
    gaps: HashMap<u16, Vec<Span>>,
    figures: Figures,
}

/// What the whole trace comes to: every run, wait and stall that ended in it, in whole.
pub fn figures(events: &[Event], stalls: Exactly) -> Figures {
    let mut walk = Walk { exact_clocks: stalls == Exactly::Clocks, ..Walk::default() };
    for event in events {
        walk.event(event);
    }
    walk.add_up()
}

impl Walk {
    fn event(&mut self, event: &Event) {
        let Event { at, cpu, what } = *event;
        match what {
            What::Switch { prev, arrived, runnable, spent, next, cgroup, queued, realtime } => {
                self.switched_out(at, cpu, prev, arrived, runnable, spent);
                self.switched_in(at, cpu, next, cgroup, queued, realtime);
            }
            What::Wake { task, cgroup, queued, spent, realtime } => {
                self.known.insert(task.address, (cgroup, realtime));
                self.queue_up(task, Open { since: queued, cpu, cgroup, realtime, spent, moved: false });
            }
            What::Move { task, cgroup, to } => {
                if let Some(open) = self.opens.remove(&task.address) {
                    self.wait(task.pid, Open { cgroup, ..open }, at, false);
                    self.queue_up(task, Open { since: at, cpu: to, cgroup, moved: true, ..open });
                }
            }
            What::Look { cgroup, clock, since, fresh } => self.look(at, cpu, cgroup, clock, since, fresh),
            What::Throttle { cgroup } => self.throttle(at, cpu, cgroup),
            What::Unthrottle { cgroup } => self.unthrottle(at, cpu, cgroup),
        }
    }

    fn switched_out(&mut self, at: u64, cpu: u16, prev: Task, arrived: u64, runnable: bool, spent: bool) {
        let (cgroup, realtime) = match self.currents.get(&cpu).copied() {
            None => match self.known.get(&prev.address) {
                Some(known) => *known,
                None => return, // the trace begins here
            },
            Some(now) if now.task.address == prev.address => {
                self.run(cpu, now, now.since, at);
                (now.cgroup, now.realtime)
            }
            Some(now) => self.untold(at, cpu, now, prev, arrived),
        };
        if prev.pid == 0 {
            return;
        }
        if runnable {
            self.queue_up(prev, Open { since: at, cpu, cgroup, realtime, spent, moved: false });
        } else {
            self.opens.remove(&prev.address);
        }
    }

    /// `prev` leaves the CPU, and nobody saw it come: the kernel knows when it did. Returns its cgroup.
    fn untold(&mut self, at: u64, cpu: u16, was: Current, prev: Task, arrived: u64) -> (u64, bool) {
        let (cgroup, realtime) = self.known.get(&prev.address).copied().unwrap_or_default();
        let came = arrived.clamp(was.since, at);
        let gap = Span { from: was.since, to: at };
        self.figures.gaps += 1;
        self.gaps.entry(cpu).or_default().push(gap);
        self.run(cpu, was, was.since, came);
        self.slack(was.cgroup).run += gap.length();
        if prev.pid != 0 {
            self.run(cpu, Current { task: prev, cgroup, realtime, since: came }, came, at);
            self.slack(cgroup).run += gap.length();
            if let Some(open) = self.opens.remove(&prev.address) {
                self.wait(prev.pid, open, came, true);
            }
        }
        (cgroup, realtime)
    }

    fn switched_in(&mut self, at: u64, cpu: u16, next: Task, cgroup: u64, queued: u64, realtime: bool) {
        self.currents.insert(cpu, Current { task: next, cgroup, realtime, since: at });
        if next.pid == 0 {
            return;
        }
        self.known.insert(next.address, (cgroup, realtime));
        let open = self.opens.remove(&next.address);
        let seen = open.filter(|open| open.cpu == cpu);
        if let Some(open) = seen.filter(|open| queued != 0 && !open.moved) {
            self.figures.odd += u64::from(open.since.abs_diff(queued) > 1000);
        }
        let since = match (queued, seen) {
            (0, None) => return,
            (0, Some(open)) => open.since,
            (queued, _) => queued.min(at),
        };
        let spent = open.is_some_and(|open| open.spent);
        self.wait(next.pid, Open { since, cpu, cgroup, realtime, spent, moved: false }, at, false);
    }

    fn queue_up(&mut self, task: Task, open: Open) {
        self.opens.insert(task.address, open);
        let queue = self.queues.entry((open.cgroup, open.cpu)).or_default();
        if queue.throttled && queue.begun.is_none() {
            queue.begun = Some(open.since);
        }
    }

    fn slack(&mut self, cgroup: u64) -> &mut Slack {
        &mut self.figures.of.entry(cgroup).or_default().slack
    }

    fn run(&mut self, cpu: u16, who: Current, from: u64, to: u64) {
        if who.task.pid != 0 && from < to {
            let span = Span { from, to };
            let run = Run { span, cgroup: who.cgroup, pid: who.task.pid, realtime: who.realtime };
            self.figures.runs.push((cpu, run));
        }
    }

    fn wait(&mut self, pid: u32, open: Open, to: u64, untold: bool) {
        if open.since < to {
            let Open { since, cpu, cgroup, realtime, spent, .. } = open;
            let span = Span { from: since, to };
            self.figures.waits.push(Wait { span, cpu, cgroup, pid, realtime, spent, untold });
        }
    }

    fn stall(&mut self, cgroup: u64, cpu: u16, from: u64, to: u64) {
        if from < to {
            self.figures.stalls.entry((cgroup, cpu)).or_default().push(Span { from, to });
        }
    }

    fn look(&mut self, at: u64, cpu: u16, cgroup: u64, clock: u64, since: u64, fresh: bool) {
        if !self.exact_clocks {
            return;
        }
        let queue = self.queues.entry((cgroup, cpu)).or_default();
        let before = *queue;
        *queue = Queue { seen: true, clock, since, ..before };
        if fresh || !before.seen || clock <= before.clock {
            return;
        }
        let length = clock - before.clock;
        if before.since != 0 {
            self.stall(cgroup, cpu, before.since, before.since + length);
        } else {
            // It began after the last look, and every switch of this CPU is one: it is not long over.
            self.stall(cgroup, cpu, at - length, at);
            self.slack(cgroup).stall += length;
        }
    }

    fn throttle(&mut self, at: u64, cpu: u16, cgroup: u64) {
        let waits = self.opens.values().any(|open| (open.cgroup, open.cpu) == (cgroup, cpu));
        let runs = self.currents.get(&cpu).is_some_and(|now| now.task.pid != 0 && now.cgroup == cgroup);
        let queue = self.queues.entry((cgroup, cpu)).or_default();
        queue.throttled = true;
        queue.begun = (waits || runs).then_some(at);
    }

    fn unthrottle(&mut self, at: u64, cpu: u16, cgroup: u64) {
        let queue = self.queues.entry((cgroup, cpu)).or_default();
        queue.throttled = false;
        if let Some(begun) = queue.begun.take().filter(|_| !self.exact_clocks) {
            self.stall(cgroup, cpu, begun, at);
        }
    }

    fn add_up(mut self) -> Figures {
        let mut runs: HashMap<u16, Vec<Run>> = HashMap::new();
        for (cpu, run) in &self.figures.runs {
            runs.entry(*cpu).or_default().push(*run);
            self.figures.of.entry(run.cgroup).or_default().run += run.span.length();
        }
        for of in runs.values_mut() {
            of.sort_by_key(|run| run.span);
        }
        for spans in self.figures.stalls.values_mut() {
            spans.sort();
        }
        let nothing = Vec::new();
        let mut kept_off: BTreeMap<(u64, u16), Vec<Span>> = BTreeMap::new();
        for wait in &self.figures.waits {
            let runs = runs.get(&wait.cpu).map_or(&[][..], |runs| within(runs, wait.span));
            let stalls = self.figures.stalls.get(&(wait.cgroup, wait.cpu)).unwrap_or(&nothing);
            let gaps = self.gaps.get(&wait.cpu).unwrap_or(&nothing);
            let part = split(wait, runs, stalls, gaps);
            if !wait.spent {
                let stalls = if wait.realtime { &nothing } else { stalls };
                kept_off.entry((wait.cgroup, wait.cpu)).or_default().extend(without(wait.span, stalls));
            }
            let terms = self.figures.of.entry(wait.cgroup).or_default();
            *terms += part;
        }
        for ((cgroup, cpu), spans) in kept_off {
            let others = |run: &&Run| run.cgroup != cgroup;
            let runs = runs.get(&cpu).map_or(&[][..], |runs| &runs[..]);
            let of = |span: Span| {
                within(runs, span).iter().filter(others).map(|run| run.span.and(span).length()).sum::<u64>()
            };
            self.figures.of.entry(cgroup).or_default().waited +=
                union(spans).into_iter().map(of).sum::<u64>();
        }
        for (&(cgroup, _), spans) in &self.figures.stalls {
            let terms = self.figures.of.entry(cgroup).or_default();
            terms.stalls += spans.len() as u64;
            terms.stall_sum += spans.iter().map(|span| span.length()).sum::<u64>();
        }
        for (&cgroup, terms) in &mut self.figures.of {
            let stalls = self.figures.stalls.iter().filter(|((of, _), _)| *of == cgroup);
            let stalls = union(stalls.flat_map(|(_, spans)| spans).copied().collect());
            let runs = self.figures.runs.iter().filter(|(_, run)| run.cgroup == cgroup);
            let runs = union(runs.map(|(_, run)| run.span).collect());
            terms.stall_wall = stalls.iter().map(|span| span.length()).sum();
            terms.stall_full = terms.stall_wall - common(&stalls, &runs);
        }
        self.figures
    }
}

/// Those of a CPU's runs, which follow each other, that have a part in the span.
fn within(runs: &[Run], span: Span) -> &[Run] {
    let first = runs.partition_point(|run| run.span.to <= span.from);
    let end = runs.partition_point(|run| run.span.from < span.to);
    &runs[first..end.max(first)]
}

/// What a wait was for: its queue was throttled, or somebody ran, or neither.
fn split(wait: &Wait, runs: &[Run], stalls: &[Span], gaps: &[Span]) -> Terms {
    // A limit of the fair class does not stop a real-time task.
    let stalls = if wait.realtime { &[][..] } else { stalls };
    let free = without(wait.span, stalls);
    let mut terms = Terms { wait: wait.span.length(), waits: 1, ..Terms::default() };
    terms.throttle = terms.wait - free.iter().map(|span| span.length()).sum::<u64>();
    for free in &free {
        for run in within(runs, *free) {
            let part = run.span.and(*free).length();
            if wait.spent {
                // It may not run, whoever else does. Afterwards only others of its kind can keep it off; when that
                // was is not known.
                terms.spent += part;
                terms.slack.split += if run.realtime { part } else { 0 };
                continue;
            }
            if wait.realtime && !run.realtime {
                // It would run at once if it might.
                terms.slack.split += part;
            }
            if run.cgroup == wait.cgroup {
                terms.own += part;
            } else {
                terms.neighbour += part;
                *terms.shares.entry(run.cgroup).or_default() += part;
            }
        }
        if !wait.untold {
            terms.slack.split += gaps.iter().map(|gap| gap.and(*free).length()).sum::<u64>();
        }
    }
    terms.unattributed = terms.wait - terms.throttle - terms.own - terms.neighbour;
    if wait.untold {
        terms.slack.wait = terms.wait;
    }
    terms
}

/// What these leave of a span; they are in order and apart from each other.
fn without(span: Span, taken: &[Span]) -> Vec<Span> {
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
fn union(mut spans: Vec<Span>) -> Vec<Span> {
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
fn common(a: &[Span], b: &[Span]) -> u64 {
    let mut shared = 0;
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        shared += x.and(*y).length();
        if x.to <= y.to { i += 1 } else { j += 1 }
    }
    shared
}

impl AddAssign for Terms {
    fn add_assign(&mut self, other: Terms) {
        self.run += other.run;
        self.wait += other.wait;
        self.throttle += other.throttle;
        self.neighbour += other.neighbour;
        self.own += other.own;
        self.unattributed += other.unattributed;
        self.spent += other.spent;
        self.waits += other.waits;
        for (culprit, ns) in other.shares {
            *self.shares.entry(culprit).or_default() += ns;
        }
        self.slack.run += other.slack.run;
        self.slack.wait += other.slack.wait;
        self.slack.split += other.slack.split;
        self.slack.stall += other.slack.stall;
    }
}

/// Traces made by hand: what they come to can be seen by looking.
mod tests {
    use super::*;

    const A: u64 = 10;
    const B: u64 = 20;
    const IDLE: Task = Task { address: 1, pid: 0 };

    fn task(number: u32) -> Task {
        Task { address: 1000 + u64::from(number), pid: number }
    }

    fn wake(at: u64, task: Task, cgroup: u64) -> Event {
        Event { at, cpu: 0, what: What::Wake { task, cgroup, queued: at, spent: false, realtime: false } }
    }

    /// Who arrived when, and wants to go on or not; who comes, of which cgroup, queued since when.
    fn switch(at: u64, out: (Task, u64, bool), come: (Task, u64, u64)) -> Event {
        let (prev, arrived, runnable) = out;
        let (next, cgroup, queued) = come;
        let what =
            What::Switch { prev, arrived, runnable, spent: false, next, cgroup, queued, realtime: false };
        Event { at, cpu: 0, what }
    }

    fn look(at: u64, clock: u64, since: u64) -> Event {
        Event { at, cpu: 0, what: What::Look { cgroup: A, clock, since, fresh: false } }
    }

    /// Two threads of A and one of B share a CPU.
    #[test]
    fn a_wait_is_for_whoever_runs() {
        let [one, two, other] = [task(1), task(2), task(3)];
        let figures = figures(
            &[
                wake(100, one, A),
                switch(100, (IDLE, 0, true), (one, A, 100)),
                wake(110, other, B),
                wake(120, two, A),
                switch(200, (one, 100, true), (other, B, 110)),
                switch(300, (other, 200, false), (two, A, 120)),
                switch(400, (two, 300, false), (one, A, 200)),
                switch(500, (one, 400, false), (IDLE, 0, 0)),
            ],
            Exactly::Clocks,
        );
        let (a, b) = (figures.of(A), figures.of(B));
        assert_eq!((figures.gaps, figures.odd), (0, 0));
        // one: 200 to 400, of which B 100 and two 100. two: 120 to 300, of which one 80 and B 100, the same as one's.
        assert_eq!(a.waited, 100);
        assert_eq!((a.run, a.wait, a.own, a.neighbour, a.unattributed), (300, 380, 180, 200, 0));
        assert_eq!(a.shares, BTreeMap::from([(B, 200)]));
        assert_eq!((b.run, b.wait, b.neighbour), (100, 90, 90));
        assert_eq!(a.slack, Slack::default());
    }

    /// It is stopped from 200 to 500, while B runs from 200 to 600.
    #[test]
    fn while_it_is_stopped_nobody_keeps_it_off() {
        let [one, other] = [task(1), task(3)];
        let figures = figures(
            &[
                look(100, 0, 0),
                wake(100, one, A),
                switch(100, (IDLE, 0, true), (one, A, 100)),
                wake(150, other, B),
                look(200, 0, 200),
                switch(200, (one, 100, true), (other, B, 150)),
                look(600, 300, 0),
                switch(600, (other, 200, true), (one, A, 200)),
                switch(700, (one, 600, false), (other, B, 600)),
            ],
            Exactly::Clocks,
        );
        let a = figures.of(A);
        assert_eq!((a.wait, a.throttle, a.neighbour, a.unattributed), (400, 300, 100, 0));
        assert_eq!((a.stall_sum, a.stall_wall, a.stall_full, a.stalls), (300, 300, 300, 1));
    }

    /// The same by moments, throttled before anything waits there.
    #[test]
    fn a_stall_begins_with_who_is_stopped() {
        let one = task(1);
        let stall = |at, what| Event { at, cpu: 0, what };
        let figures = figures(
            &[
                stall(100, What::Throttle { cgroup: A }),
                wake(150, one, A),
                stall(300, What::Unthrottle { cgroup: A }),
                switch(310, (IDLE, 0, true), (one, A, 150)),
                switch(400, (one, 310, false), (IDLE, 0, 0)),
            ],
            Exactly::Moments,
        );
        let a = figures.of(A);
        assert_eq!((a.wait, a.throttle, a.unattributed, a.stall_sum), (160, 150, 10, 150));
    }

    /// Of two stalls that overlap, the union; of that, the part in which nothing ran on the other CPU.
    #[test]
    fn stalls_of_two_cpus_are_joined() {
        let stalls = [Span { from: 100, to: 300 }, Span { from: 50, to: 200 }, Span { from: 400, to: 500 }];
        let joined = union(stalls.to_vec());
        assert_eq!(joined, [Span { from: 50, to: 300 }, Span { from: 400, to: 500 }]);
        assert_eq!(common(&joined, &[Span { from: 0, to: 60 }, Span { from: 290, to: 410 }]), 10 + 10 + 10);
    }

    /// A task is moved while it waits: what it waited is the CPU's that it leaves.
    #[test]
    fn a_move_ends_a_wait() {
        let [one, other] = [task(1), task(3)];
        let mut come = switch(170, (IDLE, 0, true), (one, A, 161));
        come.cpu = 1;
        let figures = figures(
            &[
                wake(90, other, B),
                switch(100, (IDLE, 0, true), (other, B, 90)),
                wake(110, one, A),
                Event { at: 160, cpu: 0, what: What::Move { task: one, cgroup: A, to: 1 } },
                come,
                switch(200, (other, 100, false), (IDLE, 0, 0)),
            ],
            Exactly::Clocks,
        );
        let a = figures.of(A);
        assert_eq!((a.wait, a.waits, a.neighbour, a.unattributed), (59, 2, 50, 9));
    }

    /// Nobody saw B come: the kernel knows when it did, and who sees switches alone may be wrong by that much.
    #[test]
    fn a_switch_that_was_not_told_of_is_known_by_its_end() {
        let [one, other] = [task(1), task(3)];
        let figures = figures(
            &[
                wake(100, one, A),
                switch(100, (IDLE, 0, true), (one, A, 100)),
                wake(120, other, B),
                switch(300, (other, 250, false), (one, A, 250)),
                switch(400, (one, 300, false), (IDLE, 0, 0)),
            ],
            Exactly::Clocks,
        );
        let (a, b) = (figures.of(A), figures.of(B));
        assert_eq!((figures.gaps, a.run, b.run), (1, 250, 50));
        assert_eq!((a.slack.run, b.slack.run, b.slack.wait), (200, 200, 130));
        assert_eq!((b.wait, a.neighbour, a.slack.split), (130, 50, 50));
    }

    /// A task whose deadline budget is used up waits for nobody.
    #[test]
    fn a_spent_budget_is_no_neighbour() {
        let [one, other] = [task(1), task(3)];
        let mut out = switch(200, (one, 100, true), (other, B, 150));
        let mut back = switch(500, (other, 200, true), (one, A, 200));
        if let (What::Switch { spent, .. }, What::Switch { realtime, .. }) = (&mut out.what, &mut back.what) {
            (*spent, *realtime) = (true, true);
        }
        let events = [wake(100, one, A), switch(100, (IDLE, 0, true), (one, A, 100)), out, back];
        let a = figures(&events, Exactly::Clocks).of(A);
        assert_eq!((a.wait, a.neighbour, a.unattributed, a.slack.split), (300, 0, 300, 0));
    }
}
