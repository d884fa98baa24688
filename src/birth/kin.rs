//! Whose a segment is and what part it plays: by its cgroup, by what it says of itself where that may be believed, and by
//! its lineage. Each segment has it from the one that began it, so that no depth of forks is too deep. Pure.

use super::hints::{self, Hints, Role, Verb};
use super::places::{Home, Trust};
use crate::attribution::paths::PodId;
use crate::kernel::recorder::{Begun, Segment};

/// Whose a segment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub pod: Option<PodId>,
    /// The runtime's id of the container.
    pub container: Option<String>,
}

impl Owner {
    /// It is known whose.
    pub fn is_known(&self) -> bool {
        self.pod.is_some() || self.container.is_some()
    }

    /// What was known goes before what is learnt; the two must not be of different pods.
    pub fn learn(&mut self, more: &Owner) {
        let other = matches!((&self.pod, &more.pod), (Some(a), Some(b)) if a != b);
        if other {
            return;
        }
        let take = |own: &mut Option<_>, more: &Option<_>| {
            if own.is_none() {
                own.clone_from(more);
            }
        };
        take(&mut self.container, &more.container);
        if self.pod.is_none() {
            self.pod.clone_from(&more.pod);
        }
    }
}

/// What a program has to do with the container it runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Within {
    /// It is outside, or the runtime's.
    #[default]
    Outside,
    /// It is the container's own program, or descends from it.
    Own,
    /// It was executed in a container that was there (a probe, a hook, a person), or descends from such a program.
    Entered,
}

/// A program that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// By what it is itself.
    role: Role,
    /// Its mount namespace.
    mnt: Option<u32>,
    /// What the runtime was asked to do, if it is the runtime's: also by its first process in the container.
    asked: Option<Verb>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kin {
    pub owner: Owner,
    /// The part it plays. The runtime's first process in a container serves what the runtime was asked to do.
    pub role: Role,
    pub within: Within,
    /// It is the first program of those within.
    pub first: bool,
    /// The nearest program: its own, or that of whoever forked it.
    pub program: Option<Program>,
    /// The kubelet forked the process, or did not; `None`: that was not seen.
    pub kubelets: Option<bool>,
}

/// What a segment's kin is made of.
pub struct Of<'a> {
    pub segment: &'a Segment,
    pub hints: &'a Hints,
    /// By the cgroups it was seen in, and by what it says of itself.
    pub own: Owner,
    /// What the same process runs next, where it says something of itself.
    pub next: Option<(&'a Hints, Owner)>,
    /// Of whoever began it.
    pub parent: Option<&'a Kin>,
    /// Its cgroup is that of a container.
    pub in_container: bool,
}

impl Kin {
    pub fn of(of: Of<'_>) -> Kin {
        let none = Kin::default();
        let parent = of.parent.unwrap_or(&none);
        let mut owner = of.own;
        // A fork that is about to exec a program works for whom that program works.
        let becomes = of.next.filter(|_| *of.hints == Hints::default());
        if let Some((_, next)) = &becomes {
            owner.learn(next);
        }
        owner.learn(&parent.owner);
        let acts = |role: Role| Some(role).filter(|r| *r != Role::Other);
        let acting = acts(of.hints.role).or_else(|| acts(becomes?.0.role));
        let role = match (acting, parent.role) {
            (Some(Role::Runtime(Verb::Init)), Role::Runtime(asked)) => Role::Runtime(asked),
            (Some(role), _) => role,
            (None, inherited) => inherited,
        };
        let first = first(of.segment, of.hints, parent, of.in_container);
        let is_program = of.segment.begun == Begun::Exec;
        let program = is_program.then(|| Program {
            role: of.hints.role,
            mnt: mnt(of.segment),
            asked: match role {
                Role::Runtime(verb) if of.hints.role != Role::Other => Some(verb),
                _ => None,
            },
        });
        Kin {
            owner,
            role,
            within: first.unwrap_or(parent.within),
            first: first.is_some(),
            program: program.or(parent.program),
            kubelets: if is_program { parent.kubelets } else { Some(hints::is_kubelet(&of.segment.comm)) },
        }
    }
}

fn mnt(segment: &Segment) -> Option<u32> {
    segment.place.namespaces.map(|n| n.mnt).filter(|&n| n != 0)
}

/// Whether it is the first program within a container: the first the runtime leads to that is not the runtime itself,
/// and is in a mount namespace of its own (a hook of the runtime is not).
fn first(segment: &Segment, hints: &Hints, parent: &Kin, in_container: bool) -> Option<Within> {
    if segment.begun != Begun::Exec || hints.role != Role::Other || parent.within != Within::Outside {
        return None;
    }
    // Of a process that was there before the recording only the cgroup tells.
    let Some(runtime) = parent.program else { return in_container.then_some(Within::Own) };
    let Role::Runtime(own) = runtime.role else { return None };
    let within = match runtime.asked {
        Some(Verb::Create | Verb::Run) => Within::Own,
        Some(Verb::Exec) => Within::Entered,
        // Of one whose creation was not recorded only the first process within is known.
        Some(Verb::Init) | None => Within::Own,
        Some(Verb::Start | Verb::Else) => return None,
    };
    let apart = match (runtime.mnt, mnt(segment)) {
        _ if own == Verb::Init => true,
        (Some(outside), Some(inside)) => inside != outside,
        _ => true,
    };
    apart.then_some(within)
}

/// What may be believed of what a program says of itself, by where it is and by whoever began it.
pub fn believed(said: Hints, home: &Home, parent: Option<&Kin>) -> Hints {
    let kubelets = parent.and_then(|p| p.kubelets);
    let of_runtime = |kin: &Kin| kin.program.is_none_or(|p| matches!(p.role, Role::Runtime(_)));
    match (said.role, home.trust) {
        // The kubelet mounts; a person who looks at a pod's files does not.
        (Role::Volume, Trust::Node) if kubelets != Some(false) => said,
        (Role::Volume, _) => Hints::default(),
        (_, Trust::Node) => said,
        (Role::Monitor | Role::Runtime(_), Trust::Monitor) => Hints { pod: home.pod.clone(), ..said },
        // It joins the container before it becomes the container's program; it names nobody.
        (Role::Runtime(Verb::Init), _) if parent.is_none_or(of_runtime) => {
            Hints { role: said.role, ..Hints::default() }
        }
        _ => Hints::default(),
    }
}
