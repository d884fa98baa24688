//! The terms of docs/signals.md by brute force: every wait laid over every run and every stall of the CPU it was on.
//!
//! In one piece, though long: the terms are defined here once, side by side as the page has them, and what a walk through the trace keeps is
//! what they are made of.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;

use super::span::{Span, common, union, without};

#[cfg(test)]
mod tests;

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
        /// What it had waited before this, as the kernel counts.
        delay: u64,
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
        /// What it has waited, with this, as the kernel counts.
        delay: u64,
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
    pub throttled_per_cpu: u64,
    pub throttled_wall: u64,
    pub throttled_full: u64,
    /// Of the union of stalls over CPUs, the first.
    pub first_stall: u64,
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
    /// What each task has waited, as the kernel counts, up to its last switch-in or move.
    delays: HashMap<u64, u64>,
    queues: HashMap<(u64, u16), Queue>,
    /// Queues that had been throttled before a task of the cgroup was first seen in them: when that was, and for how long.
    pasts: HashMap<(u64, u16), (u64, u64)>,
    /// When a task of the cgroup was first switched in, or moved away, there.
    first: HashMap<(u64, u16), u64>,
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
            What::Switch { prev, arrived, runnable, spent, next, cgroup, queued, delay, realtime } => {
                self.switched_out(at, cpu, prev, arrived, runnable, spent);
                self.delays
                    .insert(next.address, delay + if queued == 0 { 0 } else { at.saturating_sub(queued) });
                self.switched_in(at, cpu, next, cgroup, queued, realtime);
            }
            What::Wake { task, cgroup, queued, spent, realtime } => {
                self.known.insert(task.address, (cgroup, realtime));
                self.queue_up(task, Open { since: queued, cpu, cgroup, realtime, spent, moved: false });
            }
            What::Move { task, cgroup, to, delay } => {
                let before = self.delays.insert(task.address, delay);
                self.first.entry((cgroup, cpu)).or_insert(at);
                if let Some(mut open) = self.opens.remove(&task.address) {
                    // It came by a move: when it was on this queue is known by how long it waited there. Until then it was on
                    // its way, for nanoseconds here and for milliseconds on an emulated CPU, which is no wait.
                    if let Some(before) = before.filter(|_| open.moved) {
                        open.since = at - delay.saturating_sub(before).min(at - open.since);
                    }
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
        self.first.entry((cgroup, cpu)).or_insert(at);
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
        if fresh || !before.seen {
            if clock > 0 {
                self.pasts.insert((cgroup, cpu), (at, clock));
                self.slack(cgroup).stall += clock;
            }
            return;
        }
        if clock <= before.clock {
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
        self.leave_out_others_stalls();
        let nothing = Vec::new();
        let mut kept_off: BTreeMap<(u64, u16), Vec<Span>> = BTreeMap::new();
        for wait in &self.figures.waits {
            let runs = runs.get(&wait.cpu).map_or(&[][..], |runs| within(runs, wait.span));
            let stalls = self.figures.stalls.get(&(wait.cgroup, wait.cpu)).unwrap_or(&nothing);
            let gaps = self.gaps.get(&wait.cpu).unwrap_or(&nothing);
            let mut part = split(wait, runs, stalls, gaps);
            // Of what the queue was throttled before it was first seen nobody knows when.
            if let Some(&(seen, clock)) = self.pasts.get(&(wait.cgroup, wait.cpu)) {
                part.slack.split += clock.min(seen.saturating_sub(wait.span.from));
            }
            // Nor does one who sees switches and moves alone of a stall before the first of them.
            let first = self.first.get(&(wait.cgroup, wait.cpu)).copied().unwrap_or(u64::MAX);
            let unseen = stalls.iter().take_while(|stall| stall.from < first);
            part.slack.split += unseen.map(|stall| stall.and(wait.span).length()).sum::<u64>();
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
        for (&(cgroup, cpu), spans) in &self.figures.stalls {
            let terms = self.figures.of.entry(cgroup).or_default();
            let first = self.first.get(&(cgroup, cpu)).copied().unwrap_or(u64::MAX);
            let unseen = spans.iter().take_while(|stall| stall.from < first);
            terms.slack.stall += unseen.map(|stall| stall.length()).sum::<u64>();
            terms.stalls += spans.len() as u64;
            terms.throttled_per_cpu += spans.iter().map(|span| span.length()).sum::<u64>();
        }
        for (&cgroup, terms) in &mut self.figures.of {
            let stalls = self.figures.stalls.iter().filter(|((of, _), _)| *of == cgroup);
            let stalls = union(stalls.flat_map(|(_, spans)| spans).copied().collect());
            let runs = self.figures.runs.iter().filter(|(_, run)| run.cgroup == cgroup);
            let runs = union(runs.map(|(_, run)| run.span).collect());
            terms.first_stall = stalls.first().map_or(0, |span| span.length());
            terms.throttled_wall = stalls.iter().map(|span| span.length()).sum();
            terms.throttled_full = terms.throttled_wall - common(&stalls, &runs);
        }
        self.figures
    }
}

impl Walk {
    /// The kernel's clock of a queue runs for the groups below it too. A stall is the cgroup's if one of its own tasks waited.
    fn leave_out_others_stalls(&mut self) {
        let mut waits: HashMap<(u64, u16), Vec<Span>> = HashMap::new();
        for wait in &self.figures.waits {
            waits.entry((wait.cgroup, wait.cpu)).or_default().push(wait.span);
        }
        let mut left = Vec::new();
        for (queue, spans) in &mut self.figures.stalls {
            let waits = union(waits.remove(queue).unwrap_or_default());
            spans.sort();
            spans.retain(|stall| common(&[*stall], &waits) > 0);
            // Nor has it a part in what is left of one when its last task has gone to another queue.
            for stall in spans {
                let last = waits.partition_point(|wait| wait.from < stall.to);
                let over = waits[..last].last().map_or(stall.to, |wait| wait.to);
                left.push((queue.0, stall.to.saturating_sub(over)));
            }
        }
        for (cgroup, ns) in left {
            self.slack(cgroup).stall += ns;
        }
        self.figures.stalls.retain(|_, spans| !spans.is_empty());
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
